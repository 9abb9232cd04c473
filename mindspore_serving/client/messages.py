"""Python values to `PredictRequest` and `PredictReply` to Python values. Pure.

An instance is a dict of input names to values. What a value becomes:

| value | tensor |
|---|---|
| ndarray, numpy number | its dtype and shape |
| bool, int, float | bool, int64 (uint64 above its range), float64; shape [1] |
| str, bytes | MS_STRING, MS_BYTES; shape [1] |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol import ms_service_pb2 as ms_service

#: What a request carries for one instance, and what a reply gives back.
Instance = Mapping[str, Any]

_DATA_TYPES = {
    np.dtype(name): number
    for name, number in (
        ("bool", ms_service.MS_BOOL),
        ("int8", ms_service.MS_INT8),
        ("uint8", ms_service.MS_UINT8),
        ("int16", ms_service.MS_INT16),
        ("uint16", ms_service.MS_UINT16),
        ("int32", ms_service.MS_INT32),
        ("uint32", ms_service.MS_UINT32),
        ("int64", ms_service.MS_INT64),
        ("uint64", ms_service.MS_UINT64),
        ("float16", ms_service.MS_FLOAT16),
        ("float32", ms_service.MS_FLOAT32),
        ("float64", ms_service.MS_FLOAT64),
    )
}
_DTYPES = {number: dtype.newbyteorder("<") for dtype, number in _DATA_TYPES.items()}


def build_request(
    servable_name: str, method_name: str, version_number: int, instances: object
) -> ms_service.PredictRequest:
    """Pack one dict, or a list or tuple of dicts, into a request.

    Raises: RuntimeError for what no tensor can hold, TypeError for names that are not str.
    """
    request = ms_service.PredictRequest()
    request.servable_spec.name = servable_name
    request.servable_spec.method_name = method_name
    request.servable_spec.version_number = version_number
    for instance in instances if isinstance(instances, list | tuple) else (instances,):
        if not isinstance(instance, dict):
            raise RuntimeError("instance should be a map")
        items = request.instances.add().items
        for name, value in instance.items():
            fill_tensor(items[name], value)
    return request


def fill_tensor(tensor: ms_service.Tensor, value: object) -> None:
    """Write one value into a tensor; RuntimeError for a type or dtype that the wire lacks."""
    if isinstance(value, np.ndarray | np.number):
        _fill_array(tensor, np.asarray(value))
    elif isinstance(value, str):
        _fill_text(tensor, ms_service.MS_STRING, value.encode("utf-8"))
    elif isinstance(value, bool | int | float):
        _fill_array(tensor, np.array((value,)))
    elif isinstance(value, bytes):
        _fill_text(tensor, ms_service.MS_BYTES, value)
    else:
        raise RuntimeError(f"Not support value type {type(value)}")


def read_reply(reply: ms_service.PredictReply) -> list[dict[str, Any]] | dict[str, str]:
    """The instances of a reply in their order, a failed one as `{"error": text}`.

    A request that failed as a whole is one such dict instead of a list.
    Raises: RuntimeError if the count of errors fits no form, KeyError for an unknown dtype.
    """
    instances, errors = reply.instances, reply.error_msg
    if len(errors) == 1 and errors[0].error_code != 0:
        return {"error": _error_text(errors[0])}
    if errors and len(errors) != len(instances):
        raise RuntimeError(
            f"error msg result size {len(errors)} not be 0, 1 or "
            f"length of instances {len(instances)}"
        )
    results: list[dict[str, Any]] = []
    for index, instance in enumerate(instances):
        if errors and errors[index].error_code != 0:
            results.append({"error": _error_text(errors[index])})
        else:
            results.append({name: read_tensor(item) for name, item in instance.items.items()})
    return results


def read_tensor(tensor: ms_service.Tensor) -> Any:
    """One tensor as read-only ndarray (0-d for a scalar), str or bytes; several texts as a list."""
    if tensor.dtype == ms_service.MS_STRING:
        return _single([text.decode("utf-8") for text in tensor.bytes_val])
    if tensor.dtype == ms_service.MS_BYTES:
        return _single(list(tensor.bytes_val))
    array = np.frombuffer(tensor.data, dtype=_DTYPES[tensor.dtype])
    return array.reshape(tuple(tensor.shape.dims))


def _fill_array(tensor: ms_service.Tensor, array: npt.NDArray[Any]) -> None:
    number = _DATA_TYPES.get(array.dtype)
    if number is None:
        raise RuntimeError(f"Unknown data type {array.dtype}")
    tensor.dtype = number
    tensor.shape.dims.extend(array.shape)
    tensor.data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _fill_text(tensor: ms_service.Tensor, dtype: ms_service.DataType, text: bytes) -> None:
    tensor.dtype = dtype
    tensor.shape.dims.append(1)
    tensor.bytes_val.append(text)


def _single(texts: list[Any]) -> Any:
    return texts[0] if len(texts) == 1 else texts


def _error_text(error: ms_service.ErrorMsg) -> str:
    # A server of the original may have cut its text inside of a character.
    return error.error_msg.decode("utf-8", "replace")
