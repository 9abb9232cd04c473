"""Layouts of dialects whose tensors are raw bytes behind their length: protobuf and msgpack.

Such a content may be any bytes of its length, and whatever is around it means the same; so bodies
of one length that are equal everywhere else differ in nothing but their contents.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from protocol.layout import (
    CONSTANT_BYTES_MAX,
    ID,
    PLACES_MAX,
    Contents,
    Cutter,
    Filler,
    Place,
    ReplySample,
    Sample,
    constants_between,
    is_in_order,
)
from protocol.native import Buffer
from protocol.packed import PackedBatch
from protocol.values import Instance


class BinaryCutter(Cutter):
    """Cuts bodies of one length. places: of all inputs, maybe of the id, in their order."""

    __slots__ = ("_constants", "_id", "_inputs", "_size")

    def __init__(self, body: bytes, places: list[Place]) -> None:
        self._size = len(body)
        ends = [0, *(place.end for place in places)]
        self._constants = [
            (end, end + len(constant), constant)
            for end, constant in zip(ends, constants_between(body, places), strict=True)
            if constant
        ]
        self._inputs = [
            (place.begin, place.end)
            for place in sorted(places, key=lambda place: place.number)
            if place.number != ID
        ]
        self._id = next(((each.begin, each.end) for each in places if each.number == ID), None)

    def cut(self, body: bytes) -> Contents | None:
        """The contents of a body, None if it does not have this layout."""
        if len(body) != self._size:
            return None
        for begin, end, constant in self._constants:
            if body[begin:end] != constant:
                return None
        request_id = ""
        if self._id is not None:
            begin, end = self._id
            found = body[begin:end]
            if not found.isascii():
                return None
            request_id = found.decode()
        return Contents(tuple([body[begin:end] for begin, end in self._inputs]), request_id)


class BinaryFiller(Filler):
    """Writes replies. frame: one reply. places: of its outputs, maybe of the id, in order."""

    __slots__ = ("_first", "_id_at", "_outputs", "_parts")

    def __init__(self, frame: bytes, places: list[Place]) -> None:
        constants = constants_between(frame, places)
        #: Constants, and empty parts for the contents between them.
        self._parts: list[bytes] = [b""] * (2 * len(places) + 1)
        self._parts[::2] = constants
        self._outputs = [
            (2 * at + 1, place.number) for at, place in enumerate(places) if place.number != ID
        ]
        self._id_at = next((2 * at + 1 for at, p in enumerate(places) if p.number == ID), 0)

    def fill(self, batch: PackedBatch, row: int, request_id: str) -> list[Buffer] | None:
        """The body frames of a reply."""
        parts = self._parts.copy()
        for at, number in self._outputs:
            parts[at] = batch.raw(number)[row]
        if self._id_at:
            parts[self._id_at] = request_id.encode()
        return [b"".join(parts)]


# ---------------------------------------------------------------- learn


def learn_binary(sample: Sample) -> BinaryCutter | None:
    """The layout of a request, None if it has none."""
    places = []
    for number, content in enumerate(sample.found.inputs):
        place = _find(sample, number, content)
        if place is None:
            return None
        places.append(place)
    if sample.found.request_id:
        place = _find(sample, ID, sample.found.request_id.encode())
        if place is None:
            return None
        places.append(place)
    places.sort()
    constant_bytes = len(sample.body) - sum(place.end - place.begin for place in places)
    if constant_bytes > CONSTANT_BYTES_MAX or not is_in_order(places):
        return None
    return BinaryCutter(sample.body, places)


def _find(sample: Sample, number: int, content: bytes) -> Place | None:
    """Where a content lies: other bytes there are decoded as just these bytes, and nothing else."""
    if number == ID and not content.isascii():
        return None
    others = (_flip_ascii,) if number == ID else (_invert, _scramble)
    for at in _occurrences(sample.body, content):
        if all(_is_there(sample, number, at, change(content)) for change in others):
            return Place(at, at + len(content), number)
    return None


def _is_there(sample: Sample, number: int, at: int, other: bytes) -> bool:
    inputs, request_id = sample.found
    if number == ID:
        expected = Contents(inputs, other.decode())
    else:
        expected = Contents((*inputs[:number], other, *inputs[number + 1 :]), request_id)
    return sample.decode(sample.body[:at] + other + sample.body[at + len(other) :]) == expected


def _flip_ascii(content: bytes) -> bytes:
    return bytes(byte ^ 0x1F for byte in content)


def _invert(content: bytes) -> bytes:
    """Other bytes, so that numbers of variable length (small ones have no high bit) show up."""
    return bytes(byte ^ 0xFF for byte in content)


def _scramble(content: bytes) -> bytes:
    """Other bytes, no two near ones changed alike, so that swapped bytes show up."""
    return bytes(byte ^ (1 + 7 * at % 255) for at, byte in enumerate(content))


def _occurrences(body: bytes, content: bytes) -> Iterator[int]:
    at = body.find(content)
    for _ in range(PLACES_MAX):
        if at < 0:
            return
        yield at
        at = body.find(content, at + 1)


def learn_binary_reply(sample: ReplySample) -> BinaryFiller | None:
    """What is constant in replies: where two that have no byte of contents in common are equal."""
    zeros, ones = _encode(sample, b"\x00", "0"), _encode(sample, b"\xff", "z")
    if zeros is None or ones is None or len(zeros) != len(ones):
        return None
    sizes = [(number, _bytes_of(sample, number)) for number in range(len(sample.form))]
    if sample.id_size:
        sizes.insert(0, (ID, sample.id_size))
    places = []
    at = 0
    for number, size in sizes:
        while at < len(zeros) and zeros[at] == ones[at]:
            at += 1
        low, high = (b"0", b"z") if number == ID else (b"\x00", b"\xff")
        if zeros[at : at + size] != low * size or ones[at : at + size] != high * size:
            return None
        places.append(Place(at, at + size, number))
        at += size
    if zeros[at:] != ones[at:]:
        return None
    if len(zeros) - sum(size for _, size in sizes) > CONSTANT_BYTES_MAX:
        return None
    return BinaryFiller(zeros, places)


def _bytes_of(sample: ReplySample, number: int) -> int:
    dtype, shape = sample.form[number]
    return dtype.itemsize * int(np.prod(shape, dtype=np.int64))


def _encode(sample: ReplySample, byte: bytes, letter: str) -> bytes | None:
    instance: Instance = tuple(
        np.frombuffer(byte * _bytes_of(sample, number), dtype).reshape(shape)
        for number, (dtype, shape) in enumerate(sample.form)
    )
    frames = sample.encode(instance, letter * sample.id_size)
    return frames[0] if frames is not None and len(frames) == 1 else None
