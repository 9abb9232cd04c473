"""The requests of the workloads in each dialect, and the check of an answer by its value. Pure.

W1, W2 and W4 send two float32[16] and want their sum; W3 sends one float32 tensor of 16 MiB and
wants it back.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol import head as heads
from protocol import ms_service_pb2 as pb
from protocol import native

Array = npt.NDArray[Any]

X1 = np.arange(16, dtype=np.float32)
X2 = np.ones(16, np.float32)
SUM = X1 + X2

#: float32 values of 16 MiB.
LARGE_VALUES = 4 * 1024 * 1024
LARGE_BYTES = LARGE_VALUES * 4

INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"
PREDICT_PATH = "/mindspore.serving.proto.MSService/Predict"
MS_FLOAT32 = 11
#: Of a request on the bus; a backlog of W7 waits until it is taken back.
BUS_BUDGET_MS = 600_000


def large() -> Array:
    """The tensor of W3; no two neighbours of it are equal."""
    return np.arange(LARGE_VALUES, dtype=np.float32)


# ---------------------------------------------------------------- protobuf, as it lies on the wire


def varint(number: int) -> bytes:
    """A whole number as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def read_fields(message: bytes) -> list[tuple[int, bytes | int]]:
    """Number and content of each field at the top level. Raises ValueError on other wire types."""
    fields: list[tuple[int, bytes | int]] = []
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        content: bytes | int
        content, at = _read_varint(message, at)
        if wire_type == 2:
            size = int(content)
            content, at = message[at : at + size], at + size
        elif wire_type != 0:
            raise ValueError(f"field {number} has wire type {wire_type}")
        fields.append((number, content))
    return fields


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


# ---------------------------------------------------------------- Open Inference Protocol


def oip_grpc(model: str, tensors: dict[str, Array], has_batch: bool = False) -> bytes:
    """A ModelInferRequest with raw contents. has_batch: else a batch dimension of 1 is added."""
    parts = [field(1, model.encode())]
    for name, array in tensors.items():
        shape = b"".join(map(varint, _shape(array, has_batch)))
        parts.append(field(5, field(1, name.encode()) + field(2, b"FP32") + field(3, shape)))
    parts += [field(7, array.tobytes()) for array in tensors.values()]
    return b"".join(parts)


def _shape(array: Array, has_batch: bool) -> tuple[int, ...]:
    return array.shape if has_batch else (1, *array.shape)


def oip_json(tensors: dict[str, Array]) -> bytes:
    """An inference request as JSON."""
    inputs = [
        {
            "name": name,
            "shape": [1, *array.shape],
            "datatype": "FP32",
            "data": array.tolist(),
        }
        for name, array in tensors.items()
    ]
    return json.dumps({"inputs": inputs}).encode()


def oip_binary(
    tensors: dict[str, Array], output: str, has_batch: bool = False
) -> tuple[bytes, int]:
    """An inference request with binary tensor data, and the length of its JSON part."""
    inputs = [
        {
            "name": name,
            "shape": list(_shape(array, has_batch)),
            "datatype": "FP32",
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in tensors.items()
    ]
    outputs = [{"name": output, "parameters": {"binary_data": True}}]
    text = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    return text + b"".join(array.tobytes() for array in tensors.values()), len(text)


def grpc_frame(message: bytes) -> bytes:
    """A message as a gRPC call carries it: uncompressed, its length, itself."""
    return b"\0" + struct.pack(">I", len(message)) + message


# ---------------------------------------------------------------- MindSpore Serving and the bus


def ms_grpc(servable: str, method: str, tensors: dict[str, Array]) -> bytes:
    """A PredictRequest of one instance."""
    return ms_grpc_instances(servable, method, [tensors])


def ms_grpc_instances(servable: str, method: str, instances: list[dict[str, Array]]) -> bytes:
    """A PredictRequest."""
    request = pb.PredictRequest()
    request.servable_spec.name, request.servable_spec.method_name = servable, method
    for instance in instances:
        items = request.instances.add().items
        for name, array in instance.items():
            _fill(items[name], array)
    return bytes(request.SerializeToString())


def ms_reply(y: Array) -> bytes:
    """The PredictReply of one instance with the output `y`."""
    reply = pb.PredictReply()
    _fill(reply.instances.add().items["y"], y)
    return bytes(reply.SerializeToString())


def _fill(item: pb.Tensor, array: Array) -> None:
    item.shape.dims.extend(array.shape)
    item.dtype = MS_FLOAT32
    item.data = array.tobytes()


def bus_parts(servable: str, method: str, tensors: dict[str, Array]) -> list[bytes]:
    """A request of one instance as head and body frames; the request id is still 0."""
    return bus_parts_of(servable, method, [tensors])


def bus_parts_of(servable: str, method: str, instances: list[dict[str, Array]]) -> list[bytes]:
    """A request as head and body frames; the request id is still 0."""
    frames = [bytes(frame) for frame in native.encode_request(instances)]
    is_large = len(frames) > 1
    head = heads.Head(
        heads.REQUEST,
        flags=heads.FLAG_COALESCE | (heads.FLAG_BODY_LARGE if is_large else 0),
        budget_ms=BUS_BUDGET_MS,
        instance_count=len(instances),
        body_frames=len(frames),
        service=f"{servable}/0".encode(),
        method=method.encode(),
    )
    return [heads.pack(head), *frames]


# ---------------------------------------------------------------- answers

Check = Callable[[bytes], None]


def check_oip_grpc(expected: Array) -> Check:
    """That a ModelInferResponse holds the expected tensor, raw or as fp32 contents."""

    def check(message: bytes) -> None:
        fields = read_fields(message)
        raw = [content for number, content in fields if number == 6]
        if not raw:
            (output,) = (content for number, content in fields if number == 5)
            assert isinstance(output, bytes)
            (contents,) = (content for number, content in read_fields(output) if number == 5)
            assert isinstance(contents, bytes)
            raw = [content for number, content in read_fields(contents) if number == 6]
        _same(np.frombuffer(raw[0], np.float32), expected)  # type: ignore[call-overload]

    return check


def check_ms_grpc(expected: Array) -> Check:
    """That a PredictReply holds one instance with the expected `y`."""

    def check(message: bytes) -> None:
        reply = pb.PredictReply.FromString(message)
        assert not reply.error_msg, reply.error_msg
        (instance,) = reply.instances
        _same(np.frombuffer(instance.items["y"].data, np.float32), expected)

    return check


def check_json(expected: Array) -> Check:
    """That a JSON answer holds the expected values: of an Open Inference output, or `y`."""

    def check(text: bytes) -> None:
        answer = json.loads(text)
        values = answer["outputs"][0]["data"] if "outputs" in answer else answer["y"]
        _same(np.array(values, np.float32), expected)

    return check


def check_bus(expected: Array) -> Check:
    """That a native reply of one meta frame holds one instance with the expected `y`."""

    def check(meta: bytes) -> None:
        (instance,) = native.decode_reply([meta])
        assert isinstance(instance, dict), instance
        y = instance["y"]
        assert isinstance(y, np.ndarray), y
        _same(y, expected)

    return check


def check_tail(expected: Array) -> Check:
    """That an answer ends with the bytes of the expected tensor, as binary answers do."""

    def check(content: bytes) -> None:
        _same(np.frombuffer(content[-expected.nbytes :], np.float32), expected)

    return check


def _same(found: Array, expected: Array) -> None:
    assert found.size == expected.size, (found.size, expected.size)
    assert np.array_equal(found.reshape(-1), expected.reshape(-1)), found[:8]
