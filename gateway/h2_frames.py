"""Frames of HTTP/2 (RFC 9113): their numbers, and how ours are written. Pure."""

from __future__ import annotations

import struct

#: What every client sends first.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: Length (high byte, low bytes), kind, flags, stream.
FRAME_HEAD = struct.Struct("!BHBBI")
FRAME_HEAD_BYTES = FRAME_HEAD.size
NUMBER = struct.Struct("!I")
SETTING = struct.Struct("!HI")
#: gRPC puts in front of each message whether it is compressed, and its length.
MESSAGE_HEAD = struct.Struct("!BI")
MESSAGE_HEAD_BYTES = MESSAGE_HEAD.size

DATA = 0
HEADERS = 1
PRIORITY = 2
RST_STREAM = 3
SETTINGS = 4
PUSH_PROMISE = 5
PING = 6
GOAWAY = 7
WINDOW_UPDATE = 8
CONTINUATION = 9

END_STREAM = 1
ACK = 1
END_HEADERS = 4
END_FLAGS = END_STREAM | END_HEADERS
PADDED = 8
HAS_PRIORITY = 32

SETTING_CALLS_MAX = 3
SETTING_WINDOW = 4
SETTING_FRAME_BYTES_MAX = 5
SETTING_HEADERS_BYTES_MAX = 6

NO_ERROR = 0
PROTOCOL_ERROR = 1
FLOW_CONTROL_ERROR = 3
STREAM_CLOSED = 5
FRAME_SIZE_ERROR = 6
REFUSED_STREAM = 7
CANCEL = 8
COMPRESSION_ERROR = 9
ENHANCE_YOUR_CALM = 11

#: Of streams and connections, before anybody says something else.
WINDOW_DEFAULT = 65_535
WINDOW_MAX = 2**31 - 1
FRAME_BYTES_MIN = 16_384
FRAME_BYTES_MAX = 2**24 - 1

#: The stream's number has 31 bits.
STREAM_MASK = 2**31 - 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return FRAME_HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join([SETTING.pack(*each) for each in values.items()]))


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, NUMBER.pack(code))


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, NUMBER.pack(size))


def goaway(last_stream: int, code: int, text: str = "") -> bytes:
    """A GOAWAY frame."""
    payload = NUMBER.pack(last_stream) + NUMBER.pack(code) + text.encode()[:200]
    return frame(GOAWAY, 0, 0, payload)


SETTINGS_ACK = frame(SETTINGS, ACK, 0)
