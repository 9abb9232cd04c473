"""Tensor content as it lies on the wires of MindSpore Serving, to values and back.

Numbers are row-major little-endian bytes, one byte per bool. Text and bytes are one entry each, of
shape `[]` or `[1]`. Both MindSpore dialects check them with the same rules and the same texts.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol import limits, serving_texts, status
from protocol.values import (
    DTYPES,
    Failure,
    MethodSignature,
    Result,
    StringValue,
)

# Rule: arrays are little-endian on the wire and native in memory, without a swap in between.
# Every platform of MindSpore is little-endian; on another one this import must fail.
assert sys.byteorder == "little", sys.byteorder

BOOL = DTYPES["bool"]

#: Arrays below this many bytes are cheaper to copy than to view (a view costs about 0.2 µs).
VIEW_BYTES_MIN = 4096


class TensorError(Exception):
    """A tensor that breaks a rule. str(error): what follows `detail: ` in texts."""


def array_of(content: bytes, dtype: np.dtype[Any], dims: Sequence[int]) -> npt.NDArray[Any]:
    """A writable array with its own memory: one copy of `content`, never more.

    A Python stage may edit its inputs in place, and content inside of a message is not aligned.
    Nothing is allocated before the length is known to agree. Bools other than 0 become True.

    Raises: TensorError for a negative dimension, one behind a zero, more than
    `TENSOR_DIMENSIONS_MAX`, and a length other than product(dims) * item size.
    """
    if dims:
        check_dims(dims)
    if len(content) != math.prod(dims) * dtype.itemsize:
        raise TensorError(serving_texts.tensor_bytes_invalid(len(content)))
    try:
        if dtype is BOOL:
            return np.not_equal(np.frombuffer(content, np.uint8), 0).reshape(dims)
        return np.ndarray(dims, dtype, bytearray(content))
    except ValueError:
        # A zero-sized tensor whose other dimensions overflow what numpy can address.
        raise TensorError(serving_texts.tensor_shape_invalid(dims)) from None


def check_dims(dims: Sequence[int]) -> None:
    """A zero may only be the last dimension. Raises TensorError."""
    if min(dims) <= 0 and (min(dims) < 0 or 0 in dims[:-1]):
        raise TensorError(serving_texts.tensor_shape_invalid(dims))
    if len(dims) > limits.TENSOR_DIMENSIONS_MAX:
        raise TensorError(serving_texts.tensor_shape_invalid(dims))


def string_of(content: bytes, dims: Sequence[int]) -> StringValue:
    """One text. Raises TensorError for a shape other than `[]` and `[1]`, and if not UTF-8."""
    shape = text_shape(dims)
    try:
        return StringValue(content.decode(), shape)
    except UnicodeDecodeError:
        raise TensorError(serving_texts.text_not_utf8()) from None


def text_shape(dims: Sequence[int]) -> tuple[int, ...]:
    """The shape of a text or bytes tensor. Raises TensorError if it is not `[]` or `[1]`."""
    shape = tuple(dims)
    if shape and shape != (1,):
        raise TensorError(serving_texts.text_shape_invalid(shape))
    return shape


def wire_array(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array in C order and native byte order; itself if it is so already.

    Raises: TypeError for dtypes that the wire does not know.
    """
    if array.dtype.name not in DTYPES:
        raise TypeError(f"dtype {array.dtype} is not one of {', '.join(DTYPES)}")
    # Not ascontiguousarray: it would turn a 0-d array into one of shape [1].
    return np.asarray(array, DTYPES[array.dtype.name], order="C")


def whole_failure(results: Sequence[Result]) -> Failure | None:
    """The one failure that stands for all: every instance failed with the same code and text."""
    first = results[0]
    if isinstance(first, Failure) and all(
        isinstance(result, Failure) and result == first for result in results
    ):
        return first
    return None


def fail_illegal_text(method: MethodSignature, results: Sequence[Result]) -> list[Result]:
    """The same results, but an instance with a string that has no UTF-8 form has failed.

    Python text can hold lone surrogates, which no wire carries; the other instances stay as good
    as they are.
    """
    return [
        result if isinstance(result, Failure) else _fail_illegal_text(method, result)
        for result in results
    ]


def _fail_illegal_text(method: MethodSignature, instance: tuple[Any, ...]) -> Result:
    for name, value in zip(method.outputs, instance, strict=True):
        if isinstance(value, StringValue):
            try:
                value.text.encode()
            except UnicodeEncodeError:
                return Failure(status.MS_FAILED, serving_texts.reply_text_not_utf8(name))
    return instance


def printable(text: str) -> str:
    """The same text with what UTF-8 cannot hold written as `\\udcxx`; for error texts."""
    return text.encode("utf-8", "backslashreplace").decode()
