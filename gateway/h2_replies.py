"""Replies of one gRPC connection on their way out, as far as the client's windows allow. Pure.

A reply that fits leaves as one piece: headers, message, trailers. What does not fit waits, and
calls that wait take turns.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway import h2_frames as frames
from gateway.h2_call import Call
from gateway.h2_frames import FRAME_HEAD, MESSAGE_HEAD, MESSAGE_HEAD_BYTES
from gateway.h2_headers import status_block
from protocol.native import Buffer

Piece = Buffer

#: What a call gets of a window before the next one has its turn.
PART_BYTES_MAX = 256 * 1024

#: What is handed to the writer before it is seen whether the client takes it.
ROUND_BYTES_MAX = 1024 * 1024

_REPLY_BLOCK = status_block(200)
_BEGIN = len(_REPLY_BLOCK)


class Replies:
    """What is sent on one connection. out: takes what is to be written, in its order."""

    def __init__(self, out: list[Piece]) -> None:
        self.out = out
        #: what the client takes in all, and of each new call, and of one frame
        self.window = frames.WINDOW_DEFAULT
        self.call_window = frames.WINDOW_DEFAULT
        self.frame_bytes_max = frames.FRAME_BYTES_MIN
        #: bytes that wait, of all calls
        self.unsent_bytes = 0
        #: nothing is to be written now: whoever writes has enough
        self.is_paused = False
        #: calls that wait for the connection's window only, or for their turn
        self._ready: dict[int, Call] = {}
        #: how many DATA frames were sent
        self.frames_sent = 0

    def send(self, call: Call, body: Buffer, end: bytes | None = None) -> None:
        """Send a message. end: the block of trailers, if it is the last one."""
        size = len(body) + MESSAGE_HEAD_BYTES
        stream = call.stream
        if (
            call.unsent
            or self.is_paused
            or size > self.frame_bytes_max
            or size > self.window
            or size > call.window
        ):
            self._queue(call, body)
            if end is not None:
                self.finish(call, end)
            return
        self.window -= size
        call.window -= size
        begin = b""
        if not call.has_begun:
            call.has_begun = True
            begin = FRAME_HEAD.pack(0, _BEGIN, frames.HEADERS, frames.END_HEADERS, stream)
            begin += _REPLY_BLOCK
        message = FRAME_HEAD.pack(size >> 16, size & 0xFFFF, frames.DATA, 0, stream)
        message_head = MESSAGE_HEAD.pack(0, size - MESSAGE_HEAD_BYTES)
        if end is None:
            self.out.append(b"".join((begin, message, message_head, body)))
        else:
            last = FRAME_HEAD.pack(0, len(end), frames.HEADERS, frames.END_FLAGS, stream)
            self.out.append(b"".join((begin, message, message_head, body, last, end)))
            call.end = end

    def finish(self, call: Call, end: bytes) -> None:
        """End a call, after what it has sent. end: the block of trailers."""
        call.end = end
        if not call.unsent:
            self._write_end(call)

    def drop(self, call: Call) -> None:
        """Nobody waits for what is unsent of a call."""
        self.unsent_bytes -= call.unsent_bytes
        call.unsent.clear()
        call.unsent_bytes = 0
        self._ready.pop(call.stream, None)

    def open_window(self, call: Call, size: int) -> None:
        """The client takes more of a call."""
        call.window += size
        if call.unsent and call.window > 0:
            self._ready[call.stream] = call

    def set_call_window(self, window: int, calls: Iterable[Call]) -> None:
        """The client changes what it takes of each call, also of these that are open."""
        for call in calls:
            self.open_window(call, window - self.call_window)
            if call.window <= 0:
                self._ready.pop(call.stream, None)
        self.call_window = window

    @property
    def can_go_on(self) -> bool:
        """Something waits, and nothing keeps it but that others had their turn."""
        return bool(self._ready) and self.window > 0 and not self.is_paused

    def go_on(self) -> list[Call]:
        """Send what the windows allow, up to `ROUND_BYTES_MAX`.

        Returns the calls of which nothing waits any more; those that have an end ended by it.
        """
        emptied: list[Call] = []
        left = ROUND_BYTES_MAX
        while left > 0 and self.can_go_on:
            call = self._ready.pop(next(iter(self._ready)))
            left -= self._send_part(call)
            if not call.unsent:
                if call.end is not None:
                    self._write_end(call)
                emptied.append(call)
            elif call.window > 0:
                self._ready[call.stream] = call  # behind all others
        return emptied

    def _queue(self, call: Call, body: Buffer) -> None:
        if not call.has_begun:
            call.has_begun = True
            self.out.append(
                frames.frame(frames.HEADERS, frames.END_HEADERS, call.stream, _REPLY_BLOCK)
            )
        call.unsent.append(memoryview(MESSAGE_HEAD.pack(0, len(body))))
        if body:
            call.unsent.append(memoryview(body))
        size = len(body) + MESSAGE_HEAD_BYTES
        call.unsent_bytes += size
        self.unsent_bytes += size
        if call.window > 0:
            self._ready[call.stream] = call

    def _send_part(self, call: Call) -> int:
        """One frame of what waits. Returns its size. REQUIRES: both windows are open."""
        size = min(call.unsent_bytes, call.window, self.window, self.frame_bytes_max)
        size = sent = min(size, PART_BYTES_MAX)
        self.frames_sent += 1
        self.out.append(FRAME_HEAD.pack(size >> 16, size & 0xFFFF, frames.DATA, 0, call.stream))
        self.window -= size
        call.window -= size
        call.unsent_bytes -= size
        self.unsent_bytes -= size
        while size:
            piece = call.unsent[0]
            if len(piece) > size:
                call.unsent[0] = piece[size:]
                piece = piece[:size]
            else:
                call.unsent.popleft()
            self.out.append(piece)
            size -= len(piece)
        return sent

    def _write_end(self, call: Call) -> None:
        assert call.end is not None
        block = call.end if call.has_begun else _REPLY_BLOCK + call.end
        call.has_begun = True
        self.out.append(frames.frame(frames.HEADERS, frames.END_FLAGS, call.stream, block))
