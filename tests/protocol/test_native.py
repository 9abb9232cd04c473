"""The native dialect: round trips, and every malformed form."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import numpy as np
import pytest

from protocol import limits, native
from protocol.errors import RemoteProtocolError, RequestError
from protocol.values import (
    DTYPES,
    BytesValue,
    Failure,
    MethodSignature,
    RequestSpec,
    StringValue,
)

SPEC = RequestSpec("add", "m", 0)
METHOD = MethodSignature("add", "m", ("x",), ("y",))


def arrive(value: Any) -> Any:
    """A value as the worker sees it after a trip over the wire."""
    [(decoded,)] = native.decode_request(native.encode_request([{"x": value}]), METHOD)
    return decoded


def body(meta: Any, *frames: bytes) -> list[Any]:
    return [msgpack.packb(meta), *frames]


def refusal(frames: list[Any]) -> tuple[str, str]:
    with pytest.raises(RequestError) as caught:
        native.decode_request(frames, METHOD)
    return caught.value.reason, caught.value.message


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (0, 3), (70_000,)])
def test_every_dtype_and_shape_arrives(name: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) % 100).reshape(shape).astype(name)
    value = arrive(array)
    assert (value.dtype, value.shape) == (array.dtype, shape)
    assert value.tobytes() == array.tobytes()


def test_large_tensors_travel_as_frames_of_their_own_without_a_copy() -> None:
    edge = limits.TENSOR_INLINE_BYTES_MAX
    large, small = np.zeros(edge, np.uint8), np.zeros(edge - 1, np.uint8)
    frames = native.encode_request([{"a": large, "b": small}, {"a": large}])
    assert [len(frame) for frame in frames[1:]] == [edge, edge]
    large[0] = 7
    assert frames[1][0] == 7
    [(value,), _] = native.decode_request(frames, METHOD._replace(inputs=("a",)))
    large[0] = 8
    assert value[0] == 8


def test_arrays_of_any_order_arrive_in_c_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    for odd in (array.T, array[:, ::2], array.astype(">i4")):
        value = arrive(odd)
        assert value.tolist() == odd.tolist()
        assert value.dtype == np.int32


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (True, "bool", True),
        (-1, "int64", -1),
        (2**64 - 1, "uint64", 2**64 - 1),
        (0.5, "float64", 0.5),
        (np.float16(0.5), "float16", 0.5),
    ],
)
def test_python_scalars_arrive_as_arrays_without_dims(
    value: Any, dtype: str, expected: Any
) -> None:
    array = arrive(value)
    assert (array.dtype, array.shape, array.item()) == (np.dtype(dtype), (), expected)


def test_text_and_bytes_arrive() -> None:
    assert arrive("hé") == StringValue("hé")
    assert arrive(StringValue("a", (1,))) == StringValue("a")
    for content in (b"\xff", bytearray(b"\xff"), memoryview(b"\xff"), BytesValue(b"\xff")):
        assert arrive(content) == BytesValue(b"\xff")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "input 'x': a value of <class 'NoneType'> cannot be sent"),
        ([1], "input 'x': a value of <class 'list'> cannot be sent"),
        (2**64, f"input 'x': int {2**64} is outside of int64 and uint64"),
        (-(2**63) - 1, f"input 'x': int {-(2**63) - 1} is outside of int64 and uint64"),
    ],
)
def test_what_cannot_be_sent_is_named(value: Any, text: str) -> None:
    with pytest.raises(TypeError) as caught:
        native.encode_request([{"x": value}])
    assert str(caught.value) == text


def test_a_dtype_that_the_wire_does_not_know_cannot_be_sent() -> None:
    with pytest.raises(TypeError, match="input 'x': dtype complex128 is not one of bool, int8"):
        native.encode_request([{"x": np.zeros(1, complex)}])


def test_more_large_tensors_than_frames_cannot_be_sent() -> None:
    large = np.zeros(limits.TENSOR_INLINE_BYTES_MAX, np.uint8)
    instances = [{"x": large}] * limits.BODY_FRAMES_MAX
    with pytest.raises(TypeError, match="more than body_frames_max 255 large tensors"):
        native.encode_request(instances)
    assert len(native.encode_request(instances[1:])) == limits.BODY_FRAMES_MAX


# ---------------------------------------------------------------- malformed requests


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (body([]), "meta frame is a list, not a map"),
        (body({}), "key 'instances' is not a list"),
        (body({"instances": {}}), "key 'instances' is not a list"),
        (body({"instances": [{}, 1]}), "an instance is not a map"),
    ],
)
def test_a_body_without_instances_is_malformed(frames: list[Any], text: str) -> None:
    assert refusal(frames) == ("malformed", text)


@pytest.mark.parametrize("frame", [b"\xc1", b"\x81", b"\x81\x01\x02", b"\x80\x80", b"\xa1\xff"])
def test_a_meta_frame_that_is_not_a_map_of_text_is_malformed(frame: bytes) -> None:
    assert refusal([frame])[0] == "malformed"
    assert refusal([])[0] == "malformed"


def test_zero_instances_are_refused() -> None:
    expected = "Instances count of request cannot be 0, servable: add, method: m"
    assert refusal(body({"instances": []})) == ("invalid_inputs", expected)


def test_values_that_are_no_inputs_are_ignored() -> None:
    meta = native.pack_meta({"instances": [{"x": 1, "other": None}]})
    ((x,),) = native.decode_request([meta], METHOD)
    assert x == 1


def test_a_missing_input_is_named() -> None:
    expected = "Cannot find input x in instance input , servable add, method m"
    assert refusal(body({"instances": [{"y": 1}]})) == ("invalid_inputs", expected)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (None, "a value cannot be a NoneType"),
        ({}, "a value cannot be a dict"),
        ([], "a tensor has 3 items (dtype, shape, content), not 0"),
        (["int8", []], "a tensor has 3 items (dtype, shape, content), not 2"),
        (["int4", [], b""], f"dtype 'int4' is not one of {', '.join(DTYPES)}"),
        ([8, [], b""], f"dtype 8 is not one of {', '.join(DTYPES)}"),
        (["int8", 1, b"a"], "shape 1 is not a list of integers >= 0"),
        (["int8", [-1], b"a"], "shape [-1] is not a list of integers >= 0"),
        (["int8", [True], b"a"], "shape [True] is not a list of integers >= 0"),
        (["int8", [1.0], b"a"], "shape [1.0] is not a list of integers >= 0"),
        (["int8", [1] * 33, b"a"], "33 dimensions exceed tensor_dimensions_max 32"),
        (["int8", [1], "a"], "tensor content is neither bin nor a frame number"),
        (["int8", [1], True], "tensor content is neither bin nor a frame number"),
        (["int8", [1], 0], "tensor frame 0 is not one of 1..1"),
        (["int8", [1], 2], "tensor frame 2 is not one of 1..1"),
        (["int8", [1], -1], "tensor frame -1 is not one of 1..1"),
        (["int16", [2], b"abc"], "tensor int16[2] needs 4 B, its content has 3 B"),
        (["int8", [5], 1], "tensor int8[5] needs 5 B, its content has 4 B"),
        (["int8", [2**62, 4, 0], b""], f"shape {[2**62, 4, 0]} is larger than an array can be"),
        (["int8", [], b""], "tensor int8[] needs 1 B, its content has 0 B"),
    ],
)
def test_a_malformed_value_is_refused(item: Any, text: str) -> None:
    frames = body({"instances": [{"x": item}]}, b"1234")
    expected = f"Instances input x check failed, detail: {text}"
    assert refusal(frames) == ("invalid_inputs", expected)


@pytest.mark.shows("F15")
def test_mutated_bodies_only_ever_raise_request_errors() -> None:
    rng = random.Random(6)
    [seed] = native.encode_request([{"x": np.ones((2, 2))}, {"x": "a"}, {"x": 1}])
    for _ in range(3000):
        frame = bytearray(seed)
        for _ in range(rng.randrange(1, 4)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        assert outcome(bytes(frame)) in ("ok", "malformed", "invalid_inputs")


def outcome(frame: bytes) -> str:
    try:
        native.decode_request([frame], METHOD)
    except RequestError as error:
        return error.reason
    return "ok"


# ---------------------------------------------------------------- replies


def test_results_and_failures_arrive_in_their_order() -> None:
    large = np.arange(20_000)
    results = [(large,), Failure(3, "böse"), (StringValue("ok"),)]
    first, second, third = native.decode_reply(native.encode_reply(SPEC, METHOD, results))
    assert isinstance(first, dict)
    np.testing.assert_array_equal(first["y"], large)  # type: ignore[arg-type]
    assert second == Failure(3, "böse")
    assert third == {"y": StringValue("ok")}


def test_a_reply_without_failures_has_no_errors_key() -> None:
    [frame] = native.encode_reply(SPEC, METHOD, [(np.int8(1),)])
    assert msgpack.unpackb(frame) == {"instances": [{"y": ["int8", [], b"\1"]}]}


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({}, "key 'instances' is not a list"),
        ({"instances": [None]}, "instance 0 has neither values nor an error"),
        ({"instances": [{}, 1], "errors": [None]}, "instance 1 has neither values nor an error"),
        ({"instances": [None], "errors": [[1]]}, "instance 0 has neither values nor an error"),
        ({"instances": [1], "errors": [["x", ""]]}, "instance 0 has neither values nor an error"),
        ({"instances": [1], "errors": {}}, "instance 0 has neither values nor an error"),
        ({"instances": [{"y": None}]}, "a value cannot be a NoneType"),
    ],
)
def test_a_malformed_reply_breaks_the_protocol(meta: Any, text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        native.decode_reply(body(meta))
    assert str(caught.value) == text


def test_output_text_without_utf8_form_fails_its_instance_only() -> None:
    results = [(StringValue("\udc80"),), (StringValue("ok"),), Failure(3, "a\udc80")]
    assert native.decode_reply(native.encode_reply(SPEC, METHOD, results)) == [
        Failure(1, "Failed to construct the response: reply string y is not valid UTF-8"),
        {"y": StringValue("ok")},
        Failure(3, "a\\udc80"),
    ]
    assert native.decode_failure(native.encode_failure(None, "failed", "\udc80")).message == (
        "\\udc80"
    )


def test_a_failed_reply_arrives_as_its_error() -> None:
    error = native.decode_failure(native.encode_failure(None, "queue_full", "limit 5"))
    assert (error.reason, error.message) == ("queue_full", "limit 5")


def test_an_unknown_reason_counts_as_failed() -> None:
    error = native.decode_failure(body({"reason": "newer", "message": "text"}))
    assert (error.reason, error.message) == ("failed", "text")
