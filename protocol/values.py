"""What travels between dialects and stages: numpy arrays, text and bytes, each with its shape.

A dialect decodes a request into instances; an instance is a tuple with one value per method
input, in the order of the method's inputs. A numeric value is an `ndarray` (C order, native byte
order, writable or not as its source was); text and bytes keep the shape that the client gave them
(`[]` or `[1]`), because an input that is passed straight through is answered in its own shape.
"""

from __future__ import annotations

from collections.abc import Iterable
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


class InstanceSpec(NamedTuple):
    """What one instance has of an input or output. dtype: a name of `DTYPES`, or BYTES_DTYPE.

    shape: without batch dimension; -1 for a dimension known only at run time.
    """

    dtype: str
    shape: tuple[int, ...]


#: The dtype of text and bytes in an `InstanceSpec`.
BYTES_DTYPE = "bytes"


class MethodTensors(NamedTuple):
    """What is known of a method's values before it is called; None where it is a Python stage's.

    is_batched: its models, if it has any, compute several instances at once, so that a client's
    tensor has a batch dimension in front. It is False where a model has none.
    inputs, outputs: empty if nothing is known of any.
    batch_size_max: of its models; 0 if it has none.
    """

    is_batched: bool = True
    inputs: tuple[InstanceSpec | None, ...] = ()
    outputs: tuple[InstanceSpec | None, ...] = ()
    batch_size_max: int = 0


UNKNOWN_TENSORS = MethodTensors()


class MethodSignature(NamedTuple):
    """What a dialect needs to know of a method: its names, in declaration order.

    version: that the worker serves; 0 where nobody needs it.
    """

    servable: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: MethodTensors = UNKNOWN_TENSORS
    version: int = 0


class RequestSpec(NamedTuple):
    """What a client asked for; version 0 means the latest. Replies echo it where a dialect does.

    echo: what else the dialect's reply needs of its request; the dialect's own matter.
    """

    servable: str
    method: str
    version: int
    echo: object = None


class EchoedInstances(list[Instance]):
    """The instances of a request whose reply needs more of it: `echo` goes into its RequestSpec."""

    def __init__(self, instances: Iterable[Instance], echo: object) -> None:
        super().__init__(instances)
        self.echo = echo
