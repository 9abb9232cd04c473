"""Shorthands for tests of the gRPC dialect: messages as protobuf itself builds them."""

from __future__ import annotations

from typing import Any

import numpy as np

from protocol import ms_service, ms_service_pb2


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


def reply(frames: list[Any]) -> Any:
    assert len(frames) == 1
    return ms_service_pb2.PredictReply.FromString(bytes(frames[0]))
