"""How a connection is left without losing a call (RFC 9113, 6.8). Pure.

A first GOAWAY tells the client to open no more calls here. Those that were on their way are
answered: only when the pings behind it have come back are there no more of them, and the last
GOAWAY may say which call was the last one. One ping is too few: gRPC's C core writes its answer in
front of the headers of calls that it had begun by then.
"""

from __future__ import annotations

from gateway import h2_frames as frames

PINGS = 2

_PAYLOAD = b"MindBus!"
_PING = frames.frame(frames.PING, 0, 0, _PAYLOAD)


class Farewell:
    """The end of one connection."""

    __slots__ = ("_pings_left", "is_said")

    def __init__(self) -> None:
        self._pings_left = 0
        #: the client was told which call was the last one
        self.is_said = False

    def begin(self) -> bytes:
        """What to say first."""
        self._pings_left = PINGS
        return frames.goaway(frames.STREAM_MASK, frames.NO_ERROR) + _PING

    def take_answer(self, payload: bytes, last_stream: int) -> bytes:
        """A ping was answered, perhaps another one. Returns what to say then."""
        if payload != _PAYLOAD or not self._pings_left:
            return b""
        self._pings_left -= 1
        if self._pings_left:
            return _PING
        self.is_said = True
        return frames.goaway(last_stream, frames.NO_ERROR)
