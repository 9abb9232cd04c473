"""The gRPC dialect: what clients send, what they are answered, and every text on the way."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from protocol import ms_service, ms_service_pb2
from protocol.errors import RequestError
from protocol.tensor import TensorError, array_of
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
INT32 = 6


def request(*instances: dict[str, Any], field: str = "instances") -> Any:
    """A PredictRequest; an input is a Tensor, or keyword arguments of one with `dims`."""
    message = ms_service_pb2.PredictRequest()
    message.servable_spec.name = "add"
    message.servable_spec.method_name = "m"
    for items in instances:
        instance = getattr(message, field).add()
        for name, tensor in items.items():
            instance.items[name].CopyFrom(tensor)
    return message


def tensor(dtype: int, dims: tuple[int, ...] = (), **content: Any) -> Any:
    """A Tensor message."""
    message = ms_service_pb2.Tensor(dtype=dtype, **content)
    if dims:
        message.shape.dims.extend(dims)
    return message


def of_array(array: np.ndarray[Any, Any]) -> Any:
    """A Tensor message that holds an array."""
    number = ms_service.NUMBER_OF_DTYPE[array.dtype]
    return tensor(number, array.shape, data=array.tobytes())


def decode(message: Any, method: MethodSignature = METHOD) -> list[Any]:
    return ms_service.decode_request([message.SerializeToString()], method)


def refusal(message: Any, method: MethodSignature = METHOD) -> str:
    with pytest.raises(RequestError) as caught:
        decode(message, method)
    assert caught.value.reason == "invalid_inputs"
    return caught.value.message


def reply(frames: list[Any]) -> Any:
    assert len(frames) == 1
    return ms_service_pb2.PredictReply.FromString(bytes(frames[0]))


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


# ---------------------------------------------------------------- replies


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (3, 0), (64, 130)])
def test_every_dtype_and_shape_is_answered(name: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(name)
    message = reply(ms_service.encode_reply(SPEC, METHOD, [(array,), (array,)]))
    assert len(message.instances) == 2
    assert list(message.error_msg) == []
    for instance in message.instances:
        assert dict(instance.items) == {"y": of_array(array)}


def test_what_protobuf_writes_and_what_we_write_is_the_same_message() -> None:
    method = MethodSignature("add", "m", (), ("one", "größe", "text"))
    big = np.arange(10_000, dtype=np.float16)
    results = [(np.float32(2), big, StringValue("é" * 300)), Failure(3, "boom"), (big, big, big)]
    spec = RequestSpec("add", "m", 2**64 - 1)
    expected = ms_service_pb2.PredictReply()
    expected.servable_spec.name = "add"
    expected.servable_spec.method_name = "m"
    expected.servable_spec.version_number = 2**64 - 1
    items = expected.instances.add().items
    items["one"].CopyFrom(of_array(np.asarray(np.float32(2))))
    items["größe"].CopyFrom(of_array(big))
    items["text"].CopyFrom(tensor(13, bytes_val=[("é" * 300).encode()]))
    expected.instances.add()
    items = expected.instances.add().items
    for name in method.outputs:
        items[name].CopyFrom(of_array(big))
    expected.error_msg.add()
    expected.error_msg.add(error_code=3, error_msg=b"boom")
    expected.error_msg.add()
    assert reply(ms_service.encode_reply(spec, method, results)) == expected


def test_text_and_bytes_outputs_have_no_dims_unless_passed_through() -> None:
    method = MethodSignature("add", "m", (), ("a", "b", "c"))
    instance = (StringValue("é"), BytesValue(memoryview(b"\xff")), StringValue("", (1,)))
    message = reply(ms_service.encode_reply(SPEC, method, [instance]))
    assert dict(message.instances[0].items) == {
        "a": tensor(13, bytes_val=["é".encode()]),
        "b": tensor(14, bytes_val=[b"\xff"]),
        "c": tensor(13, (1,), bytes_val=[b""]),
    }


def test_arrays_of_any_order_are_answered_in_c_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    for odd in (array.T, array[:, ::2], array.astype(">i4"), array.T.astype(">i4")):
        message = reply(ms_service.encode_reply(SPEC, METHOD, [(odd,)]))
        expected = np.ascontiguousarray(odd).astype(np.int32)
        assert message.instances[0].items["y"] == of_array(expected)


def test_a_dtype_that_the_wire_does_not_know_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="complex128"):
        ms_service.encode_reply(SPEC, METHOD, [(np.zeros(1, complex),)])


def test_the_spec_is_echoed_with_the_version_that_was_asked_for() -> None:
    spec = RequestSpec("add", "m", 3)
    for frames in (
        ms_service.encode_reply(spec, METHOD, [(np.int32(1),)]),
        ms_service.encode_reply(spec, METHOD, [Failure(1, "no")]),
        ms_service.encode_failure(spec, "failed", "no"),
    ):
        echoed = reply(frames).servable_spec
        assert (echoed.name, echoed.method_name, echoed.version_number) == spec


def errors(message: Any) -> list[tuple[int, str]]:
    return [(error.error_code, error.error_msg.decode()) for error in message.error_msg]


def test_mixed_results_have_one_error_entry_per_instance() -> None:
    results = [(np.int32(1),), Failure(3, "böse"), (np.int32(2),)]
    message = reply(ms_service.encode_reply(SPEC, METHOD, results))
    assert errors(message) == [(0, ""), (3, "böse"), (0, "")]
    assert [len(instance.items) for instance in message.instances] == [1, 0, 1]


@pytest.mark.parametrize("count", [1, 3])
def test_identical_failures_collapse_to_one(count: int) -> None:
    message = reply(ms_service.encode_reply(SPEC, METHOD, [Failure(3, "boom")] * count))
    assert (errors(message), len(message.instances)) == ([(3, "boom")], 0)


def test_different_failures_stay_apart() -> None:
    for other in (Failure(3, "b"), Failure(1, "a")):
        message = reply(ms_service.encode_reply(SPEC, METHOD, [Failure(3, "a"), other]))
        assert errors(message) == [(3, "a"), (other.code, other.message)]
        assert len(message.instances) == 2


def test_a_whole_failure_carries_the_code_of_its_reason() -> None:
    codes = {"unknown_service": 2, "no_worker": 5, "queue_full": 1, "system_error": 3}
    for reason, code in codes.items():
        message = reply(ms_service.encode_failure(SPEC, reason, "text"))
        assert (errors(message), len(message.instances)) == ([(code, "text")], 0)


def test_a_failure_without_text_says_predict_failed() -> None:
    assert errors(reply(ms_service.encode_failure(None, "failed", ""))) == [(1, "Predict failed")]


def test_a_failure_of_an_unreadable_request_has_no_spec() -> None:
    assert not reply(ms_service.encode_failure(None, "malformed", "x")).HasField("servable_spec")


def test_long_error_texts_are_not_cut() -> None:
    text = "ü" * 1000
    assert errors(reply(ms_service.encode_failure(SPEC, "failed", text))) == [(1, text)]


def test_output_text_without_utf8_form_fails_its_instance_only() -> None:
    bad, good = (StringValue("\udc80"),), (StringValue("ok"),)
    text = "Failed to construct the response: reply string y is not valid UTF-8"
    message = reply(ms_service.encode_reply(SPEC, METHOD, [bad, good]))
    assert errors(message) == [(1, text), (0, "")]
    message = reply(ms_service.encode_reply(SPEC, METHOD, [bad, bad]))
    assert (errors(message), len(message.instances)) == ([(1, text)], 0)


def test_an_error_text_without_utf8_form_is_escaped() -> None:
    assert errors(reply(ms_service.encode_failure(SPEC, "failed", "a\udc80"))) == [(1, "a\\udc80")]
