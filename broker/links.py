"""The links of a broker: workers of its host that come over a unix socket instead of ZeroMQ.

To the core they are peers like those of the ROUTER, with routing ids of their own kind. One
descriptor (epoll) stands for all of them, so a host waits for that and for the sockets.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from protocol.errors import RemoteProtocolError
from protocol.link_socket import RECEIVE_BYTES, LinkLostError, LinkSocket, listen
from telemetry.log import get_logger

log = get_logger("BROKER")

#: No peer of a ROUTER has such a routing id: those of libzmq have five bytes, and those that
#: a peer chooses for itself do not begin with a zero (zmq_setsockopt, ZMQ_ROUTING_ID).
_ID_PREFIX = b"\0link"

#: Connections that are taken in one look.
ACCEPTED_MAX = 64

#: What `accept` says when the process, or the system, has no more to give.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Who is told of what came, and of a link that is gone.
Receive = Callable[[bytes, list[Any], int], None]
Lose = Callable[[bytes], None]


class Links:
    """All links of one broker. Belongs to its host's thread.

    path: where it listens. Raises: OSError naming the path.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._listening = listen(path)
        self._epoll = select.epoll()
        self._epoll.register(self._listening.fileno(), select.EPOLLIN)
        self._spare = _open_spare()
        #: where all of them receive, one after the other
        self._space = memoryview(bytearray(RECEIVE_BYTES))
        self._links: dict[bytes, LinkSocket] = {}
        self._ids: dict[int, bytes] = {}
        self._count = 0

    def fileno(self) -> int:
        """What a host waits for."""
        return self._epoll.fileno()

    def __contains__(self, routing_id: bytes) -> bool:
        return routing_id in self._links

    def receive(self, receive: Receive, lose: Lose, now_ns: int) -> None:
        """Take what has come. What a link leaves over, its descriptor tells of again."""
        for descriptor, events in self._epoll.poll(0):
            routing_id = self._ids.get(descriptor)
            if routing_id is None:
                if descriptor == self._listening.fileno():
                    self._accept()
                continue
            link = self._links[routing_id]
            try:
                if events & select.EPOLLOUT:
                    link.send_rest()
                    self._watch(link)
                if events & ~select.EPOLLOUT:
                    for parts in link.receive():
                        receive(routing_id, parts, now_ns)
            except (RemoteProtocolError, LinkLostError) as error:
                if isinstance(error, RemoteProtocolError):
                    log.warning("link of a worker ended", error=str(error))
                self._end(routing_id)
                lose(routing_id)

    def send(self, routing_id: bytes, frames: list[Any]) -> None:
        """Send a message. That its worker is gone is found out by `receive`."""
        link = self._links[routing_id]
        had_unsent = link.has_unsent
        link.send(frames)
        if link.has_unsent != had_unsent:
            self._watch(link)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_MAX):
            try:
                connected, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # what became of one connection before it was accepted (accept(2))
                log.warning("a link was not accepted", error=str(error))
                self._turn_away()
                return
            self._add(connected)

    def _turn_away(self) -> None:
        """Descriptors have run out: close who waits, so that he does so where he pauses longer."""
        if self._spare is not None:
            os.close(self._spare)
        with suppress(OSError):
            self._listening.accept()[0].close()
        self._spare = _open_spare()

    def _add(self, connected: socket.socket) -> None:
        self._count += 1
        routing_id = _ID_PREFIX + self._count.to_bytes(8, "big")
        link = self._links[routing_id] = LinkSocket(connected, self._space)
        self._ids[link.fileno()] = routing_id
        self._epoll.register(link.fileno(), select.EPOLLIN)

    def _watch(self, link: LinkSocket) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if link.has_unsent else 0)
        self._epoll.modify(link.fileno(), events)

    def _end(self, routing_id: bytes) -> None:
        link = self._links.pop(routing_id)
        del self._ids[link.fileno()]
        self._epoll.unregister(link.fileno())
        link.close()

    def close(self) -> None:
        """End all links. Idempotent."""
        if self._epoll.closed:
            return
        for routing_id in list(self._links):
            self._end(routing_id)
        self._epoll.close()
        if self._spare is not None:
            os.close(self._spare)
        self._listening.close()
        Path(self._path).unlink(missing_ok=True)


def _open_spare() -> int | None:
    """A descriptor that is kept for the moment in which there are no others; None if it is now."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
