"""Layouts of dialects that are JSON: their tensors are arrays of numbers, as long as they may be.

JSON is read from left to right. Where the bytes before an array are the same, the array has the
same place in the document; and if what follows up to the first `]` (`]]` of an array of arrays) is
an array of numbers by itself, it is one there. So bodies that are equal between their arrays differ
in nothing else.
"""

from __future__ import annotations

import math
import re
import struct
from itertools import chain
from typing import Any

import numpy as np
import orjson

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
from protocol.packed import JsonStyle, PackedBatch
from protocol.values import Instance

#: What may begin with an array of numbers, or of such arrays. Possessive: a run is looked at once.
_RUN = re.compile(rb"\[[\[\]\s0-9,.eE+-]*+")

#: How numbers are laid down as the dtypes that a layout may have.
_CODES = {
    "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
    "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip

#: Integers that a double holds; beyond, an integer and a double are not rounded to the same float.
_EXACT_MAX = 1 << 53

_LISTS = {list}
_FLOATS = {float}
_INTEGERS = {int}
_BOTH = {float, int}

_SAMPLE_ID = "~mindbus~id~"


class Numbers:
    """How the numbers of one input become bytes.

    dims: of its array as the client writes it.
    """

    __slots__ = ("_dims", "_has_floats", "_is_strict", "_pack", "closing")

    def __init__(self, dtype: np.dtype[Any], dims: tuple[int, ...], is_strict: bool) -> None:
        #: What the array ends with, and does not have before.
        self.closing = b"]" * len(dims)
        self._dims = dims
        self._is_strict = is_strict
        self._has_floats = dtype.kind == "f"
        self._pack = struct.Struct(f"<{math.prod(dims)}{_CODES[dtype.name]}").pack

    def pack(self, array: bytes) -> bytes | None:
        """The content that a JSON array of numbers has; None where the dialect has to say."""
        try:
            numbers = orjson.loads(array)
            for length in self._dims[1:]:
                if set(map(type, numbers)) != _LISTS or set(map(len, numbers)) != {length}:
                    return None
                numbers = list(chain.from_iterable(numbers))
            kinds = set(map(type, numbers))
            if self._has_floats:
                if kinds != _FLOATS and not self._is_exact(kinds, numbers):
                    return None
            elif kinds != _INTEGERS:
                return None
            packed: bytes = self._pack(*numbers)
        except (orjson.JSONDecodeError, struct.error, OverflowError):
            return None
        return packed

    def _is_exact(self, kinds: set[type], numbers: list[Any]) -> bool:
        """Integers among floats, or instead of them, that are meant as such."""
        if self._is_strict:
            return False
        if kinds == _BOTH:
            return True
        return kinds == _INTEGERS and min(numbers) >= -_EXACT_MAX and max(numbers) <= _EXACT_MAX

    def other(self) -> tuple[bytes, bytes]:
        """An array that no client would send, and its content."""
        numbers = np.full(self._dims, 77.5 if self._has_floats else 77)
        return orjson.dumps(numbers.tolist()), self._pack(*numbers.reshape(-1).tolist())


class JsonCutter(Cutter):
    """Cuts bodies. places: of all inputs, maybe of the id, in their order."""

    __slots__ = ("_contents", "_count", "_last", "_steps")

    def __init__(self, body: bytes, places: list[Place], numbers: list[Numbers]) -> None:
        *before, self._last = constants_between(body, places)
        #: The bytes before each content, what it is, and how it is read if it is of an input.
        self._steps = [
            (
                constant,
                len(constant),
                place.number,
                None if place.number == ID else numbers[place.number],
            )
            for constant, place in zip(before, places, strict=True)
        ]
        self._count = len(numbers)

    def cut(self, body: bytes) -> Contents | None:
        """The contents of a body, None if it does not have this layout."""
        at = 0
        request_id = ""
        inputs = [b""] * self._count
        for constant, size, number, numbers in self._steps:
            if not body.startswith(constant, at):
                return None
            at += size
            if numbers is None:
                end = body.find(b'"', at)
                found = _plain_text(body[at:end]) if end >= 0 else None
                if found is None:
                    return None
                request_id, at = found, end
                continue
            end = body.find(numbers.closing, at)
            if end < 0:
                return None
            end += len(numbers.closing)
            content = numbers.pack(body[at:end])
            if content is None:
                return None
            inputs[number], at = content, end
        return Contents(tuple(inputs), request_id) if body[at:] == self._last else None


def _plain_text(raw: bytes) -> str | None:
    """A text as it stands between quotes; None if it is empty, or not the same without them."""
    if not raw.isascii() or b"\\" in raw:
        return None
    text = raw.decode()
    return text if text and text.isprintable() else None


class JsonFiller(Filler):
    """Writes replies. frames: of one reply; the last one has the places, in their order."""

    __slots__ = ("_others", "_parts", "_places", "_style")

    def __init__(self, frames: list[bytes], places: list[Place], style: JsonStyle) -> None:
        self._others = frames[:-1]
        self._parts: list[bytes] = [b""] * (2 * len(places) + 1)
        self._parts[::2] = constants_between(frames[-1], places)
        self._places = [(2 * at + 1, place.number) for at, place in enumerate(places)]
        self._style = style

    def fill(self, batch: PackedBatch, row: int, request_id: str) -> list[Buffer] | None:
        """The body frames of a reply, None if an output has something that is no number."""
        parts = self._parts.copy()
        for at, number in self._places:
            if number == ID:
                parts[at] = request_id.encode()
                continue
            texts = batch.texts(number, self._style)
            if texts is None:
                return None
            parts[at] = texts[row]
        return [*self._others, b"".join(parts)]


# ---------------------------------------------------------------- learn


def learn_json(sample: Sample, style: JsonStyle) -> JsonCutter | None:
    """The layout of a request, None if it has none."""
    numbers = []
    places = []
    for number, dtype in enumerate(sample.dtypes):
        if dtype.name not in _CODES:
            return None
        found = _find_array(sample, number, dtype, style)
        if found is None:
            return None
        places.append(found[0])
        numbers.append(found[1])
    if sample.found.request_id:
        place = _find_id(sample)
        if place is None:
            return None
        places.append(place)
    places.sort()
    constant_bytes = len(sample.body) - sum(place.end - place.begin for place in places)
    if constant_bytes > CONSTANT_BYTES_MAX or not is_in_order(places):
        return None
    cutter = JsonCutter(sample.body, places, numbers)
    return cutter if cutter.cut(sample.body) == sample.found else None


def _find_array(
    sample: Sample, number: int, dtype: np.dtype[Any], style: JsonStyle
) -> tuple[Place, Numbers] | None:
    """Where an input's array is: with another array there, just this input is another one."""
    inputs, request_id = sample.found
    count = len(inputs[number]) // dtype.itemsize
    tried = 0
    for match in _RUN.finditer(sample.body):
        begin, end = match.start(), match.start() + match[0].rfind(b"]") + 1
        dims = _dims_of(sample.body[begin:end])
        if math.prod(dims) != count:
            continue
        numbers = Numbers(dtype, dims, style.is_strict)
        array, content = numbers.other()
        if len(array) == end - begin:
            array += b" "  # so that who has counted the bytes refuses it: arrays have any length
        expected = Contents((*inputs[:number], content, *inputs[number + 1 :]), request_id)
        if sample.decode(sample.body[:begin] + array + sample.body[end:]) == expected:
            return Place(begin, end, number), numbers
        tried += 1
        if tried == PLACES_MAX:
            break
    return None


def _dims_of(array: bytes) -> tuple[int, ...]:
    """The lengths on the way down to the first number; (0,) if it is no array."""
    dims = []
    try:
        item = orjson.loads(array)
    except orjson.JSONDecodeError:
        return (0,)
    while isinstance(item, list) and item:
        dims.append(len(item))
        item = item[0]
    return tuple(dims) if type(item) in _BOTH else (0,)


def _find_id(sample: Sample) -> Place | None:
    inputs, request_id = sample.found
    expected = Contents(inputs, _SAMPLE_ID)
    if not request_id.isascii():
        return None
    quoted = b'"' + request_id.encode() + b'"'
    at = sample.body.find(quoted)
    for _ in range(PLACES_MAX):
        if at < 0:
            return None
        begin, end = at + 1, at + len(quoted) - 1
        body = sample.body[:begin] + _SAMPLE_ID.encode() + sample.body[end:]
        if sample.decode(body) == expected:
            return Place(begin, end, ID)
        at = sample.body.find(quoted, at + 1)
    return None


def learn_json_reply(sample: ReplySample, style: JsonStyle) -> JsonFiller | None:
    """What is constant in replies: all but what was given, which must be there just once."""
    arrays = [
        np.full((1, *shape), 77.5 + number if dtype.kind == "f" else 77 + number % 50, dtype)
        for number, (dtype, shape) in enumerate(sample.form)
    ]
    batch = PackedBatch(arrays)
    instance: Instance = batch.instance(0)
    frames = sample.encode(instance, _SAMPLE_ID if sample.id_size else "")
    if not frames or len(frames[-1]) > BODY_BYTES_MAX:
        return None
    contents: list[tuple[int, bytes]] = []
    for number in range(len(arrays)):
        texts = batch.texts(number, style)
        if texts is None:
            return None
        contents.append((number, texts[0]))
    if sample.id_size:
        contents.append((ID, _SAMPLE_ID.encode()))
    text = frames[-1]
    places = []
    for number, content in contents:
        if text.count(content) != 1:
            return None
        begin = text.index(content)
        places.append(Place(begin, begin + len(content), number))
    places.sort()
    if not is_in_order(places):
        return None
    return JsonFiller(frames, places, style)


#: Replies above this size are encoded by the dialect.
BODY_BYTES_MAX = 64 * 1024
