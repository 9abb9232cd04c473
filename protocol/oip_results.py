"""Results of instances, to the tensors of an Open Inference Protocol reply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from protocol import status
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.oip_tensor import BYTES, DATATYPE_OF_DTYPE, ELEMENT_SIZE, Content, invalid, name_of
from protocol.tensor import VIEW_BYTES_MIN, wire_array
from protocol.values import BytesValue, Failure, Instance, MethodSignature, Result, Value


class OutputTensor(NamedTuple):
    """One output to be encoded."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: Content


def check_outputs(method: MethodSignature, names: Iterable[str]) -> None:
    """Raises RequestError (invalid_inputs) for an output that is asked for and not there."""
    for name in names:
        if name not in method.outputs:
            raise invalid(
                f"output {name!r} is not one of {name_of(method)}: {', '.join(method.outputs)}"
            )


def to_outputs(
    method: MethodSignature,
    results: Sequence[Result],
    is_stacked: bool,
    names: Sequence[str] | None,
) -> list[OutputTensor]:
    """The outputs of a request, instances put together. names: which ones, None = all.

    Raises: RequestError with the first failure of an instance, and (failed) for an output whose
    instances do not have one shape; TypeError for a dtype that the wire does not know.
    """
    instances: list[Instance] = []
    for number, result in enumerate(results):
        if isinstance(result, Failure):
            reason = status.REASON_OF_MINDSPORE_CODE.get(result.code, "failed")
            where = f"instance {number} of {len(results)}: " if len(results) > 1 else ""
            raise RequestError(reason, f"{where}{result.message}")
        instances.append(result)
    wanted = method.outputs if names is None else names
    return [
        _output(method, name, [each[method.outputs.index(name)] for each in instances], is_stacked)
        for name in wanted
    ]


def _output(
    method: MethodSignature, name: str, values: Sequence[Value], is_stacked: bool
) -> OutputTensor:
    first = values[0]
    shape = np.shape(first) if isinstance(first, np.ndarray) else first.shape
    for number, value in enumerate(values):
        if not _is_alike(first, value):
            raise RequestError(
                "failed",
                f"output {name!r} of {name_of(method)}: instance {number} is {_kind(value)}, "
                f"instance 0 is {_kind(first)}; ask for them one by one",
            )
    front = (len(values),) if is_stacked else ()
    if not isinstance(first, np.ndarray):
        elements = [_element(method, name, value) for value in values]
        return OutputTensor(name, BYTES, (*front, *shape), elements)
    array = first if len(values) == 1 else np.stack(values)  # type: ignore[arg-type]
    datatype = DATATYPE_OF_DTYPE.get(array.dtype)
    if datatype is None or not array.flags.c_contiguous:
        array = wire_array(array)
        datatype = DATATYPE_OF_DTYPE[array.dtype]
    return OutputTensor(name, datatype, (*front, *shape), array)


def _is_alike(first: Value, value: Value) -> bool:
    if isinstance(first, np.ndarray):
        return (
            isinstance(value, np.ndarray)
            and value.shape == first.shape
            and value.dtype == first.dtype
        )
    return not isinstance(value, np.ndarray) and value.shape == first.shape


def _kind(value: Value) -> str:
    datatype = DATATYPE_OF_DTYPE.get(value.dtype, "?") if isinstance(value, np.ndarray) else BYTES
    return f"{datatype} of shape {list(value.shape)}"


def _element(method: MethodSignature, name: str, value: Any) -> bytes:
    if isinstance(value, BytesValue):
        return bytes(value.content)
    try:
        encoded: bytes = value.text.encode()
    except UnicodeEncodeError:
        raise RequestError(
            "failed", f"output {name!r} of {name_of(method)} is a text that is not valid Unicode"
        ) from None
    return encoded


def encode_raw(tensor: OutputTensor) -> Buffer:
    """The raw bytes of a tensor."""
    content = tensor.content
    if isinstance(content, np.ndarray):
        return content.data if content.nbytes >= VIEW_BYTES_MIN else content.tobytes()
    return b"".join(part for each in content for part in (ELEMENT_SIZE.pack(len(each)), each))
