"""Outputs of instances that were computed together, one array for each output of all of them.

A reply needs one row of each array, as bytes or as JSON. Both are made for all rows at once, when
the first reply asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from protocol.values import DTYPES, Instance

#: dtype and shape of each output of one instance.
Form = tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]


class JsonStyle(NamedTuple):
    """How a JSON dialect reads and writes numbers.

    is_strict: the elements of an array have one type, which decides about the dtype.
    is_flat: a tensor is written as one list. is_wide: a float is written as a double.
    """

    is_strict: bool
    is_flat: bool
    is_wide: bool


class PackedBatch:
    """Outputs of several instances. arrays: each has one row per instance; not to be changed."""

    __slots__ = ("_arrays", "_raws", "_texts", "form")

    def __init__(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        self._arrays = arrays
        self.form: Form = tuple([(array.dtype, array.shape[1:]) for array in arrays])
        self._raws: list[list[bytes] | None] = [None] * len(arrays)
        self._texts: dict[tuple[int, JsonStyle], list[bytes] | None] = {}

    def instance(self, row: int) -> Instance:
        """The outputs of one instance, each an array."""
        return tuple(array[row, ...] for array in self._arrays)

    def raw(self, number: int) -> list[bytes]:
        """The bytes of an output, by row."""
        rows = self._raws[number]
        if rows is None:
            array = self._arrays[number]
            content = array.tobytes()
            size = array.itemsize
            for length in array.shape[1:]:
                size *= length
            rows = [content[at : at + size] for at in range(0, len(content), size)]
            self._raws[number] = rows
        return rows

    def texts(self, number: int, style: JsonStyle) -> list[bytes] | None:
        """The JSON of an output without its outermost brackets, by row.

        None if there is none for all rows: an infinity or NaN, or a dtype that JSON does not have.
        """
        key = (number, style)
        if key not in self._texts:
            self._texts[key] = _texts(self._arrays[number], style)
        return self._texts[key]


_NARROW = (DTYPES["float16"], DTYPES["float32"])
_FLOAT64 = DTYPES["float64"]
_WRITTEN = frozenset(dtype for name, dtype in DTYPES.items() if name not in ("bool", "float16"))


def _texts(array: npt.NDArray[Any], style: JsonStyle) -> list[bytes] | None:
    if not array.size or array.dtype not in _WRITTEN:
        return None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return None
    rows = np.ascontiguousarray(array.reshape(len(array), -1) if style.is_flat else array)
    if style.is_wide and rows.dtype in _NARROW:
        rows = rows.astype(_FLOAT64)
    depth = rows.ndim - 1
    text = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)
    return text[depth + 1 : len(text) - depth - 1].split(b"]" * depth + b"," + b"[" * depth)
