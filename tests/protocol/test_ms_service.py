"""Requests of the gRPC dialect: scan, values, and every text about a wrong one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from protocol import ms_service, ms_service_pb2
from protocol.errors import RequestError
from protocol.tensor import TensorError, array_of
from protocol.values import DTYPES, BytesValue, MethodSignature, RequestSpec, StringValue
from tests.protocol.ms_service_helpers import of_array, request, tensor

SPEC = RequestSpec("add", "m", 0)
METHOD = MethodSignature("add", "m", ("x",), ("y",))
INT32 = 6


def decode(message: Any, method: MethodSignature = METHOD) -> list[Any]:
    return ms_service.decode_request([message.SerializeToString()], method)


def refusal(message: Any, method: MethodSignature = METHOD) -> str:
    with pytest.raises(RequestError) as caught:
        decode(message, method)
    assert caught.value.reason == "invalid_inputs"
    return caught.value.message


# ---------------------------------------------------------------- scan


def test_scan_reads_who_is_asked_and_counts_both_generations_of_instances() -> None:
    message = request({"x": of_array(np.arange(500))}, {})
    message.servable_spec.version_number = 7
    message.instances_before_1_3.add()
    body = message.SerializeToString()
    assert ms_service.scan_request(body) == (RequestSpec("add", "m", 7), 3)
    assert ms_service.scan_request(memoryview(body)) == (RequestSpec("add", "m", 7), 3)


def test_scan_of_an_empty_body_asks_for_nobody() -> None:
    assert ms_service.scan_request(b"") == (RequestSpec("", "", 0), 0)


def test_scan_merges_a_spec_that_comes_in_parts_and_skips_unknown_fields() -> None:
    first = ms_service_pb2.PredictRequest()
    first.servable_spec.name = "add"
    second = ms_service_pb2.PredictRequest()
    second.servable_spec.method_name = "m"
    unknown = b"\x20\x96\x01" + b"\x29" + bytes(8) + b"\x35" + bytes(4) + b"\x3a\x02hi"
    body = first.SerializeToString() + unknown + second.SerializeToString() + b"\x12\x00"
    assert ms_service.scan_request(body) == (RequestSpec("add", "m", 0), 1)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"\x12", "it ends inside of a field"),
        (b"\x12\x05abc", "it ends inside of a field"),
        (b"\x29abc", "it ends inside of a field"),
        (b"\x35abc", "it ends inside of a field"),
        (b"\x13", "field 2 has wire type 3"),
        (b"\xff" * 11, "a number is longer than 10 B"),
    ],
)
def test_scan_refuses_a_body_that_is_not_protobuf(body: bytes, rule: str) -> None:
    with pytest.raises(RequestError) as caught:
        ms_service.scan_request(body)
    assert caught.value.reason == "malformed"
    assert caught.value.message == f"body is not a PredictRequest: {rule}"


def test_scan_refuses_a_name_that_is_not_utf8() -> None:
    with pytest.raises(RequestError) as caught:
        ms_service.scan_request(b"\x0a\x03\x0a\x01\xff")
    assert caught.value.reason == "malformed"


def test_scan_and_decode_only_ever_raise_request_errors() -> None:
    rng = random.Random(1)
    seed = request(
        {"x": of_array(np.ones((2, 2), np.float32))}, {"x": tensor(13, bytes_val=[b"a"])}
    )
    valid = seed.SerializeToString()
    for _ in range(3000):
        body = bytearray(valid if rng.random() < 0.8 else rng.randbytes(rng.randrange(60)))
        for _ in range(rng.randrange(4)):
            if body:
                body[rng.randrange(len(body))] = rng.randrange(256)
        end = rng.randrange(len(body) + 1) if rng.random() < 0.3 else len(body)
        assert outcome_of_scan(bytes(body[:end])) in ("ok", "malformed")
        assert outcome_of_decode(bytes(body[:end])) in ("ok", "malformed", "invalid_inputs")


def outcome_of_scan(body: bytes) -> str:
    try:
        ms_service.scan_request(body)
    except RequestError as error:
        return error.reason
    return "ok"


def outcome_of_decode(body: bytes) -> str:
    try:
        ms_service.decode_request([body], METHOD)
    except RequestError as error:
        return error.reason
    return "ok"


def test_scan_counts_what_protobuf_reads() -> None:
    rng = random.Random(2)
    for _ in range(200):
        message = request(*({} for _ in range(rng.randrange(5))))
        for _ in range(rng.randrange(3)):
            message.instances_before_1_3.add().items["x"].data = rng.randbytes(200)
        count = len(message.instances) + len(message.instances_before_1_3)
        assert ms_service.scan_request(message.SerializeToString()) == (SPEC, count)


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (3, 0)])
def test_every_dtype_and_shape_arrives_as_a_writable_array(
    name: str, shape: tuple[int, ...]
) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(name)
    [(value,)] = decode(request({"x": of_array(array)}))
    assert (value.dtype, value.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(value, array)
    assert value.flags.writeable
    assert value.flags.c_contiguous
    assert value.flags.aligned


def test_numbers_are_little_endian() -> None:
    [(value,)] = decode(request({"x": tensor(INT32, (2,), data=b"\1\0\0\0\0\1\0\0")}))
    assert value.tolist() == [1, 256]


def test_a_bool_byte_other_than_zero_is_true() -> None:
    [(value,)] = decode(request({"x": tensor(1, (3,), data=b"\0\1\7")}))
    assert value.tolist() == [False, True, True]
    assert value.tobytes() == b"\0\1\1"


@pytest.mark.parametrize("dims", [(), (1,)])
def test_text_and_bytes_keep_their_shape(dims: tuple[int, ...]) -> None:
    method = MethodSignature("add", "m", ("s", "b"), ())
    message = request(
        {"s": tensor(13, dims, bytes_val=["hé".encode()]), "b": tensor(14, dims, bytes_val=[b""])}
    )
    assert decode(message, method) == [(StringValue("hé", dims), BytesValue(b"", dims))]


def test_inputs_come_in_the_order_of_the_method_and_others_are_ignored() -> None:
    method = MethodSignature("add", "m", ("x2", "x1"), ())
    one, two = (tensor(INT32, data=bytes([n, 0, 0, 0])) for n in (1, 2))
    [(x2, x1)] = decode(request({"x1": one, "x2": two, "x3": tensor(99)}), method)
    assert (x1, x2) == (1, 2)


def test_instances_of_old_clients_follow_those_of_new_ones() -> None:
    message = request({"x": of_array(np.int32(1))})
    old = request(
        {"x": of_array(np.int32(2))}, {"x": of_array(np.int32(3))}, field="instances_before_1_3"
    )
    assert [int(x) for (x,) in decode(old)] == [2, 3]
    message.MergeFrom(old)
    assert [int(x) for (x,) in decode(message)] == [1, 2, 3]


def test_zero_instances_are_refused_at_once() -> None:
    expected = "Instances count of request cannot be 0, servable: add, method: m"
    assert refusal(request()) == expected
    with pytest.raises(RequestError, match=expected):
        ms_service.decode_request([], METHOD)


def test_missing_input_is_named() -> None:
    message = request({"x": of_array(np.int32(1))}, {"z": of_array(np.int32(1))})
    assert refusal(message) == "Cannot find input x in instance input , servable add, method m"


def test_the_first_wrong_input_of_the_first_wrong_instance_is_told() -> None:
    method = MethodSignature("add", "m", ("b", "a"), ())
    good, bad = of_array(np.int32(1)), tensor(INT32, (0, 3))
    wrong_b = "Instances input b check failed, detail: " + SHAPE.format([0, 3])
    missing_a = "Cannot find input a in instance input , servable add, method m"
    assert refusal(request({"a": bad, "b": bad}), method) == wrong_b
    assert refusal(request({"b": bad}), method) == wrong_b
    assert refusal(request({"b": good, "z": bad}), method) == missing_a
    assert refusal(request({"a": good, "b": good}, {"b": good}, {"b": bad}), method) == missing_a


SHAPE = "Tensor check failed: input  shape {} invalid"
TEXT = "Instance tensor check failed: bytes or string type "


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        (tensor(INT32, (-1,)), SHAPE.format([-1])),
        (tensor(INT32, (0, 3)), SHAPE.format([0, 3])),
        (tensor(INT32, (2, 0, 0)), SHAPE.format([2, 0, 0])),
        (tensor(INT32, (1,) * 33, data=bytes(4)), SHAPE.format([1] * 33)),
        (tensor(INT32, (2**62, 2**62, 0)), SHAPE.format([2**62, 2**62, 0])),
        (tensor(1, (2**62, 2**62, 0)), SHAPE.format([2**62, 2**62, 0])),
        (tensor(0, (0, 3)), SHAPE.format([0, 3])),
        (tensor(0), "Tensor check failed: input data type proto::MS_UNKNOWN invalid"),
        (tensor(15, (2,)), "Tensor check failed: input data type proto::MS_UNKNOWN invalid"),
        (tensor(INT32, (2,), data=b"1234567"), "Tensor check failed: input data size 7 invalid"),
        (tensor(INT32), "Tensor check failed: input data size 0 invalid"),
        (tensor(INT32, (0,), data=b"1"), "Tensor check failed: input data size 1 invalid"),
        (tensor(INT32, (2**32, 2**32)), "Tensor check failed: input data size 0 invalid"),
        (tensor(13), TEXT + "shape batch size can only be 1"),
        (tensor(14, (1,), bytes_val=[b"", b""]), TEXT + "shape batch size can only be 1"),
        (tensor(14, (2,)), TEXT + "shape batch size can only be 1"),
        (
            tensor(13, (1, 1), bytes_val=[b"a"]),
            TEXT + "input  shape can only be (1,) or empty, but given shape is [1, 1]",
        ),
        (
            tensor(14, (2,), bytes_val=[b"a"]),
            TEXT + "input  shape can only be (1,) or empty, but given shape is [2]",
        ),
        (
            tensor(13, bytes_val=[b"\xff"]),
            "Instance tensor check failed: string type input is not valid UTF-8",
        ),
    ],
)
def test_a_wrong_tensor_is_refused_with_the_original_text(message: Any, detail: str) -> None:
    expected = f"Instances input x check failed, detail: {detail}"
    assert refusal(request({"x": message})) == expected


def test_shared_memory_of_a_client_is_refused() -> None:
    message = tensor(INT32, (1,))
    message.shm_data.memory_key = "/psm"
    message.shm_data.data_size = 4
    assert refusal(request({"x": message})) == (
        "Instances input x check failed, detail: Tensor check failed: input shared memory is not "
        "supported on a network port"
    )
    message = request({"x": of_array(np.int32(1))})
    message.instances[0].output_buffers["y"].memory_key = "/psm"
    assert refusal(message) == (
        "Output buffers in shared memory are not supported on a network port, "
        "servable add, method m"
    )


def test_a_tensor_is_not_allocated_from_its_claimed_shape() -> None:
    with pytest.raises(TensorError):
        array_of(b"", DTYPES["float64"], (1 << 40,))
