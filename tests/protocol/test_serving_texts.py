"""The texts of MindSpore Serving, letter by letter."""

from __future__ import annotations

import pytest

from protocol import serving_texts as texts
from protocol.values import RequestSpec


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
        (texts.runtime_error("w"), "Serving Error: runtime error occurred: w"),
        (texts.exception_occurred("w"), "Serving Error: exception occurred: w"),
        (texts.MEMORY_EXHAUSTED, "Serving Error: malloc memory failed"),
        (texts.PREDICT_FAILED, "Predict failed"),
        (texts.post_only(), "http message only support POST right now"),
        (texts.body_empty(), "http message invalid"),
        (texts.body_too_large(1048576), "http message is bigger than 1048576"),
    ],
)
def test_text_is_the_original_one(text: str, expected: str) -> None:
    assert text == expected
