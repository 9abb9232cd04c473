"""The gRPC dialect of MindSpore Serving: protobuf PredictRequest and PredictReply, in one frame.

The gateway only scans a request: who is asked, and how many instances there are. The worker
decodes it. Replies are written straight to the wire, because building them as messages would copy
every tensor three times (0.6 MB: 1000 µs as a message, 10 µs as here); the tests compare each of
them with what protobuf itself reads.

Texts and order of checks are those of MindSpore Serving 2.0.2; `serving_texts` says where they
differ. Message numbers: ms_service.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from google.protobuf.message import DecodeError

from protocol import limits, ms_service_pb2, serving_texts, status
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.tensor import (
    VIEW_BYTES_MIN,
    TensorError,
    array_of,
    check_dims,
    fail_illegal_text,
    printable,
    string_of,
    text_shape,
    whole_failure,
    wire_array,
)
from protocol.values import (
    DTYPES,
    BytesValue,
    Failure,
    Instance,
    MethodSignature,
    RequestSpec,
    Result,
    StringValue,
    Value,
)
from protocol.varint import read_varint, varint

#: DataType numbers on the wire.
MS_STRING = 13
MS_BYTES = 14
DTYPE_OF_NUMBER = dict(enumerate(DTYPES.values(), start=1))
NUMBER_OF_DTYPE = {dtype: number for number, dtype in DTYPE_OF_NUMBER.items()}

#: Characters of servable and method together whose encoded form is kept for the next reply.
KEPT_NAMES_MAX = limits.SERVICE_KEY_BYTES_MAX + limits.METHOD_BYTES_MAX

# Tags of the wire: field number * 8 + wire type (0 varint, 1 eight bytes, 2 counted, 5 four bytes).
_REQUEST_SPEC = 0x0A
_REQUEST_INSTANCES = (0x12, 0x1A)
_CONTENT_DATA = 0x1A
_CONTENT_BYTES_VAL = 0x22


# ---------------------------------------------------------------- the gateway's scan


def scan_request(body: Buffer) -> tuple[RequestSpec, int]:
    """Who is asked, and the number of instances, from the top level of a PredictRequest.

    No instance is decoded: this costs about a µs, and 0.2 µs more for each instance.
    Raises: RequestError (malformed).
    """
    specs: list[bytes] = []
    count = 0
    at, end = 0, len(body)
    try:
        while at < end:
            tag, at = read_varint(body, at)
            kind = tag & 7
            if kind == 2:
                size, at = read_varint(body, at)
                if tag in _REQUEST_INSTANCES:
                    count += 1
                elif tag == _REQUEST_SPEC:
                    specs.append(bytes(body[at : at + size]))
                at += size
            else:
                at = _skip_field(body, tag, kind, at)
        if at > end:
            raise IndexError
        # Parts of a message that comes more than once merge; joined bytes are the merge.
        spec = ms_service_pb2.ServableSpec.FromString(b"".join(specs))
    except IndexError:
        raise _malformed("it ends inside of a field") from None
    except (DecodeError, ValueError) as error:
        raise _malformed(str(error)) from None
    return RequestSpec(spec.name, spec.method_name, spec.version_number), count


def _skip_field(body: Buffer, tag: int, kind: int, at: int) -> int:
    """Where a field of another release ends. Groups ended with proto2 and are refused."""
    if kind == 0:
        return read_varint(body, at)[1]
    if kind == 1:
        return at + 8
    if kind == 5:
        return at + 4
    raise _malformed(f"field {tag >> 3} has wire type {kind}")


def _malformed(rule: str) -> RequestError:
    return RequestError("malformed", f"body is not a PredictRequest: {rule}")


# ---------------------------------------------------------------- requests


def decode_request(frames: Sequence[Buffer], method: MethodSignature) -> list[Instance]:
    """The instances of a request, each in the order of the method's inputs.

    Both generations of clients are understood: instances of field 2, then those of field 3.
    Arrays are writable and own their memory.
    Raises: RequestError (malformed, invalid_inputs); the first failure rejects the whole request.
    """
    try:
        request = ms_service_pb2.PredictRequest.FromString(bytes(frames[0]) if frames else b"")
    except DecodeError as error:
        raise _malformed(str(error)) from None
    instances = [_decode_instance(instance, method) for instance in request.instances]
    if request.instances_before_1_3:
        instances += [_decode_instance(item, method) for item in request.instances_before_1_3]
    if not instances:
        raise RequestError(
            "invalid_inputs", serving_texts.no_instances(method.servable, method.name)
        )
    return instances


def _decode_instance(instance: ms_service_pb2.Instance, method: MethodSignature) -> Instance:
    items = instance.items
    values: list[Value] = []
    for name in method.inputs:
        tensor = items.get(name)
        if tensor is None:
            raise RequestError(
                "invalid_inputs",
                serving_texts.input_not_found(name, method.servable, method.name),
            )
        try:
            values.append(_decode_tensor(tensor))
        except TensorError as error:
            raise RequestError(
                "invalid_inputs", serving_texts.input_check_failed(name, str(error))
            ) from None
    if instance.output_buffers:
        raise RequestError(
            "invalid_inputs", serving_texts.output_buffers_refused(method.servable, method.name)
        )
    return tuple(values)


def _decode_tensor(tensor: ms_service_pb2.Tensor) -> Value:
    if tensor.HasField("shm_data"):
        raise TensorError(serving_texts.tensor_shared_memory_refused())
    number = tensor.dtype
    dims = tuple(tensor.shape.dims)
    dtype = DTYPE_OF_NUMBER.get(number)
    if dtype is not None:
        return array_of(tensor.data, dtype, dims)
    if number != MS_STRING and number != MS_BYTES:
        if dims:
            check_dims(dims)
        raise TensorError(serving_texts.tensor_dtype_invalid())
    if len(tensor.bytes_val) != 1:
        raise TensorError(serving_texts.text_count_invalid())
    content = tensor.bytes_val[0]
    if number == MS_STRING:
        return string_of(content, dims)
    return BytesValue(content, text_shape(dims))


# ---------------------------------------------------------------- replies


def encode_reply(
    spec: RequestSpec, method: MethodSignature, results: Sequence[Result]
) -> list[Buffer]:
    """One PredictReply with the results in the order of the instances.

    Instances that failed keep an empty place, and `error_msg` then has one entry per instance;
    if all of them failed with the same code and text, it is one error and no instance.
    Raises: TypeError for an array whose dtype the wire does not know.
    """
    assert results, spec
    try:
        return [_encode_results(spec, method, results)]
    except UnicodeEncodeError:
        return [_encode_results(spec, method, fail_illegal_text(method, results))]


def _encode_results(spec: RequestSpec, method: MethodSignature, results: Sequence[Result]) -> bytes:
    whole = whole_failure(results)
    if whole is not None:
        return _spec_field(spec) + _error_field(whole.code, whole.message)
    parts: list[Buffer] = [_spec_field(spec)]
    is_mixed = False
    for result in results:
        if isinstance(result, Failure):
            is_mixed = True
            parts.append(b"\x1a\x00")
            continue
        size_at = len(parts)
        parts.append(b"")
        size = 0
        for name, value in zip(method.outputs, result, strict=True):
            head, content = _encode_item(name, value)
            parts.append(head)
            parts.append(content)
            size += len(head) + memoryview(content).nbytes
        parts[size_at] = b"\x1a" + varint(size)
    if is_mixed:
        for result in results:
            parts.append(_error_field(*result) if isinstance(result, Failure) else b'"\x00')
    return b"".join(parts)


def _encode_item(name: str, value: Value) -> tuple[bytes, Buffer]:
    """One output as a map entry: everything up to its content, and the content."""
    if isinstance(value, StringValue):
        content = value.text.encode()
        return _item_head(name, MS_STRING, value.shape, _CONTENT_BYTES_VAL, len(content)), content
    if isinstance(value, BytesValue):
        content = bytes(value.content)
        return _item_head(name, MS_BYTES, value.shape, _CONTENT_BYTES_VAL, len(content)), content
    array = np.asarray(value)
    number = NUMBER_OF_DTYPE.get(array.dtype)
    if number is None or not array.flags.c_contiguous:
        array = wire_array(array)
        number = NUMBER_OF_DTYPE[array.dtype]
    head = _item_head(name, number, array.shape, _CONTENT_DATA, array.nbytes)
    return head, array.data if array.nbytes >= VIEW_BYTES_MIN else array.tobytes()


@lru_cache(maxsize=4096)
def _item_head(name: str, dtype: int, dims: tuple[int, ...], tag: int, size: int) -> bytes:
    """A map entry up to its content of `size` bytes; the same for each reply of the same shape."""
    packed = b"".join([varint(dim) for dim in dims])
    shape = _counted(0x0A, _counted(0x0A, packed)) if packed else b""
    tensor = shape + bytes((0x10, dtype, tag)) + varint(size)
    entry = _counted(0x0A, name.encode()) + b"\x12" + varint(len(tensor) + size) + tensor
    return b"\x0a" + varint(len(entry) + size) + entry


def encode_failure(spec: RequestSpec | None, reason: str, message: str) -> list[Buffer]:
    """A PredictReply of a request that failed as a whole: one error, no instances.

    spec: what was asked for, None if the request could not be read.
    """
    head = b"" if spec is None else _spec_field(spec)
    return [head + _error_field(status.REASONS[reason].mindspore, message)]


def _spec_field(spec: RequestSpec) -> bytes:
    if len(spec.servable) + len(spec.method) > KEPT_NAMES_MAX:
        return _encode_spec(spec)  # nobody's name: it is refused, and its megabytes are not kept
    return _kept_spec(spec)


@lru_cache(maxsize=256)
def _kept_spec(spec: RequestSpec) -> bytes:
    return _encode_spec(spec)


def _encode_spec(spec: RequestSpec) -> bytes:
    message = ms_service_pb2.ServableSpec(
        name=spec.servable, method_name=spec.method, version_number=spec.version
    )
    return _counted(0x0A, message.SerializeToString())


def _error_field(code: int, message: str) -> bytes:
    text = printable(message or serving_texts.PREDICT_FAILED).encode()
    return _counted(0x22, b"\x08" + varint(code) + _counted(0x12, text))


def _counted(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + varint(len(content)) + content
