"""Tensors of the Open Inference Protocol, to instances; `oip_results` has the way back.

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

from protocol import limits
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.values import (
    BYTES_DTYPE,
    DTYPES,
    BytesValue,
    Instance,
    InstanceSpec,
    MethodSignature,
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
DATATYPE_OF_DTYPE = {dtype: datatype for datatype, dtype in DTYPE_OF_DATATYPE.items()}

#: Values of the parameter `content_type`: what the elements of a BYTES tensor become.
CONTENT_TEXT = "str"
CONTENT_BYTES = "bytes"
CONTENT_BASE64 = "base64"
CONTENT_TYPES = (CONTENT_TEXT, CONTENT_BYTES, CONTENT_BASE64)

#: In front of each element of a raw BYTES tensor: its size.
ELEMENT_SIZE = struct.Struct("<I")


#: The content of a tensor: an array of its shape, or the elements of a BYTES tensor.
Content = npt.NDArray[Any] | Sequence[bytes]


class InputHeader(NamedTuple):
    """One input without its content.

    content_type: what BYTES elements become, one of CONTENT_TYPES.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    content_type: str = CONTENT_BYTES


class InputPlan(NamedTuple):
    """How the inputs of a request become instances; the same for each of the same headers.

    order: for each input of the method, the number of its header.
    is_stacked: a batch dimension stands in front of the tensors.
    """

    headers: tuple[InputHeader, ...]
    order: tuple[int, ...]
    instance_count: int
    is_stacked: bool


# ---------------------------------------------------------------- contents


def check_header(name: str, datatype: str, shape: Sequence[int]) -> None:
    """Raises RequestError (invalid_inputs) for a datatype or shape that no tensor has."""
    if datatype not in DTYPE_OF_DATATYPE and datatype != BYTES:
        raise invalid(
            f"input {name!r}: datatype {datatype!r:.40} is not one of "
            f"{', '.join((*DTYPE_OF_DATATYPE, BYTES))}"
        )
    if len(shape) > limits.TENSOR_DIMENSIONS_MAX:
        raise invalid(
            f"input {name!r} has {len(shape)} dimensions, tensor_dimensions_max is "
            f"{limits.TENSOR_DIMENSIONS_MAX}"
        )
    if any(length < 0 for length in shape):
        raise invalid(f"input {name!r}: shape {list(shape)} has a negative dimension")


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
        raise invalid(
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
        raise invalid(f"input {name!r}: shape {list(shape)} is out of range") from None


def check_count(name: str, shape: tuple[int, ...], count: int) -> None:
    """Raises RequestError (invalid_inputs) if a tensor has other than `count` elements."""
    if math.prod(shape) != count:
        raise invalid(
            f"input {name!r} has {count} elements, shape {list(shape)} has {math.prod(shape)}"
        )


def _split_elements(name: str, content: memoryview) -> Iterable[bytes]:
    at, end = 0, content.nbytes
    while at < end:
        if at + ELEMENT_SIZE.size > end:
            raise invalid(f"input {name!r}: content ends inside of the size of an element")
        (size,) = ELEMENT_SIZE.unpack_from(content, at)
        at += ELEMENT_SIZE.size
        if at + size > end:
            raise invalid(f"input {name!r}: an element of {size} B exceeds the content's {end} B")
        yield bytes(content[at : at + size])
        at += size


# ---------------------------------------------------------------- inputs


def plan_inputs(method: MethodSignature, headers: Sequence[InputHeader]) -> InputPlan:
    """How inputs with these headers become instances.

    Raises: RequestError (invalid_inputs) for inputs that are missing, unknown or there twice, that
    are not what the method wants, or that do not agree on the number of instances.
    """
    numbers = {header.name: number for number, header in enumerate(headers)}
    if len(numbers) != len(headers):
        names = [header.name for header in headers]
        twice = next(name for name in names if names.count(name) > 1)
        raise invalid(f"input {twice!r} is there twice")
    for name in numbers:
        if name not in method.inputs:
            raise invalid(
                f"input {name!r} is not one of {name_of(method)}: {', '.join(method.inputs)}"
            )
    for name in method.inputs:
        if name not in numbers:
            raise invalid(f"input {name!r} of {name_of(method)} is missing")
    order = tuple(numbers[name] for name in method.inputs)
    ordered = [headers[number] for number in order]
    specs = method.tensors.inputs or (None,) * len(ordered)
    is_stacked = _is_stacked(method, ordered, specs)
    count = _instance_count(method, ordered) if is_stacked else 1
    for header, spec in zip(ordered, specs, strict=True):
        _check(method, header, spec, is_stacked)
    return InputPlan(tuple(headers), order, count, is_stacked)


def _is_stacked(
    method: MethodSignature,
    headers: Sequence[InputHeader],
    specs: Sequence[InstanceSpec | None],
) -> bool:
    """The first input whose rank says it decides; the others are held against it."""
    if method.tensors.is_batched:
        return bool(headers)
    for header, spec in zip(headers, specs, strict=True):
        if spec is not None or header.datatype == BYTES:
            rank = 0 if spec is None else len(spec.shape)
            return len(header.shape) > rank
    return False


def _instance_count(method: MethodSignature, headers: Sequence[InputHeader]) -> int:
    first = headers[0]
    for header in headers:
        if not header.shape:
            raise invalid(f"input {header.name!r} of {name_of(method)} has no batch dimension")
        if header.shape[0] != first.shape[0]:
            raise invalid(
                f"input {header.name!r} has {header.shape[0]} instances, input {first.name!r} has "
                f"{first.shape[0]}"
            )
    if not first.shape[0]:
        raise invalid(f"input {first.name!r}: shape {list(first.shape)} has no instance")
    return first.shape[0]


def _check(
    method: MethodSignature, header: InputHeader, spec: InstanceSpec | None, is_stacked: bool
) -> None:
    shape = header.shape[1:] if is_stacked else header.shape
    if spec is None:
        if header.datatype == BYTES and (math.prod(shape) != 1 or len(shape) > 1):
            raise invalid(
                f"input {header.name!r}: a BYTES tensor has one element per instance, shape "
                f"{list(header.shape)} has {math.prod(shape)}"
            )
        return
    datatype = DATATYPES[spec.dtype]
    if header.datatype != datatype:
        raise invalid(
            f"input {header.name!r} of {name_of(method)} has datatype {header.datatype}, it should "
            f"be {datatype}"
        )
    fits = len(shape) == len(spec.shape) and all(
        mine in (-1, given) for mine, given in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        wanted = [-1, *spec.shape] if method.tensors.is_batched else list(spec.shape)
        raise invalid(
            f"input {header.name!r} of {name_of(method)} has shape {list(header.shape)}, it should "
            f"be {wanted}"
        )


def to_instances(plan: InputPlan, contents: Sequence[Content]) -> list[Instance]:
    """The instances of a request. contents: of each header. Raises RequestError."""
    columns = [_column(plan, plan.headers[number], contents[number]) for number in plan.order]
    return list(zip(*columns, strict=True)) if columns else [()]


def _column(plan: InputPlan, header: InputHeader, content: Content) -> Sequence[Value]:
    if isinstance(content, np.ndarray):
        if not plan.is_stacked:
            return [content]
        # Not iteration: it would make scalars of a tensor that has nothing but its batch dimension.
        return [content[at, ...] for at in range(plan.instance_count)]
    name, shape = header.name, header.shape[1:] if plan.is_stacked else header.shape
    if header.content_type == CONTENT_TEXT:
        return [_text(name, element, shape) for element in content]
    if header.content_type == CONTENT_BASE64:
        return [BytesValue(_unwritten(name, element), shape) for element in content]
    return [BytesValue(element, shape) for element in content]


def _unwritten(name: str, element: bytes) -> bytes:
    try:
        return base64.b64decode(element, validate=True)
    except binascii.Error as error:
        raise invalid(
            f"input {name!r} has content_type {CONTENT_BASE64!r}, and an element that is none: "
            f"{error}"
        ) from None


def _text(name: str, element: bytes, shape: tuple[int, ...]) -> StringValue:
    try:
        return StringValue(element.decode(), shape)
    except UnicodeDecodeError:
        raise invalid(
            f"input {name!r} has content_type {CONTENT_TEXT!r}, and an element that is not UTF-8"
        ) from None


def name_of(method: MethodSignature) -> str:
    """A method, for error texts."""
    return f"method {method.name} of {method.servable}"


def invalid(text: str) -> RequestError:
    """The error for an input that is wrong."""
    return RequestError("invalid_inputs", text)
