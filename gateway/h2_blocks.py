"""Header blocks put together from HEADERS and CONTINUATION frames. Pure."""

from __future__ import annotations

from gateway import h2_frames as frames
from gateway.h2_errors import Http2Error

#: Bytes of a header block before it is read; what it decodes to has a limit of its own.
BLOCK_BYTES_MAX = 32 * 1024


class Blocks:
    """Those of one connection; one is complete before anything else may come."""

    __slots__ = ("_block", "_flags", "_stream", "is_open")

    def __init__(self) -> None:
        #: a block goes on: nothing but a CONTINUATION may come
        self.is_open = False
        self._stream = 0
        self._flags = 0
        self._block = bytearray()

    def begin(self, stream: int, flags: int, payload: bytes) -> bytes | None:
        """Take a HEADERS frame. Returns its block, None if that goes on. Raises Http2Error."""
        begin, end = 0, len(payload)
        if flags & frames.PADDED:
            if not payload or payload[0] >= end:
                raise Http2Error(frames.PROTOCOL_ERROR, "padding exceeds its frame")
            begin, end = 1, end - payload[0]
        if flags & frames.HAS_PRIORITY:
            begin += 5
        if begin > end:
            raise Http2Error(frames.FRAME_SIZE_ERROR, "HEADERS without its priority")
        block = payload[begin:end]
        _check_size(len(block))
        if flags & frames.END_HEADERS:
            return block
        self.is_open = True
        self._stream, self._flags, self._block = stream, flags, bytearray(block)
        return None

    def go_on(self, stream: int, flags: int, payload: bytes) -> tuple[int, bytes] | None:
        """Take a CONTINUATION frame. Returns the flags of HEADERS and the block, once it is whole.

        Raises: Http2Error.
        """
        if not self.is_open or stream != self._stream:
            raise Http2Error(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._block += payload
        _check_size(len(self._block))
        if not flags & frames.END_HEADERS:
            return None
        self.is_open = False
        return self._flags, bytes(self._block)


def _check_size(size: int) -> None:
    if size > BLOCK_BYTES_MAX:
        text = f"header block of {size} B exceeds {BLOCK_BYTES_MAX}"
        raise Http2Error(frames.ENHANCE_YOUR_CALM, text)
