"""Replies of the RESTful dialect, byte by byte."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from protocol import restful
from protocol.values import (
    DTYPES,
    BytesValue,
    Failure,
    MethodSignature,
    RequestSpec,
    StringValue,
)

SPEC = RequestSpec("add", "m", 0)
METHOD = MethodSignature("add", "m", (), ("y",))


def encode(*results: Any, method: MethodSignature = METHOD) -> bytes:
    [frame] = restful.encode_reply(SPEC, method, results)
    return bytes(frame)


def encode_value(value: Any) -> str:
    """The JSON text of one output."""
    body = encode((value,)).decode()
    return body.removeprefix('{"instances":[{"y":').removesuffix("}]}")


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (3, 0)])
def test_every_dtype_and_shape_is_answered(name: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(name)
    assert encode_value(array) == json.dumps(array.tolist(), separators=(",", ":"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(2), "2.0"),
        (np.float32(3.2), "3.200000047683716"),
        (np.array([3.2], np.float32), "[3.200000047683716]"),
        (np.float16(0.1), "0.0999755859375"),
        (np.array([0.1], np.float16), "[0.0999755859375]"),
        (np.float64(0.1), "0.1"),
        (np.float64(np.nan), "null"),
        (np.array([np.nan, np.inf, -np.inf], np.float32), "[null,null,null]"),
        (np.array([[np.nan]]), "[[null]]"),
        (np.array([-(2**63), 2**63 - 1]), "[-9223372036854775808,9223372036854775807]"),
        (np.uint64(2**64 - 1), "18446744073709551615"),
        (np.array([True, False]), "[true,false]"),
        (np.bool_(True), "true"),
        (np.zeros((2, 0, 3)), "[[],[]]"),
        (StringValue("hé\n"), '"hé\\n"'),
        (StringValue("a", (1,)), '["a"]'),
        (BytesValue(b"\xff\0"), '{"b64":"/wA="}'),
        (BytesValue(memoryview(b""), (1,)), '[{"b64":""}]'),
    ],
)
def test_a_value_has_its_json_form(value: Any, text: str) -> None:
    assert encode_value(value) == text


@pytest.mark.parametrize("number", [1e16, 1.5e300, -1e22, 1e-5, 5e-324])
def test_very_large_and_small_numbers_read_back_the_same(number: float) -> None:
    text = encode_value(np.float64(number))
    assert (json.loads(text), "." in text or "e" in text) == (number, True)


def test_a_reply_for_a_single_object_is_a_list_too() -> None:
    assert encode((np.int32(1),)) == b'{"instances":[{"y":1}]}'


def test_arrays_of_any_order_are_answered_in_c_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    for odd in (array.T, array[:, ::2], array.astype(">i4"), array.T.astype(np.float32)):
        assert json.loads(encode_value(odd)) == odd.tolist()


def test_a_dtype_that_the_wire_does_not_know_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="complex128"):
        encode((np.zeros(1, complex),))


def test_keys_are_sorted_and_nothing_is_spaced() -> None:
    method = MethodSignature("add", "m", (), ("z", "ä", "a", "Z"))
    instance = tuple(np.int32(n) for n in range(4))
    assert encode(instance, method=method) == '{"instances":[{"Z":3,"a":2,"z":0,"ä":1}]}'.encode()


def test_failed_instances_keep_their_place() -> None:
    body = encode((np.int32(1),), Failure(3, 'say "é"'), (np.int32(2),))
    assert body == '{"instances":[{"y":1},{"error_msg":"say \\"é\\""},{"y":2}]}'.encode()


def test_different_failures_stay_apart_and_identical_ones_collapse() -> None:
    body = encode(Failure(3, "a"), Failure(3, "b"))
    assert body == b'{"instances":[{"error_msg":"a"},{"error_msg":"b"}]}'
    assert encode(Failure(3, "a"), Failure(1, "a")) == (
        b'{"instances":[{"error_msg":"a"},{"error_msg":"a"}]}'
    )
    assert encode(Failure(3, "a"), Failure(3, "a")) == b'{"error_msg":"a"}'
    assert encode(Failure(3, "a")) == b'{"error_msg":"a"}'


def test_a_whole_failure_shows_its_text_only() -> None:
    assert restful.encode_failure(SPEC, "no_worker", "gone") == [b'{"error_msg":"gone"}']
    assert restful.encode_failure(None, "failed", "") == [b'{"error_msg":"Predict failed"}']
    assert restful.encode_failure(None, "failed", "a\udc80") == [b'{"error_msg":"a\\\\udc80"}']


def test_long_error_texts_are_not_cut() -> None:
    text = "ü" * 1000
    [body] = restful.encode_failure(None, "failed", text)
    assert json.loads(bytes(body)) == {"error_msg": text}


def test_output_text_without_utf8_form_fails_its_instance_only() -> None:
    text = "Failed to construct the response: reply string y is not valid UTF-8"
    bad, good = (StringValue("\udc80"),), (StringValue("ok"),)
    assert json.loads(encode(bad, good)) == {"instances": [{"error_msg": text}, {"y": "ok"}]}
    assert json.loads(encode(bad)) == {"error_msg": text}


def test_a_method_without_outputs_cannot_be_answered() -> None:
    body = encode((), method=MethodSignature("add", "m", (), ()))
    expected = "Failed to construct the response: reply instance items is empty"
    assert json.loads(body) == {"error_msg": expected}
