"""What travels between dialects and stages: numpy arrays, text and bytes, each with its shape.

A dialect decodes a request into instances; an instance is a tuple with one value per method
input, in the order of the method's inputs. A numeric value is an `ndarray` (C order, native byte
order, writable or not as its source was); text and bytes keep the shape that the client gave them
(`[]` or `[1]`), because an input that is passed straight through is answered in its own shape.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: dtypes that a tensor may have, by their one name on the native wire.
DTYPES: dict[str, np.dtype[np.generic]] = {
    name: np.dtype(name)
    for name in (
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
    )
}


class StringValue(NamedTuple):
    """One text, valid UTF-8 (MS_STRING). shape: `()` or `(1,)`."""

    text: str
    shape: tuple[int, ...] = ()


class BytesValue(NamedTuple):
    """One byte string (MS_BYTES). shape: `()` or `(1,)`."""

    content: bytes | memoryview
    shape: tuple[int, ...] = ()


Value = npt.NDArray[np.generic] | StringValue | BytesValue
Instance = tuple[Value, ...]


class Failure(NamedTuple):
    """An instance that failed. code: a MindSpore Serving code (`status.MS_…`), never MS_OK."""

    code: int
    message: str


Result = Instance | Failure


class MethodSignature(NamedTuple):
    """What a dialect needs to know of a method: its names, in declaration order."""

    servable: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class RequestSpec(NamedTuple):
    """What a client asked for; version 0 means the latest. Replies echo it where a dialect does."""

    servable: str
    method: str
    version: int
