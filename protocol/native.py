"""The native dialect: one msgpack meta frame, and a raw frame for each large tensor.

Request meta  `{"instances": [{input name: value, …}, …]}`
Reply meta    `{"instances": [{output name: value, …} | nil, …], "errors": [nil | [code, text], …]}`
Failure meta  `{"reason": name, "message": text}`, in a reply whose head has a status other than OK

A value is a msgpack str (text), bin (bytes), bool, int (int64, or uint64 above its range), float
(float64), or a tensor `[dtype, shape, content]`, whose content is bin, or the number of the body
frame that holds it (the meta frame is number 0). Byte rules: docs/PROTOCOL.md §4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from protocol import limits, serving_texts, status
from protocol.errors import RemoteProtocolError, RequestError
from protocol.tensor import fail_illegal_text, printable
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

Buffer = bytes | memoryview


def unpack_meta(frame: Buffer) -> dict[str, Any]:
    """Decode a msgpack map. Raises RemoteProtocolError; never builds anything but plain values."""
    try:
        meta = msgpack.unpackb(frame, raw=False, strict_map_key=True, use_list=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise RemoteProtocolError(f"meta frame is not msgpack: {error}") from None
    if not isinstance(meta, dict):
        raise RemoteProtocolError(f"meta frame is a {type(meta).__name__}, not a map")
    return meta


def pack_meta(meta: Mapping[str, Any]) -> bytes:
    """Encode a msgpack map of plain values."""
    packed: bytes = msgpack.packb(meta, use_bin_type=True)
    return packed


# ---------------------------------------------------------------- values


def encode_value(value: Any, frames: list[Buffer]) -> Any:
    """One value as a msgpack item; a large tensor is appended to `frames` and named by its index.

    value: ndarray, numpy scalar, str, bytes, bool, int, float, StringValue or BytesValue.
    Raises: TypeError for anything else, and for dtypes that the wire does not know.
    """
    if isinstance(value, np.ndarray | np.generic):
        return _encode_tensor(np.asarray(value), frames)
    if isinstance(value, StringValue):
        return value.text
    if isinstance(value, BytesValue):
        return bytes(value.content)
    if isinstance(value, str | bytes | bool | float):
        return value
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise TypeError(f"int {value} is outside of int64 and uint64")
        return value
    raise TypeError(f"a value of {type(value)} cannot be sent")


def _encode_tensor(array: npt.NDArray[Any], frames: list[Buffer]) -> list[Any]:
    name = array.dtype.name
    if name not in DTYPES:
        raise TypeError(f"dtype {array.dtype} is not one of {', '.join(DTYPES)}")
    shape = list(array.shape)
    array = np.ascontiguousarray(array.astype(DTYPES[name], copy=False))
    if array.nbytes < limits.TENSOR_INLINE_BYTES_MAX:
        return [name, shape, array.tobytes()]
    if len(frames) >= limits.BODY_FRAMES_MAX:
        raise TypeError(f"more than body_frames_max {limits.BODY_FRAMES_MAX} large tensors")
    frames.append(array.reshape(-1).view(np.uint8).data)
    return [name, shape, len(frames) - 1]


def decode_value(item: Any, frames: Sequence[Buffer]) -> Value:
    """One msgpack item as a value; tensors are views of their frame, without a copy.

    Raises: RemoteProtocolError naming the rule that is broken.
    """
    if isinstance(item, str):
        return StringValue(item)
    if isinstance(item, bytes):
        return BytesValue(item)
    if isinstance(item, bool):
        return np.asarray(item, np.bool_)
    if isinstance(item, int):
        return np.asarray(item, np.uint64 if item >= 1 << 63 else np.int64)
    if isinstance(item, float):
        return np.asarray(item, np.float64)
    if isinstance(item, list):
        return _decode_tensor(item, frames)
    raise RemoteProtocolError(f"a value cannot be a {type(item).__name__}")


def _decode_tensor(item: list[Any], frames: Sequence[Buffer]) -> npt.NDArray[Any]:
    if len(item) != 3:
        raise RemoteProtocolError(f"a tensor has 3 items (dtype, shape, content), not {len(item)}")
    name, shape, content = item
    dtype = DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise RemoteProtocolError(f"dtype {name!r} is not one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(type(dim) is int and dim >= 0 for dim in shape):
        raise RemoteProtocolError(f"shape {shape!r} is not a list of integers >= 0")
    if len(shape) > limits.TENSOR_DIMENSIONS_MAX:
        raise RemoteProtocolError(
            f"{len(shape)} dimensions exceed tensor_dimensions_max {limits.TENSOR_DIMENSIONS_MAX}"
        )
    if type(content) is int:
        if not 1 <= content < len(frames):
            raise RemoteProtocolError(f"tensor frame {content} is not one of 1..{len(frames) - 1}")
        content = frames[content]
    elif not isinstance(content, bytes):
        raise RemoteProtocolError("tensor content is neither bin nor a frame number")
    bytes_expected = math.prod(shape) * dtype.itemsize
    if len(content) != bytes_expected:
        raise RemoteProtocolError(
            f"tensor {name}{shape} needs {bytes_expected} B, its content has {len(content)} B"
        )
    try:
        return np.frombuffer(content, dtype).reshape(shape)
    except ValueError:
        # No elements, but the other dimensions overflow what numpy can address.
        raise RemoteProtocolError(f"shape {shape!r} is larger than an array can be") from None


# ---------------------------------------------------------------- requests


def encode_request(instances: Sequence[Mapping[str, Any]]) -> list[Buffer]:
    """Body frames of a request. instances: maps from input name to value.

    Raises: TypeError naming the input whose value cannot be sent.
    """
    frames: list[Buffer] = [b""]
    encoded = []
    for instance in instances:
        items = {}
        for name, value in instance.items():
            try:
                items[name] = encode_value(value, frames)
            except TypeError as error:
                raise TypeError(f"input {name!r}: {error}") from None
        encoded.append(items)
    frames[0] = pack_meta({"instances": encoded})
    return frames


def decode_request(frames: Sequence[Buffer], method: MethodSignature) -> list[Instance]:
    """The instances of a request, each in the order of the method's inputs.

    Raises: RequestError (malformed, invalid_inputs); the first failure rejects the whole request.
    """
    try:
        instances = unpack_meta(frames[0] if frames else b"").get("instances")
        if not isinstance(instances, list):
            raise RemoteProtocolError("key 'instances' is not a list")
        if not all(isinstance(items, dict) for items in instances):
            raise RemoteProtocolError("an instance is not a map")
    except RemoteProtocolError as error:
        raise RequestError("malformed", str(error)) from None
    if not instances:
        raise RequestError(
            "invalid_inputs", serving_texts.no_instances(method.servable, method.name)
        )
    return [_decode_instance(items, frames, method) for items in instances]


def _decode_instance(
    items: dict[str, Any], frames: Sequence[Buffer], method: MethodSignature
) -> Instance:
    values: list[Value] = []
    for name in method.inputs:
        if name not in items:
            raise RequestError(
                "invalid_inputs",
                serving_texts.input_not_found(name, method.servable, method.name),
            )
        try:
            values.append(decode_value(items[name], frames))
        except RemoteProtocolError as error:
            raise RequestError(
                "invalid_inputs", serving_texts.input_check_failed(name, str(error))
            ) from None
    return tuple(values)


# ---------------------------------------------------------------- replies


def encode_reply(
    spec: RequestSpec,  # noqa: ARG001  other dialects echo it
    method: MethodSignature,
    results: Sequence[Result],
) -> list[Buffer]:
    """Body frames of a reply, one entry per instance. Raises TypeError as `encode_value`.

    An instance with a text that has no UTF-8 form (a lone surrogate) is answered as failed.
    """
    try:
        return _encode_results(method, results)
    except UnicodeEncodeError:
        return _encode_results(method, fail_illegal_text(method, results))


def _encode_results(method: MethodSignature, results: Sequence[Result]) -> list[Buffer]:
    frames: list[Buffer] = [b""]
    instances: list[dict[str, Any] | None] = []
    errors: list[list[Any] | None] = []
    for result in results:
        if isinstance(result, Failure):
            instances.append(None)
            errors.append([result.code, printable(result.message)])
        else:
            named = zip(method.outputs, result, strict=True)
            instances.append({name: encode_value(value, frames) for name, value in named})
            errors.append(None)
    meta: dict[str, Any] = {"instances": instances}
    if any(errors):
        meta["errors"] = errors
    frames[0] = pack_meta(meta)
    return frames


def decode_reply(frames: Sequence[Buffer]) -> list[dict[str, Value] | Failure]:
    """The results of a reply whose head has status OK, in the order of the instances.

    Raises: RemoteProtocolError.
    """
    meta = unpack_meta(frames[0] if frames else b"")
    instances, errors = meta.get("instances"), meta.get("errors")
    if not isinstance(instances, list):
        raise RemoteProtocolError("key 'instances' is not a list")
    results: list[dict[str, Value] | Failure] = []
    for index, items in enumerate(instances):
        if isinstance(items, dict):
            results.append({name: decode_value(item, frames) for name, item in items.items()})
            continue
        try:
            code, message = errors[index]  # type: ignore[index]
            results.append(Failure(int(code), str(message)))
        except (TypeError, IndexError, KeyError, ValueError):
            raise RemoteProtocolError(f"instance {index} has neither values nor an error") from None
    return results


def encode_failure(
    spec: RequestSpec | None,  # noqa: ARG001  other dialects echo it
    reason: str,
    message: str,
) -> list[Buffer]:
    """Body frames of a reply that fails as a whole; its head has `REASONS[reason].grpc`."""
    assert reason in status.REASONS, reason
    return [pack_meta({"reason": reason, "message": printable(message)})]


def decode_failure(frames: Sequence[Buffer]) -> RequestError:
    """The error of a failed reply; unknown reasons (a newer broker) count as `failed`."""
    meta = unpack_meta(frames[0] if frames else b"")
    reason, message = str(meta.get("reason")), str(meta.get("message"))
    return RequestError(reason if reason in status.REASONS else "failed", message)
