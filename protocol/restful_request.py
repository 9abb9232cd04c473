"""Requests of the RESTful dialect: a JSON document to instances, with MindSpore Serving's texts.

An error in the structure of any instance comes before an error in the tensor of any input, so a
document is read as a whole first, each instance in the sorted order of its keys, and then the
inputs of the method are taken from it.

Unlike the original, which keeps the low 32 bits of an integer outside of int32 without a word,
such an integer is refused; a client that needs it sends a base64 object of type int64. A float
beyond float32 becomes an infinity, as there. Every document gets an answer, also the few that the
original never answers. An object of type str in an array is decoded like one outside of it.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, Never

import numpy as np
import numpy.typing as npt
import orjson

from protocol import limits, serving_texts
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.restful_json import parse_json
from protocol.tensor import TensorError, array_of, string_of, text_shape
from protocol.values import DTYPES, BytesValue, Instance, MethodSignature, StringValue, Value

#: A value whose structure is legal, or what is wrong with the tensor that it describes; that
#: counts only if the method has such an input.
Item = Value | TensorError

INT32 = DTYPES["int32"]
FLOAT32 = DTYPES["float32"]
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

#: Types of a base64 object; the short names are the same as the long ones.
_TYPES = {name: name for name in (*DTYPES, "str", "bytes")} | {
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
}
_TEXTS = ("str", "bytes")
_DTYPE_OF_KIND: dict[type, np.dtype[Any]] = {
    int: INT32,
    float: FLOAT32,
    bool: DTYPES["bool"],
}

_NOT_EQUAL = "json array, elements type is not equal"
_NOT_MATCHED = "decode base64 failed, size is not matched."


def decode_request(frames: Sequence[Buffer], method: MethodSignature) -> list[Instance]:
    """The instances of a request, each in the order of the method's inputs; arrays are writable.

    Raises: RequestError (malformed, invalid_inputs); the first failure rejects the whole request.
    """
    parsed = parse_instances(parse_json(frames[0] if frames else b""))
    return [_take_inputs(items, method) for items in parsed]


def check_request(body: Buffer) -> int:
    """The number of instances of a request, after every check that needs no method.

    For a request that something else refuses: an error in the document comes before an unknown
    servable or method. Raises: RequestError (malformed, invalid_inputs).
    """
    return len(parse_instances(parse_json(body)))


def _take_inputs(items: dict[str, Item], method: MethodSignature) -> Instance:
    values: list[Value] = []
    for name in method.inputs:
        item = items.get(name)
        if item is None:
            raise RequestError(
                "invalid_inputs",
                serving_texts.input_not_found(name, method.servable, method.name),
            )
        if isinstance(item, TensorError):
            raise RequestError("invalid_inputs", serving_texts.input_check_failed(name, str(item)))
        values.append(item)
    return tuple(values)


def parse_instances(document: Any) -> list[dict[str, Item]]:
    """The instances of a parsed document, at least one, each by the name of its inputs.

    Raises: RequestError (invalid_inputs), its text beginning with `Parser request failed, `.
    """
    try:
        return _parse_instances(document)
    except _StructureError as error:
        raise RequestError("invalid_inputs", serving_texts.parse_failed(str(error))) from None


class _StructureError(Exception):
    """The structure of a document breaks a rule; str(error) says which, in the original's words."""


def _parse_instances(document: Any) -> list[dict[str, Item]]:
    if type(document) is not dict or "instances" not in document:
        raise _StructureError("key 'instances' expects to exist once, but actually 0 times")
    instances = document["instances"]
    if type(instances) is dict:
        if not instances:
            raise _StructureError("json object, value is empty")
        return [_parse_instance(instances)]
    if type(instances) is list:
        if not instances:
            raise _StructureError("instances value is array type, but no value")
        if type(instances[0]) is dict:
            return [_parse_element(instance) for instance in instances]
    raise _StructureError("instances no key mode is not supported")


def _parse_element(instance: Any) -> dict[str, Item]:
    if type(instance) is not dict:
        raise _StructureError("json array, instance is not object type")
    if not instance:
        raise _StructureError("json array, instance is object type, but no value")
    return _parse_instance(instance)


def _parse_instance(instance: dict[str, Any]) -> dict[str, Item]:
    if "" in instance:  # the first key in sorted order
        raise _StructureError("string key is empty")
    return {name: _parse_value(instance[name]) for name in sorted(instance)}


def _parse_value(value: Any) -> Item:
    kind = type(value)
    if kind is list:
        return _parse_array(value)
    if kind is dict:
        return _parse_object(value)
    if kind is str:
        return StringValue(value)
    if kind is int:
        return np.asarray(_int32(value), INT32)
    if kind is float:
        with np.errstate(over="ignore"):
            return np.asarray(value, FLOAT32)
    if kind is bool:
        return np.asarray(value)
    raise _StructureError("json value is null, it is not supported")


def _int32(number: int) -> int:
    if INT32_MIN <= number <= INT32_MAX:
        return number
    raise _StructureError(
        f"json integer {number} is out of range of int32 [{INT32_MIN}, {INT32_MAX}], "
        "a base64 object can have type int64"
    )


# ---------------------------------------------------------------- arrays


def _parse_array(array: list[Any]) -> Item:
    """An array by its first path: the lengths on the way down, and the kind of the first leaf."""
    dims: list[int] = []
    leaf: Any = array
    while type(leaf) is list and leaf:
        dims.append(len(leaf))
        leaf = leaf[0]
    if not dims:
        raise _StructureError("json array, shape is empty")
    dtype = _DTYPE_OF_KIND.get(type(leaf))
    if dtype is None:
        return _parse_text_array(leaf, dims)
    if len(dims) > limits.TENSOR_DIMENSIONS_MAX:
        return TensorError(serving_texts.tensor_shape_invalid(dims))
    numbers = _flatten(array, dims)
    if numbers is None or set(map(type, numbers)) != {type(leaf)}:
        _raise_first_error(array, 0, dims, type(leaf))
    return _numbers_array(numbers, dtype, dims)


def _flatten(array: list[Any], dims: list[int]) -> list[Any] | None:
    """The leaves of a rectangular array, at C speed; None if it is ragged."""
    rows = array
    for dim in dims[1:]:
        if set(map(type, rows)) != {list} or set(map(len, rows)) != {dim}:
            return None
        rows = list(chain.from_iterable(rows))
    return rows


def _numbers_array(
    numbers: list[Any], dtype: np.dtype[Any], dims: list[int]
) -> npt.NDArray[np.generic]:
    try:
        with np.errstate(over="ignore"):
            flat = np.array(numbers, dtype)
    except OverflowError:
        for number in numbers:
            _int32(number)
        raise
    return flat if len(dims) == 1 else flat.reshape(dims)


def _raise_first_error(array: Any, depth: int, dims: list[int], kind: type[Any]) -> Never:
    """The first error of an illegal array, in the order of its elements."""
    _check_level(array, depth, dims, kind)
    raise AssertionError(f"an array of {kind} and dims {dims} is legal after all")


def _check_level(array: Any, depth: int, dims: list[int], kind: type[Any]) -> None:
    if type(array) is not list:
        raise _StructureError("invalid json array: json type is not array")
    if len(array) != dims[depth]:
        raise _StructureError(
            f"invalid json array: json size is {len(array)}, the dim {depth} expected to be "
            f"{dims[depth]}"
        )
    for element in array:
        if depth + 1 < len(dims):
            _check_level(element, depth + 1, dims, kind)
        elif type(element) in (list, dict, type(None)):
            raise _StructureError("json array, data should be number, bool, string or bytes")
        elif type(element) is not kind:
            raise _StructureError(_NOT_EQUAL)
        elif kind is int:
            _int32(element)


def _parse_text_array(leaf: Any, dims: list[int]) -> Item:
    """An array of strings or of objects, which may have one element only."""
    if type(leaf) is str:
        type_name = "str"
    elif type(leaf) is dict:
        type_name = _element_type(leaf)
    else:
        raise _StructureError("json array, data type is unknown")
    if type_name not in _TEXTS:
        raise _StructureError(
            "json array, item is object type, object only support string or bytes type"
        )
    if math.prod(dims) != 1:
        raise _StructureError("json array, string or bytes type only support one item")
    if type(leaf) is dict:
        if "b64" not in leaf:
            raise _StructureError("json object, 'b64' should be specified only one time")
        return _text_item(_decode_base64(leaf["b64"]), type_name, dims)
    try:
        return StringValue(leaf, text_shape(dims))
    except TensorError as error:
        return error


def _element_type(element: dict[str, Any]) -> str:
    type_name = element.get("type", "bytes")
    if type(type_name) is not str:
        raise _StructureError("json object, key is 'type', value should be string type")
    if type_name not in _TYPES:
        raise _StructureError("json array, data type is unknown")
    return _TYPES[type_name]


# ---------------------------------------------------------------- base64 objects


def _parse_object(value: dict[str, Any]) -> Item:
    if not value:
        raise _StructureError("json object, value is empty")
    if len(value) > 3:
        raise _StructureError(
            "json object, items size is more than 3, only support specified "
            "['b64', 'type', 'shape']"
        )
    for key in sorted(value):
        if key == "shape":
            _check_shape(value[key])
        elif key == "type":
            _check_type(value[key])
        elif key != "b64":
            raise _StructureError(
                f"json object, key is not ['b64', 'type', 'shape'], fail key:{key}"
            )
    if "b64" not in value:
        raise _StructureError("json object, 'b64' should be specified only one time")
    type_name = _TYPES[value.get("type", "bytes")]
    dims: list[int] = value.get("shape", [])
    if type_name in _TEXTS:
        if math.prod(dims) != 1:
            raise _StructureError(
                "json object, only support scalar when data type is string or bytes, "
                "please check 'type' or 'shape'"
            )
        return _text_item(_decode_base64(value["b64"]), type_name, dims)
    return _numeric_item(_decode_base64(value["b64"]), type_name, dims)


def _check_type(type_name: Any) -> None:
    if type(type_name) is not str:
        raise _StructureError("json object, key is 'type', value should be string type")
    if type_name not in _TYPES:
        raise _StructureError(f"json object, specified type:'{type_name}' is illegal")


def _check_shape(shape: Any) -> None:
    if type(shape) is not list:
        raise _StructureError("json object, key is 'shape', value should be array type")
    is_behind_zero = False
    for dim in shape:
        if is_behind_zero:
            raise _StructureError(
                f"json object, key is 'shape', invalid shape value {_dump(shape)}"
            )
        if type(dim) is not int or dim < 0:
            raise _StructureError(
                "json object, key is 'shape', array value should be unsigned integer"
            )
        if dim > INT32_MAX:
            raise _StructureError(
                "json object, key is 'shape', number value should not be negative number, "
                f"shape value: {_dump(shape)}"
            )
        is_behind_zero = dim == 0


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()


def _decode_base64(text: Any) -> bytes:
    """Bytes of a base64 text in the standard alphabet, padded, without spaces."""
    if type(text) is not str:
        raise _StructureError("get scalar data failed, type is string, but json is not string type")
    size = len(text) if text.isascii() else len(text.encode())
    if size % 4:
        raise _StructureError(f"'{text}' is illegal b64 encode string")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise _StructureError(_NOT_MATCHED) from None


def _text_item(content: bytes, type_name: str, dims: list[int]) -> Item:
    try:
        if type_name == "str":
            return string_of(content, dims)
        return BytesValue(content, text_shape(dims))
    except TensorError as error:
        return error


def _numeric_item(content: bytes, type_name: str, dims: list[int]) -> Item:
    dtype = DTYPES[type_name]
    elements = math.prod(dims)
    if len(content) != elements * dtype.itemsize:
        raise _StructureError(
            f"size is not matched, decode base64 size:{len(content)}; Given info: "
            f"type:{type_name}; type size:{dtype.itemsize}; element nums:{elements}"
        )
    try:
        return array_of(content, dtype, dims)
    except TensorError as error:
        return error
