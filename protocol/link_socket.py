"""One end of a link: a connected stream socket, and the messages that go through it."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from protocol.link import VIEW_BYTES_MIN, LinkReader, message_head, size_of
from protocol.native import Buffer

#: What one look takes from the kernel at most; its buffer of a unix socket has as much by default.
RECEIVE_BYTES = 256 * 1024

#: Buffers that `sendmsg` takes at once (IOV_MAX on Linux).
PIECES_MAX = 1_000

#: Workers that connect at the same moment; after a broker's restart all of them do.
CONNECTIONS_MAX = 512


class LinkLostError(Exception):
    """The other end is gone."""


class LinkSocket:
    """A connected, non-blocking unix socket; it belongs to one thread at a time.

    space: where it receives, at least for the moment; None = space of its own.
    """

    def __init__(self, connected: socket.socket, space: memoryview | None = None) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._reader = LinkReader()
        self._view = memoryview(bytearray(RECEIVE_BYTES)) if space is None else space
        self._unsent: deque[memoryview] = deque()
        self._is_cut = False

    @classmethod
    def connect(cls, path: str) -> LinkSocket:
        """Connect to a broker of this host. Raises OSError if none listens there."""
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connecting.connect(path)
        except OSError:
            connecting.close()
            raise
        return cls(connecting)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Something waits for the descriptor to become writable; then call `send_rest`."""
        return bool(self._unsent)

    def send(self, frames: Sequence[Any]) -> None:
        """Send a message; what the kernel does not take now waits here.

        frames: bytes, views or `zmq.Frame`s; they are not changed before they have left. If the
        other end is gone they are dropped; `receive` tells so, after what that end said last.
        """
        if self._is_cut:
            return
        head = message_head(frames)
        if not self._unsent and sum(map(size_of, frames)) < VIEW_BYTES_MIN:
            message = b"".join((head, *map(_as_bytes, frames)))
            try:
                sent = self._socket.send(message)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._cut()
                return
            if sent < len(message):
                self._unsent.append(memoryview(message)[sent:])
            return
        had_unsent = bool(self._unsent)
        self._unsent.extend(map(_view, (head, *frames)))
        if not had_unsent:
            self.send_rest()

    def send_rest(self) -> None:
        """Send what waits, as far as it goes."""
        unsent = self._unsent
        while unsent:
            try:
                sent = self._socket.sendmsg(list(islice(unsent, PIECES_MAX)))
            except BlockingIOError:
                return
            except OSError:
                self._cut()
                return
            while sent:
                piece = unsent[0]
                if len(piece) > sent:
                    unsent[0] = piece[sent:]
                    break
                sent -= len(piece)
                unsent.popleft()
            while unsent and not len(unsent[0]):
                unsent.popleft()

    def _cut(self) -> None:
        self._is_cut = True
        self._unsent.clear()

    @property
    def is_within_message(self) -> bool:
        """A message has begun to come and is not whole."""
        return self._reader.is_within_message

    def receive(self) -> list[list[Buffer]]:
        """The messages that are whole by what has come, one look at the kernel's buffer.

        A frame of 64 KiB and more may be a view. Raises LinkLostError, RemoteProtocolError.
        """
        room = self._reader.room
        try:
            size = self._socket.recv_into(self._view if room is None else room)
        except BlockingIOError:
            return []
        except OSError as error:
            raise LinkLostError(str(error)) from None
        if not size:
            raise LinkLostError("the other end closed it")
        if room is None:
            return self._reader.take(bytes(self._view[:size]))
        message = self._reader.fill(size)
        return [] if message is None else [message]

    def close(self) -> None:
        """Close the connection; what is unsent is dropped, what was sent arrives."""
        self._socket.close()


def listen(path: str) -> socket.socket:
    """A socket that listens for links, for its owner only. Raises OSError naming the path."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        Path(path).unlink(missing_ok=True)
        listening.bind(path)
        Path(path).chmod(0o600)
        listening.listen(CONNECTIONS_MAX)
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen at {path}: {error}") from None
    listening.setblocking(False)
    return listening


def _view(frame: Any) -> memoryview:
    view = memoryview(frame)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _as_bytes(frame: Any) -> Any:
    return frame if type(frame) is bytes else memoryview(frame)
