"""The link: messages of frames over a stream socket, for a broker and workers of its host. Pure.

ZeroMQ hands each message from a thread to a thread of its own, on both ends; a round trip over its
ipc takes three times as long as one over a bare unix socket, in which both ends wake up once
(decision 0017). What travels is the same: parcels, in messages of frames.

A message is, in the byte order of the host: the number of its frames (u32), the size of each
(u32), then the frames.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from protocol import limits
from protocol.errors import RemoteProtocolError
from protocol.native import Buffer

#: Of a message: a request per unit of credit, each with its head and its body frames.
FRAMES_MAX = limits.CREDIT_MAX * (1 + limits.BODY_FRAMES_MAX)

#: Frames of at least this size are views of what was received, smaller ones are copied out of it.
VIEW_BYTES_MIN = limits.TENSOR_INLINE_BYTES_MAX

_COUNT = struct.Struct("=I")
_NUMBER_BYTES = _COUNT.size


def size_of(frame: Any) -> int:
    """The bytes of a frame: bytes, a view, or a `zmq.Frame`."""
    return len(frame) if type(frame) is bytes else memoryview(frame).nbytes


def message_head(frames: Sequence[Any]) -> bytes:
    """What a message begins with. REQUIRES: as many frames as a message may have."""
    numbers = array("I", map(size_of, frames))
    assert 0 < len(numbers) <= FRAMES_MAX, len(numbers)
    numbers.insert(0, len(numbers))
    return numbers.tobytes()


class LinkReader:
    """Puts together the messages of one connection from the pieces that arrive.

    A large message is received in place: while `room` is there, the next bytes go into it.
    """

    def __init__(self) -> None:
        self._rest = b""
        #: of a large message: where its frames go, and how much of it is there
        self._space: memoryview | None = None
        self._filled = 0
        self._sizes: Sequence[int] = ()

    @property
    def room(self) -> memoryview | None:
        """Where what comes next is wanted; None: anywhere, and then it goes to `take`."""
        return None if self._space is None else self._space[self._filled :]

    @property
    def is_within_message(self) -> bool:
        """A message has begun and is not whole."""
        return self._space is not None or bool(self._rest)

    def fill(self, size: int) -> list[Buffer] | None:
        """So many bytes were received into `room`. Returns the message once it is whole."""
        assert self._space is not None
        self._filled += size
        if self._filled < len(self._space):
            return None
        parts = _cut(self._space, self._sizes)
        self._space = None
        return parts

    def take(self, chunk: bytes) -> list[list[Buffer]]:
        """Take bytes that were received. Returns the messages that are whole by them.

        Raises: RemoteProtocolError if a message has no frames, or too many or too large ones.
        """
        data = self._rest + chunk if self._rest else chunk
        at, end = 0, len(data)
        messages: list[list[Buffer]] = []
        while end - at >= _NUMBER_BYTES:
            count = _COUNT.unpack_from(data, at)[0]
            if not 0 < count <= FRAMES_MAX:
                raise RemoteProtocolError(
                    f"message of {count} frames: at least 1, at most {FRAMES_MAX}"
                )
            begin = at + _NUMBER_BYTES * (1 + count)
            if begin > end:
                break
            sizes = memoryview(data)[at + _NUMBER_BYTES : begin].cast("I").tolist()
            stop = begin + sum(sizes)
            if stop > end:
                if max(sizes) > limits.BODY_BYTES_MAX:
                    text = f"frame of {max(sizes)} B exceeds body_bytes_max {limits.BODY_BYTES_MAX}"
                    raise RemoteProtocolError(text)
                if stop - end >= VIEW_BYTES_MIN:
                    self._make_room(data[begin:], sizes, stop - begin)
                    at = end
                break
            parts: list[Buffer] = []
            for size in sizes:
                parts.append(data[begin : begin + size])
                begin += size
            messages.append(parts)
            at = stop
        self._rest = data[at:]
        return messages

    def _make_room(self, begun: bytes, sizes: Sequence[int], size: int) -> None:
        space = np.empty(size, np.uint8).data  # not zeroed, it is overwritten
        space[: len(begun)] = begun
        self._space, self._filled, self._sizes = space, len(begun), sizes


def _cut(space: memoryview, sizes: Sequence[int]) -> list[Buffer]:
    parts: list[Buffer] = []
    at = 0
    for size in sizes:
        part = space[at : at + size]
        parts.append(part if size >= VIEW_BYTES_MIN else bytes(part))
        at += size
    return parts
