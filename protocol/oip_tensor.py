"""Tensors of the Open Inference Protocol, to instances and back.

A method's tensor has a *batch dimension* in front of what one instance has, and that many instances
are in it. Where a method's model has none (`MethodTensors.is_batched` is False), a tensor of the
model's own rank is one instance, and a tensor with one dimension more is that many. All inputs of
a request agree on it, and so do its outputs.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from protocol import limits, status
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.tensor import wire_array
from protocol.values import (
    BYTES_DTYPE,
    DTYPES,
    BytesValue,
    Failure,
    Instance,
    InstanceSpec,
    MethodSignature,
    Result,
    StringValue,
    Value,
)

BYTES = "BYTES"

#: The protocol's name of each dtype.
DATATYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "uint16": "UINT16",
    "int32": "INT32",
    "uint32": "UINT32",
    "int64": "INT64",
    "uint64": "UINT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    BYTES_DTYPE: BYTES,
}

#: The dtype of each numeric datatype.
DTYPE_OF_DATATYPE = {DATATYPES[name]: dtype for name, dtype in DTYPES.items()}

#: Values of the parameter `content_type`: what the elements of a BYTES tensor become.
CONTENT_TEXT = "str"
CONTENT_BYTES = "bytes"
CONTENT_BASE64 = "base64"
CONTENT_TYPES = (CONTENT_TEXT, CONTENT_BYTES, CONTENT_BASE64)

#: In front of each element of a raw BYTES tensor: its size.
_ELEMENT_SIZE = struct.Struct("<I")


class InputTensor(NamedTuple):
    """One decoded input. content: an array of `shape`, or the elements of a BYTES tensor.

    content_type: what BYTES elements become, one of CONTENT_TYPES.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: npt.NDArray[Any] | Sequence[bytes]
    content_type: str = CONTENT_BYTES


class OutputTensor(NamedTuple):
    """One output to be encoded. content: as of an `InputTensor`."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: npt.NDArray[Any] | Sequence[bytes]


# ---------------------------------------------------------------- contents


def check_header(name: str, datatype: str, shape: Sequence[int]) -> None:
    """Raises RequestError (invalid_inputs) for a datatype or shape that no tensor has."""
    if datatype not in DTYPE_OF_DATATYPE and datatype != BYTES:
        raise _invalid(
            f"input {name!r}: datatype {datatype!r:.40} is not one of "
            f"{', '.join((*DTYPE_OF_DATATYPE, BYTES))}"
        )
    if len(shape) > limits.TENSOR_DIMENSIONS_MAX:
        raise _invalid(
            f"input {name!r} has {len(shape)} dimensions, tensor_dimensions_max is "
            f"{limits.TENSOR_DIMENSIONS_MAX}"
        )
    if any(length < 0 for length in shape):
        raise _invalid(f"input {name!r}: shape {list(shape)} has a negative dimension")


def decode_raw(name: str, datatype: str, shape: tuple[int, ...], content: Buffer) -> Any:
    """The content of a tensor from its raw bytes: an array with its own memory, or BYTES elements.

    Raises: RequestError (invalid_inputs) if its length does not fit the shape.
    """
    if datatype == BYTES:
        elements = list(_split_elements(name, memoryview(content)))
        check_count(name, shape, len(elements))
        return elements
    dtype = DTYPE_OF_DATATYPE[datatype]
    wanted = math.prod(shape) * dtype.itemsize
    size = memoryview(content).nbytes
    if size != wanted:
        raise _invalid(
            f"input {name!r} has {size} B of content, {datatype} of shape {list(shape)} has "
            f"{wanted} B"
        )
    if datatype == "BOOL":
        return as_shape(name, np.not_equal(np.frombuffer(content, np.uint8), 0), shape)
    return as_shape(name, np.frombuffer(bytearray(content), dtype), shape)


def as_shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array in a shape of as many elements. Raises RequestError (invalid_inputs)."""
    check_count(name, shape, array.size)
    try:
        return array.reshape(shape)
    except ValueError:  # a tensor without elements whose other dimensions overflow
        raise _invalid(f"input {name!r}: shape {list(shape)} is out of range") from None


def check_count(name: str, shape: tuple[int, ...], count: int) -> None:
    """Raises RequestError (invalid_inputs) if a tensor has other than `count` elements."""
    if math.prod(shape) != count:
        raise _invalid(
            f"input {name!r} has {count} elements, shape {list(shape)} has {math.prod(shape)}"
        )


def _split_elements(name: str, content: memoryview) -> Iterable[bytes]:
    at, end = 0, content.nbytes
    while at < end:
        if at + _ELEMENT_SIZE.size > end:
            raise _invalid(f"input {name!r}: content ends inside of the size of an element")
        (size,) = _ELEMENT_SIZE.unpack_from(content, at)
        at += _ELEMENT_SIZE.size
        if at + size > end:
            raise _invalid(f"input {name!r}: an element of {size} B exceeds the content's {end} B")
        yield bytes(content[at : at + size])
        at += size


def encode_raw(tensor: OutputTensor) -> Buffer:
    """The raw bytes of a tensor."""
    content = tensor.content
    if isinstance(content, np.ndarray):
        return content.reshape(-1).view(np.uint8).data
    return b"".join(part for each in content for part in (_ELEMENT_SIZE.pack(len(each)), each))


# ---------------------------------------------------------------- inputs


def to_instances(
    method: MethodSignature, inputs: Sequence[InputTensor]
) -> tuple[list[Instance], bool]:
    """The instances of a request, and whether a batch dimension stands in front of its tensors.

    Raises: RequestError (invalid_inputs) for inputs that are missing, unknown or there twice, that
    are not what the method wants, or that do not agree on the number of instances.
    """
    by_name = {tensor.name: tensor for tensor in inputs}
    if len(by_name) != len(inputs):
        names = [tensor.name for tensor in inputs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _invalid(f"input {twice!r} is there twice")
    for name in by_name:
        if name not in method.inputs:
            raise _invalid(
                f"input {name!r} is not one of {_of(method)}: {', '.join(method.inputs)}"
            )
    for name in method.inputs:
        if name not in by_name:
            raise _invalid(f"input {name!r} of {_of(method)} is missing")
    tensors = [by_name[name] for name in method.inputs]
    specs = method.tensors.inputs or (None,) * len(tensors)
    is_stacked = _is_stacked(method, tensors, specs)
    count = 1
    if is_stacked:
        count = _instance_count(method, tensors)
    columns = [
        _column(method, tensor, spec, count, is_stacked)
        for tensor, spec in zip(tensors, specs, strict=True)
    ]
    return list(zip(*columns, strict=True)) if columns else [()], is_stacked


def _is_stacked(
    method: MethodSignature,
    tensors: Sequence[InputTensor],
    specs: Sequence[InstanceSpec | None],
) -> bool:
    """The first input whose rank says it decides; the others are held against it."""
    if method.tensors.is_batched:
        return bool(tensors)
    for tensor, spec in zip(tensors, specs, strict=True):
        if spec is not None or tensor.datatype == BYTES:
            rank = 0 if spec is None else len(spec.shape)
            return len(tensor.shape) > rank
    return False


def _instance_count(method: MethodSignature, tensors: Sequence[InputTensor]) -> int:
    first = tensors[0]
    for tensor in tensors:
        if not tensor.shape:
            raise _invalid(f"input {tensor.name!r} of {_of(method)} has no batch dimension")
        if tensor.shape[0] != first.shape[0]:
            raise _invalid(
                f"input {tensor.name!r} has {tensor.shape[0]} instances, input {first.name!r} has "
                f"{first.shape[0]}"
            )
    if not first.shape[0]:
        raise _invalid(f"input {first.name!r}: shape {list(first.shape)} has no instance")
    return first.shape[0]


def _column(
    method: MethodSignature,
    tensor: InputTensor,
    spec: InstanceSpec | None,
    count: int,
    is_stacked: bool,
) -> Sequence[Value]:
    shape = tensor.shape[1:] if is_stacked else tensor.shape
    if spec is not None:
        _check(method, tensor, spec, shape)
    if isinstance(tensor.content, np.ndarray):
        # Not iteration: it would make scalars of a tensor that has nothing but its batch dimension.
        content = tensor.content
        return [content[at, ...] for at in range(count)] if is_stacked else [content]
    if math.prod(shape) != 1 or len(shape) > 1:
        raise _invalid(
            f"input {tensor.name!r}: a BYTES tensor has one element per instance, shape "
            f"{list(tensor.shape)} has {math.prod(shape)}"
        )
    if tensor.content_type == CONTENT_TEXT:
        return [_text(tensor.name, element, shape) for element in tensor.content]
    if tensor.content_type == CONTENT_BASE64:
        return [BytesValue(_unwritten(tensor.name, each), shape) for each in tensor.content]
    return [BytesValue(element, shape) for element in tensor.content]


def _unwritten(name: str, element: bytes) -> bytes:
    try:
        return base64.b64decode(element, validate=True)
    except binascii.Error as error:
        raise _invalid(
            f"input {name!r} has content_type {CONTENT_BASE64!r}, and an element that is none: "
            f"{error}"
        ) from None


def _text(name: str, element: bytes, shape: tuple[int, ...]) -> StringValue:
    try:
        return StringValue(element.decode(), shape)
    except UnicodeDecodeError:
        raise _invalid(
            f"input {name!r} has content_type {CONTENT_TEXT!r}, and an element that is not UTF-8"
        ) from None


def _check(
    method: MethodSignature, tensor: InputTensor, spec: InstanceSpec, shape: tuple[int, ...]
) -> None:
    datatype = DATATYPES[spec.dtype]
    if tensor.datatype != datatype:
        raise _invalid(
            f"input {tensor.name!r} of {_of(method)} has datatype {tensor.datatype}, it should be "
            f"{datatype}"
        )
    fits = len(shape) == len(spec.shape) and all(
        mine in (-1, given) for mine, given in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        wanted = [-1, *spec.shape] if method.tensors.is_batched else list(spec.shape)
        raise _invalid(
            f"input {tensor.name!r} of {_of(method)} has shape {list(tensor.shape)}, it should be "
            f"{wanted}"
        )


# ---------------------------------------------------------------- outputs


def check_outputs(method: MethodSignature, names: Iterable[str]) -> None:
    """Raises RequestError (invalid_inputs) for an output that is asked for and not there."""
    for name in names:
        if name not in method.outputs:
            raise _invalid(
                f"output {name!r} is not one of {_of(method)}: {', '.join(method.outputs)}"
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
                f"output {name!r} of {_of(method)}: instance {number} is {_kind(value)}, "
                f"instance 0 is {_kind(first)}; ask for them one by one",
            )
    front = (len(values),) if is_stacked else ()
    if not isinstance(first, np.ndarray):
        elements = [_element(method, name, value) for value in values]
        return OutputTensor(name, BYTES, (*front, *shape), elements)
    array = wire_array(first) if len(values) == 1 else wire_array(np.stack(values))  # type: ignore[arg-type]
    return OutputTensor(name, DATATYPES[array.dtype.name], (*front, *shape), array)


def _is_alike(first: Value, value: Value) -> bool:
    if isinstance(first, np.ndarray):
        return (
            isinstance(value, np.ndarray)
            and value.shape == first.shape
            and value.dtype == first.dtype
        )
    return not isinstance(value, np.ndarray) and value.shape == first.shape


def _kind(value: Value) -> str:
    datatype = DATATYPES.get(value.dtype.name, "?") if isinstance(value, np.ndarray) else BYTES
    return f"{datatype} of shape {list(value.shape)}"


def _element(method: MethodSignature, name: str, value: Any) -> bytes:
    if isinstance(value, BytesValue):
        return bytes(value.content)
    try:
        encoded: bytes = value.text.encode()
    except UnicodeEncodeError:
        raise RequestError(
            "failed", f"output {name!r} of {_of(method)} is a text that is not valid Unicode"
        ) from None
    return encoded


def _of(method: MethodSignature) -> str:
    return f"method {method.name} of {method.servable}"


def _invalid(text: str) -> RequestError:
    return RequestError("invalid_inputs", text)
