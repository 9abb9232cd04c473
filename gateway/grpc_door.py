"""The gRPC door: MindSpore Serving's `MSService/Predict` and other RPCs, on our own HTTP/2.

Handlers get and give the bytes of the messages. The status of `Predict` is OK for all that the
application decides, other RPCs (`gateway.rpcs`) have gRPC's own codes; the door itself answers
RESOURCE_EXHAUSTED (message sizes), UNIMPLEMENTED (names that are no RPC) and DEADLINE_EXCEEDED.
"""

from __future__ import annotations

import socket

from gateway.accepting import Acceptor, wait_lost
from gateway.addresses import AddressError, TcpAddress, UnixAddress, parse_grpc_address
from gateway.doors import DoorError
from gateway.grpc_connection import GrpcConnection
from gateway.grpc_rpcs import PREDICT, GrpcService, PredictHandler
from gateway.journal import Journal
from gateway.listening import listen_tcp, listen_unix
from gateway.rpcs import NO_RPCS, Rpcs
from gateway.tls import TlsError, TlsSettings, grpc_context
from protocol import limits

__all__ = ("PREDICT", "GrpcDoor")


class GrpcDoor:
    """An open gRPC port (or unix socket). Make it with `open`, on the loop that serves it."""

    def __init__(
        self,
        connections: set[GrpcConnection],
        acceptor: Acceptor,
        listener: socket.socket,
        address: str,
    ) -> None:
        self._connections = connections
        self._acceptor = acceptor
        #: the socket that it listens with; another process may listen with a copy of it
        self.listener = listener
        #: where it listens, with the real port
        self.address = address

    @classmethod
    async def open(
        cls,
        handler: PredictHandler,
        address: str,
        max_msg_mb_size: int = limits.MESSAGE_MB_DEFAULT,
        tls: TlsSettings | None = None,
        *,
        rpcs: Rpcs = NO_RPCS,
        listener: socket.socket | None = None,
        unread_bytes_max: int = limits.UNREAD_BYTES_MAX,
        journal: Journal | None = None,
    ) -> GrpcDoor:
        """Listen at `ip:port`, `host:port` or `unix:path`; port 0 stands for any free one.

        max_msg_mb_size: MiB (1 to 512) that a message may have, received or sent.
        rpcs: what it speaks besides `Predict`.
        listener: a copy of another gateway's; both accept from one queue. Ours from now on,
        whatever happens.
        unread_bytes_max: of the replies that one connection has not taken yet.
        journal: where its calls are entered; None = one of its own.
        Raises: DoorError with MindSpore Serving's texts; also if a TLS file cannot be read.
        """
        assert limits.MESSAGE_MB_MIN <= max_msg_mb_size <= limits.MESSAGE_MB_MAX, max_msg_mb_size
        try:
            where = parse_grpc_address(address, zero_allowed=True)
            context = grpc_context(tls) if tls else None
        except (AddressError, OSError, TlsError) as error:
            if listener is not None:
                listener.close()
            text = _CREATE_FAILED.format(address=address)
            raise DoorError(text if isinstance(error, TlsError) else str(error)) from None
        try:
            if isinstance(where, UnixAddress):
                listener = listener or listen_unix(where.path)
            else:
                listener = listener or await listen_tcp(where)
        except (OSError, UnicodeError):
            raise DoorError(_CREATE_FAILED.format(address=address)) from None
        service = GrpcService(
            handler, rpcs, max_msg_mb_size * limits.MIB, unread_bytes_max, journal or Journal()
        )
        connections: set[GrpcConnection] = set()
        acceptor = Acceptor(listener, lambda: GrpcConnection(service, connections), context)
        if isinstance(where, TcpAddress):
            where = where._replace(port=listener.getsockname()[1])
        return cls(connections, acceptor, listener, str(where))

    def unread_bytes(self) -> int:
        """Bytes of replies that clients have not taken yet."""
        return sum(connection.unread_bytes() for connection in self._connections)

    async def close(self, grace_s: float) -> None:
        """Take no new calls, let running ones finish for `grace_s` seconds, then end them."""
        self._acceptor.close()
        for connection in list(self._connections):
            connection.leave(is_last_chance=True)
        await wait_lost(self._connections, grace_s)
        for task in list(self._acceptor.opening):
            task.cancel()
        for connection in list(self._connections):
            connection.abandon()
        await wait_lost(self._connections, None)

    async def leave(self, idle_s: float) -> None:
        """Leave the clients to other gateways at this address; `close` comes after that.

        Every client is told, and calls that it has sent by then are answered. idle_s: how long
        that may take.
        """
        self._acceptor.close()
        await self._acceptor.wait_opened(idle_s)
        for connection in list(self._connections):
            connection.leave()
        await wait_lost(self._connections, idle_s)


_CREATE_FAILED = (
    "Serving Error: Serving gRPC server start failed, create server failed, address {address}"
)
