"""The listening end of a door: connections out of the kernel's queue, into the event loop.

uvloop accepts one connection in a turn of the loop, however many wait. Under ten times the load
that can be served a turn answers hundreds of requests, and who has just connected waits for as many
turns as others connected before it: seconds. Here a turn accepts several; and who is accepted, but
not yet a connection that its protocol knows of (TLS shakes hands), is known as well.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from telemetry.log import get_logger

log = get_logger("GATEWAY")

#: Connections that are accepted in one turn of the loop; other gateways at the same queue take
#: theirs meanwhile.
ACCEPTS_PER_TURN = 32

#: Nothing is accepted for so long once there are no descriptors for it; asyncio waits as long.
EXHAUSTED_S = 1.0

#: At most one line about that in this time.
EXHAUSTED_LOG_S = 60.0

#: How long the end of a TLS connection may take to leave, with the reply in front of it.
SHUTDOWN_S = 100.0

#: A peer that is gone without a word, by power or network, is noticed within two minutes while
#: nothing is sent, and within 100 s of what it does not acknowledge.
_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100_000),
)

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Closing(Protocol):
    """A connection that says when it is closed."""

    lost: asyncio.Future[None]


async def wait_lost(connections: Iterable[Closing], timeout_s: float | None) -> None:
    """Wait until all these connections are closed; not longer than so many seconds."""
    lost = [connection.lost for connection in connections]
    if lost:
        await asyncio.wait(lost, timeout=timeout_s)


class Acceptor:
    """Accepts from a listening socket until it is closed. Belongs to the running event loop."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], Any],
        context: ssl.SSLContext | None = None,
    ) -> None:
        """listener: non-blocking; ours to close. context: of connections with TLS.

        make_protocol: what it makes has the methods of an `asyncio.Protocol`; it does not inherit
        from that, which compiled classes cannot.
        """
        self._listener = listener
        self._make_protocol = make_protocol
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._log_due_s = 0.0
        #: those that are accepted and whose protocols do not know of them yet
        self.opening: set[asyncio.Task[None]] = set()
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept no more: who waits in the queue is left to whoever has a copy. Idempotent."""
        if self._listener.fileno() < 0:
            return
        self._loop.remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()
        self._listener.close()

    async def wait_opened(self, timeout_s: float) -> None:
        """Wait until everybody who was accepted is known to a protocol, or is gone."""
        if self.opening:
            await asyncio.wait(self.opening, timeout=timeout_s)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # what became of one connection before it was accepted (accept(2))
                self._pause(error)
                return
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                for level, name, value in _OPTIONS:
                    connection.setsockopt(level, name, value)
            task = self._loop.create_task(self._open(connection))
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            if self._context is None:
                await self._loop.connect_accepted_socket(self._make_protocol, connection)
            else:
                await self._loop.connect_accepted_socket(
                    self._make_protocol,
                    connection,
                    ssl=self._context,
                    ssl_shutdown_timeout=SHUTDOWN_S,
                )
        except OSError:  # no handshake came about, which TLS has told
            connection.close()

    def _pause(self, error: OSError) -> None:
        """The queue stays readable: without a pause the loop would do nothing but try."""
        self._loop.remove_reader(self._listener)
        self._retry = self._loop.call_later(EXHAUSTED_S, self._resume)
        if self._loop.time() >= self._log_due_s:
            self._log_due_s = self._loop.time() + EXHAUSTED_LOG_S
            log.warning("connections wait, for they cannot be accepted", error=str(error))

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener, self._accept)
