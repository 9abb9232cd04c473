"""Frames of one message in and out of a ZeroMQ socket, with as little per frame as there can be.

A message of many small parcels has two frames for each request, so what a frame costs is paid twice
per request and hop: `send_multipart` and `recv_multipart` with flags that are enums take 4.8 µs for
a request, these take 0.6 and 1.8 µs (pyzmq 27, both directions over inproc). Flags are plain
integers here, nothing is checked that the caller has made itself, and a received frame knows
whether there are more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zmq
from zmq.backend import Socket as _Backend

from protocol import head as heads

Again = zmq.Again

_NOW = int(zmq.DONTWAIT)
_NOW_AND_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)

_FIXED_BYTES: int = heads.FIXED_BYTES
_MAGIC: bytes = heads.MAGIC
_BODY_FRAMES_AT: int = heads.BODY_FRAMES_OFFSET
_FLAGS_AT: int = heads.FLAGS_LOW_BYTE
_LARGE: int = heads.FLAG_BODY_LARGE

# What zmq.Socket puts around these looks for options that no socket of ours has.
_send, _recv, _get = _Backend.send, _Backend.recv, _Backend.get

#: `zmq.POLLIN` and `zmq.POLLOUT`, to be compared with `events_of`.
IN, OUT = int(zmq.POLLIN), int(zmq.POLLOUT)


def events_of(socket: zmq.Socket[bytes]) -> int:
    """What a socket is ready for, `IN` and `OUT`; asking takes the edge off its descriptor."""
    return int(_get(socket, _EVENTS))


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[Any], is_copied: bool = True) -> None:
    """Send one message, now or not at all. is_copied: False lends large frames to ZeroMQ.

    Raises: zmq.Again if it cannot go now, zmq.ZMQError (EHOSTUNREACH) if its peer is gone.
    """
    last = len(frames) - 1
    if last:
        for at in range(last):
            _send(socket, frames[at], _NOW_AND_MORE, is_copied)
    _send(socket, frames[last], _NOW, is_copied)


def receive_frames(socket: zmq.Socket[bytes], has_address: bool = False) -> list[Any]:
    """One message: bytes, but body frames behind a head with BODY_LARGE are `zmq.Frame`s.

    Heads are looked for where they can be: first, behind the envelope of a REQ socket, and behind
    the body frames that the head before promised. has_address: the first frame is the address of
    the peer. Raises: zmq.Again if there is none.
    """
    frame = _recv(socket, _NOW, False)
    parts: list[Any] = []
    if has_address:
        parts.append(frame.bytes)
        if not frame.more:
            return parts
        frame = _recv(socket, 0, False)
    body_frames = 0
    is_large = is_envelope = False
    is_first = True
    while True:
        if body_frames:
            parts.append(frame if is_large else frame.bytes)
            body_frames -= 1
        else:
            part = frame.bytes
            parts.append(part)
            if is_envelope:
                is_envelope = len(part) > 0
            elif len(part) >= _FIXED_BYTES and part[:2] == _MAGIC:
                body_frames = part[_BODY_FRAMES_AT]
                is_large = part[_FLAGS_AT] & _LARGE != 0
            elif is_first:
                is_envelope = len(part) > 0
            is_first = False
        if not frame.more:
            return parts
        frame = _recv(socket, 0, False)
