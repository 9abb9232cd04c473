"""What a layout consists of, whatever its dialect is: see `layouts`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from protocol.native import Buffer
from protocol.packed import Form, PackedBatch
from protocol.values import Instance

#: Bytes between contents that one layout may have.
CONSTANT_BYTES_MAX = 2048

#: Places that are tried for one content.
PLACES_MAX = 16


class Contents(NamedTuple):
    """What was cut out of a request: the bytes of each input of the method, and its id or ""."""

    inputs: tuple[bytes, ...]
    request_id: str


class Cutter(ABC):
    """Cuts requests of one layout. The base of the two kinds."""

    __slots__ = ()

    @abstractmethod
    def cut(self, body: bytes) -> Contents | None:
        """The contents of a body, None if it does not have this layout."""


class Filler(ABC):
    """Writes replies of one form. The base of the two kinds."""

    __slots__ = ()

    @abstractmethod
    def fill(self, batch: PackedBatch, row: int, request_id: str) -> list[Buffer] | None:
        """The body frames of a reply, None if the dialect has to encode it."""


class Sample(NamedTuple):
    """A request that the dialect has decoded, and the door to try others like it.

    body: the frame with the contents. found: its contents. dtypes: of the inputs.
    decode: the contents of another body, None if it is refused or differs in anything else.
    """

    body: bytes
    found: Contents
    dtypes: tuple[np.dtype[Any], ...]
    decode: Callable[[bytes], Contents | None]


class ReplySample(NamedTuple):
    """The door to see which bytes of a reply are constant.

    form: of its outputs. id_size: characters of the ids of its requests (1 where their number does
    not matter), 0 = they have none.
    encode: the frames for an instance and an id, None if there are none.
    """

    form: Form
    id_size: int
    encode: Callable[[Instance, str], list[bytes] | None]


class Place(NamedTuple):
    """Where a content lies. number: of the input, or of the output; ID for the id."""

    begin: int
    end: int
    number: int


#: The number of the place of an id.
ID = -1


def constants_between(body: bytes, places: list[Place]) -> list[bytes]:
    """The bytes in front of each place, and behind the last one. places: in their order."""
    constants = []
    at = 0
    for place in places:
        constants.append(body[at : place.begin])
        at = place.end
    constants.append(body[at:])
    return constants


def is_in_order(places: list[Place]) -> bool:
    """No two places overlap. places: by where they begin."""
    return all(one.end <= other.begin for one, other in pairwise(places))
