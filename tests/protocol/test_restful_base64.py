"""Base64 objects in RESTful requests: every dtype, and every text about a wrong one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from protocol.values import DTYPES, BytesValue, StringValue
from tests.protocol.restful_helpers import b64, decode, parse_refusal, refusal

CHECK = "Instances input x check failed, detail: "
UNKNOWN = "json array, data type is unknown"


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [None, [], [1], [2, 3], [0], [3, 0]])
def test_every_dtype_comes_as_base64(name: str, shape: list[int] | None) -> None:
    array = np.arange(np.prod(shape or [], dtype=int)).reshape(shape or []).astype(name)
    value = {"b64": b64(array.tobytes()), "type": name}
    if shape is not None:
        value["shape"] = shape
    decoded = decode(value)
    assert (decoded.dtype, decoded.shape) == (array.dtype, array.shape)
    assert decoded.tolist() == array.tolist()
    assert decoded.flags.writeable


@pytest.mark.parametrize(
    ("short", "name"), [("fp16", "float16"), ("fp32", "float32"), ("fp64", "float64")]
)
def test_floats_have_a_short_name(short: str, name: str) -> None:
    decoded = decode({"b64": b64(np.ones(2, name).tobytes()), "type": short, "shape": [2]})
    assert (decoded.dtype.name, decoded.tolist()) == (name, [1.0, 1.0])


def test_base64_of_text_and_bytes() -> None:
    assert decode({"b64": b64(b"\xff\0")}) == BytesValue(b"\xff\0")
    assert decode({"b64": "", "shape": []}) == BytesValue(b"")
    assert decode({"b64": b64(b"ab"), "type": "bytes", "shape": [1]}) == BytesValue(b"ab", (1,))
    assert decode({"b64": b64("é".encode()), "type": "str"}) == StringValue("é")
    assert decode([{"b64": b64(b"ab")}]) == BytesValue(b"ab", (1,))
    assert decode([{"b64": b64(b"ab"), "type": "str"}]) == StringValue("ab", (1,))


def test_base64_text_that_is_not_utf8_fails_the_tensor_check() -> None:
    for value in ({"b64": b64(b"\xff"), "type": "str"}, [{"b64": b64(b"\xff"), "type": "str"}]):
        assert refusal({"instances": {"x": value}}) == (
            CHECK + "Instance tensor check failed: string type input is not valid UTF-8"
        )


ILLEGAL_TYPE = "json object, key is 'type', value should be string type"
UNSIGNED = "json object, key is 'shape', array value should be unsigned integer"
NEGATIVE = "json object, key is 'shape', number value should not be negative number, shape value: "
SCALAR = (
    "json object, only support scalar when data type is string or bytes, "
    "please check 'type' or 'shape'"
)
OBJECT_TYPE = "json array, item is object type, object only support string or bytes type"
NO_B64 = "json object, 'b64' should be specified only one time"
NOT_STRING = "get scalar data failed, type is string, but json is not string type"
NOT_MATCHED = "decode base64 failed, size is not matched."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "json object, value is empty"),
        (
            {"b64": "", "type": "str", "shape": [], "z": 1},
            (
                "json object, items size is more than 3, only support specified "
                "['b64', 'type', 'shape']"
            ),
        ),
        ({"b64": "", "z": 1}, "json object, key is not ['b64', 'type', 'shape'], fail key:z"),
        ({"type": 1, "a": 1}, "json object, key is not ['b64', 'type', 'shape'], fail key:a"),
        ({"type": "int8"}, NO_B64),
        ({"b64": "", "type": 1}, ILLEGAL_TYPE),
        ({"b64": "", "type": "Int8"}, "json object, specified type:'Int8' is illegal"),
        (
            {"b64": "", "type": 1, "shape": 1},
            "json object, key is 'shape', value should be array type",
        ),
        ({"b64": "", "shape": [-1]}, UNSIGNED),
        ({"b64": "", "shape": [1.0]}, UNSIGNED),
        ({"b64": "", "shape": ["1"]}, UNSIGNED),
        ({"b64": "", "shape": [[1]]}, UNSIGNED),
        ({"b64": "", "shape": [True]}, UNSIGNED),
        ({"b64": "", "shape": [2**31, 1]}, NEGATIVE + "[2147483648,1]"),
        (
            {"b64": "", "shape": [1, 0, 2]},
            "json object, key is 'shape', invalid shape value [1,0,2]",
        ),
        (
            {"b64": "", "shape": [0, "a"]},
            "json object, key is 'shape', invalid shape value [0,\"a\"]",
        ),
        ({"b64": "", "shape": [0]}, SCALAR),
        ({"b64": 1, "type": "str", "shape": [2]}, SCALAR),
        ({"b64": 1}, NOT_STRING),
        ({"b64": None, "type": "int8"}, NOT_STRING),
        ({"b64": "QUI"}, "'QUI' is illegal b64 encode string"),
        ({"b64": "é"}, "'é' is illegal b64 encode string"),
        ({"b64": "éé"}, NOT_MATCHED),
        ({"b64": "é==="}, "'é===' is illegal b64 encode string"),
        ({"b64": "!AAA"}, NOT_MATCHED),
        ({"b64": "A!AA"}, NOT_MATCHED),
        ({"b64": "AA!A"}, NOT_MATCHED),
        ({"b64": "A-_A"}, NOT_MATCHED),
        ({"b64": "AA A"}, NOT_MATCHED),
        ({"b64": "===="}, NOT_MATCHED),
        ({"b64": "A==="}, NOT_MATCHED),
        ({"b64": "AA=A"}, NOT_MATCHED),
        ({"b64": "AA==AAAA"}, NOT_MATCHED),
        (
            {"b64": "AAAA", "type": "fp16", "shape": [2]},
            (
                "size is not matched, decode base64 size:3; Given info: type:float16; type size:2; "
                "element nums:2"
            ),
        ),
        (
            {"b64": "", "type": "int8"},
            (
                "size is not matched, decode base64 size:0; Given info: type:int8; type size:1; "
                "element nums:1"
            ),
        ),
        (
            {"b64": "", "type": "int64", "shape": [2**31 - 1] * 4},
            (
                "size is not matched, decode base64 size:0; Given info: type:int64; type size:8; "
                f"element nums:{(2**31 - 1) ** 4}"
            ),
        ),
        ([{"b64": "", "type": "int8"}], OBJECT_TYPE),
        ([{"type": "nope"}], UNKNOWN),
        ([{"type": "str"}], NO_B64),
        ([{}], NO_B64),
        ([{"b64": "", "type": 1}], ILLEGAL_TYPE),
        ([{"b64": 1}], NOT_STRING),
        ([{"b64": "A"}], "'A' is illegal b64 encode string"),
    ],
)
def test_a_wrong_base64_object_is_refused_with_the_original_text(value: Any, text: str) -> None:
    assert parse_refusal(value) == text


def test_a_zero_sized_shape_that_nothing_can_address_is_invalid() -> None:
    shape = [2**31 - 1, 2**31 - 1, 2**31 - 1, 0]
    assert refusal({"instances": {"x": {"b64": "", "type": "int8", "shape": shape}}}) == (
        CHECK + f"Tensor check failed: input  shape {shape} invalid"
    )
