"""Values on their way into Python stages and back (MindSpore Serving's mapping).

    StringValue  -> str                    str                  -> StringValue, shape ()
    BytesValue   -> uint8 ndarray, 1-D     bytes                -> BytesValue, shape ()
    ndarray      -> the same ndarray       bool, int, float     -> 0-d bool, int64, float64
                    (0-d for a scalar)     ndarray, numpy scalar-> its own dtype and shape
                                           has asnumpy()        -> that array
                                           other array-likes    -> what numpy makes of them

Arrays are handed to Python stages writable, and edits are visible to later stages that use the
same value; so `make_writable` replaces a value once, before its first use by a Python stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from protocol.values import DTYPES, BytesValue, StringValue, Value

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


class ContractError(Exception):
    """User code returned what a stage may not return; the text says what."""


def make_writable(value: Value) -> Value:
    """The value itself if Python code may write to it (or cannot at all), else a copy."""
    if isinstance(value, np.ndarray):
        return value if value.flags.writeable else value.copy()
    if isinstance(value, BytesValue):
        content = value.content
        if not isinstance(content, memoryview) or content.readonly:
            return BytesValue(memoryview(bytearray(content)), value.shape)
    return value


def to_python(value: Value) -> str | npt.NDArray[Any]:
    """What a Python stage gets for a value; arrays share its memory."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, StringValue):
        return value.text
    return np.frombuffer(value.content, dtype=np.uint8)


def from_python(result: object) -> Value:
    """The value for one result of a Python stage; arrays are shared unless their layout is wrong.

    Raises: ContractError for what has no value (None, dict, complex, big-endian, ragged
        lists, ints beyond int64, text that is not valid Unicode).
    """
    if isinstance(result, np.ndarray):
        return _checked(result, result)
    if isinstance(result, str):
        return _text(result)
    if isinstance(result, bytes):
        return BytesValue(bytes(result))
    if isinstance(result, bool):
        return np.array(result)
    if isinstance(result, int):
        if not _INT64_MIN <= result <= _INT64_MAX:
            raise _illegal(result)
        return np.array(result, dtype=np.int64)
    if isinstance(result, float):
        return np.array(result, dtype=np.float64)
    return _from_array_like(result)


def type_name(value: Value) -> str:
    """MindSpore Serving's name of a value's type, as error texts have it: `kMSI_Float32`."""
    if isinstance(value, np.ndarray):
        return dtype_name(value.dtype)
    return "kMSI_String" if isinstance(value, StringValue) else "kMSI_Bytes"


def dtype_name(dtype: np.dtype[Any]) -> str:
    """MindSpore Serving's name of a dtype, as error texts have it: `kMSI_Float32`."""
    return f"kMSI_{dtype.name.capitalize()}" if dtype.name in DTYPES else "kMSI_Unknown"


def byte_count(value: Value) -> int:
    """Bytes of a value's content (UTF-8 for text)."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, StringValue):
        return len(value.text.encode())
    content = value.content
    return content.nbytes if isinstance(content, memoryview) else len(content)


def _text(result: str) -> StringValue:
    try:
        result.encode()
    except UnicodeEncodeError as error:
        raise ContractError(f"Push py task result cause exception: {error}") from None
    return StringValue(str(result))


def _from_array_like(result: object) -> Value:
    if result is None:
        raise _illegal(result)
    asnumpy = getattr(result, "asnumpy", None)
    if callable(asnumpy):
        return _checked(np.asarray(cast(Callable[[], object], asnumpy)()), result)
    try:
        array = np.asarray(result)
    except (ValueError, TypeError, OverflowError):
        raise _illegal(result) from None
    return _checked(array, result)


def _checked(array: npt.NDArray[Any], result: object) -> Value:
    dtype = array.dtype
    if dtype.name not in DTYPES or not dtype.isnative:
        raise _illegal(result)
    if not array.flags.c_contiguous:
        # Not numpy.ascontiguousarray, which turns 0-d into 1-d. A Fortran-ordered result
        # (`x.T`) is copied too, where MindSpore Serving calls it a violation.
        return array.copy(order="C")
    return np.asarray(array)


def _illegal(result: object) -> ContractError:
    return ContractError(
        f"Push py task result cause exception: Get illegal result data with type {type(result)}"
    )
