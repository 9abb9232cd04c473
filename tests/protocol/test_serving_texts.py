"""The texts of MindSpore Serving, letter by letter."""

from __future__ import annotations

import pytest

from protocol import serving_texts as texts
from protocol.values import DTYPES, RequestSpec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            texts.servable_not_available(RequestSpec("add", "m", 0)),
            "Request servable(add) method(m) , servable is not available",
        ),
        (
            texts.servable_not_available(RequestSpec("add", "m", 2)),
            "Request servable(add) method(m)  version(2) , servable is not available",
        ),
        (
            texts.method_not_available(RequestSpec("add", "m", 0)),
            "Request servable(add) method(m) , method is not available",
        ),
        (
            texts.method_not_available(RequestSpec("add", "m", 1)),
            "Request servable(add) method(m)  version(1) , method is not available",
        ),
        (
            texts.stage_failed(texts.function_tag("add", "f"), "m", 2, "boom"),
            (
                "Call Function 'add.f' Failed, method: 'm', stage index(begin with 1): 2, "
                "error msg: boom"
            ),
        ),
        (
            texts.model_inputs_missing(1, 2),
            "Given model inputs size 1 less than model inputs size 2",
        ),
        (
            texts.model_input_bytes_mismatch(0, 8, 16),
            "Given model input 0 size 8 not match the size 16 defined in model",
        ),
        (
            texts.model_input_dtype_mismatch(1, "int32", "float32"),
            (
                "Given model input 1 data type kMSI_Int32 not match the data type kMSI_Float32 "
                "defined in model"
            ),
        ),
        (texts.runtime_error("w"), "Serving Error: runtime error occurred: w"),
        (texts.exception_occurred("w"), "Serving Error: exception occurred: w"),
        (texts.MEMORY_EXHAUSTED, "Serving Error: malloc memory failed"),
        (texts.MODEL_PREDICT_FAILED, "Predict Failed"),
        (texts.PREDICT_FAILED, "Predict failed"),
        (
            texts.builtin_dtype_unsupported("Argmax", "bool"),
            "Argmax not support data type kMSI_Bool",
        ),
        (texts.post_only(), "http message only support POST right now"),
        (texts.body_empty(), "http message invalid"),
        (texts.body_too_large(1048576), "http message is bigger than 1048576"),
    ],
)
def test_text_is_the_original_one(text: str, expected: str) -> None:
    assert text == expected


def test_every_dtype_has_its_core_name() -> None:
    names = [texts.kmsi_name(name) for name in (*DTYPES, "string", "bytes", "complex64")]
    assert names == [
        "kMSI_Bool", "kMSI_Int8", "kMSI_Uint8", "kMSI_Int16", "kMSI_Uint16", "kMSI_Int32",
        "kMSI_Uint32", "kMSI_Int64", "kMSI_Uint64", "kMSI_Float16", "kMSI_Float32",
        "kMSI_Float64", "kMSI_String", "kMSI_Bytes", "kMSI_Unknown",
    ]  # fmt: skip
