"""The RESTful door: HTTP/1.1, inside of the loop that runs anyway.

A connection hands over requests that are complete, a handler answers them, and its answer goes out
as it is. Malformed HTTP is answered by the connection itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from gateway.accepting import Acceptor, wait_lost
from gateway.addresses import AddressError, parse_rest_address
from gateway.content_coding import (
    INLINE_BYTES_MAX,
    PACKED_BYTES_MIN,
    accepted_coding,
    packed,
)
from gateway.doors import DoorError
from gateway.http_connection import HttpConnection
from gateway.http_forward import Forwarding, begin_exchange, with_keys
from gateway.http_messages import HttpAnswer, HttpHandler, HttpRequest
from gateway.http_service import Patience, RestService
from gateway.journal import Journal
from gateway.listening import listen_tcp
from gateway.off_loop import off_loop
from gateway.rest_router import METRICS_TARGET
from gateway.tls import TlsError, TlsSettings, rest_context
from protocol import limits

DEFAULT_PATIENCE = Patience()

_ACCEPT = b"accept"

#: Gives content type and text for the header `accept` of who asks.
Metrics = Callable[[str], Awaitable[tuple[str, bytes]]]


class RestDoor:
    """An open HTTP port. Make it with `open`, on the loop that serves it."""

    def __init__(
        self,
        service: RestService,
        connections: set[HttpConnection],
        acceptor: Acceptor,
        listener: socket.socket,
        address: str,
    ) -> None:
        self._service = service
        self._connections = connections
        self._acceptor = acceptor
        #: the socket that it listens with; another process may listen with a copy of it
        self.listener = listener
        #: where it listens, with the real port
        self.address = address

    @classmethod
    async def open(
        cls,
        handler: HttpHandler,
        address: str,
        max_msg_mb_size: int = limits.MESSAGE_MB_DEFAULT,
        tls: TlsSettings | None = None,
        patience: Patience = DEFAULT_PATIENCE,
        *,
        listener: socket.socket | None = None,
        journal: Journal | None = None,
        metrics: Metrics | None = None,
        packs_replies: bool = False,
    ) -> RestDoor:
        """Listen at `ip:port` or `host:port`; port 0 stands for any free one.

        max_msg_mb_size: MiB (1 to 512) that a body may have; the handler's limit must be the same.
        listener: a copy of another gateway's; both accept from one queue, so that nobody who has
        connected is lost when one of them closes. Ours from now on, whatever happens.
        journal: where its requests are entered; None = one of its own. metrics: answers
        `GET /metrics`; None = that is a request like any other. packs_replies: whether replies are
        compressed for clients that accept it.
        Raises: DoorError with MindSpore Serving's texts.
        """
        assert handler.body_bytes_max == max_msg_mb_size * limits.MIB, max_msg_mb_size
        try:
            where = parse_rest_address(address, zero_allowed=True)
            context = rest_context(tls) if tls else None
        except (AddressError, TlsError) as error:
            if listener is not None:
                listener.close()
            raise DoorError(str(error)) from None
        try:
            listener = listener or await listen_tcp(where)
        except (OSError, UnicodeError):
            raise DoorError(
                f"Serving Error: RESTful server start failed, bind to the socket address {address} "
                "failed"
            ) from None
        journal = journal or Journal()
        application = _Application(handler, journal, metrics, packs_replies)
        forwarding = None
        if handler.forwarder is not None and not packs_replies:
            forwarding = Forwarding(handler.forwarder, journal)
        service = RestService(application.answer, forwarding, handler.body_bytes_max, patience)
        connections: set[HttpConnection] = set()
        acceptor = Acceptor(listener, lambda: HttpConnection(service, connections), context)
        port = listener.getsockname()[1]
        return cls(service, connections, acceptor, listener, str(where._replace(port=port)))

    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def leave(self, idle_s: float) -> None:
        """Leave the clients to other gateways; `close` comes after that.

        idle_s: how long a connection that is kept alive may make one more request, whose reply
        tells its client that it ends; so no client finds it closed while it sends one.
        """
        self._service.is_leaving = True  # for those that are being accepted
        self._acceptor.close()
        for connection in list(self._connections):
            connection.end_after_next()
        await self._acceptor.wait_opened(idle_s)
        await wait_lost(self._connections, idle_s)

    async def close(self, grace_s: float) -> None:
        """Take no new connections, let running requests finish for `grace_s` seconds, then drop."""
        self._acceptor.close()
        for connection in list(self._connections):
            connection.shutdown()  # at once if it is idle, else after its reply
        await wait_lost(self._connections, grace_s)
        for task in list(self._acceptor.opening):
            task.cancel()
        for connection in list(self._connections):
            connection.abandon()
        await wait_lost(self._connections, None)


class _Application:
    """Enters requests into the journal, has the handler answer them, packs the answers."""

    def __init__(
        self,
        handler: HttpHandler,
        journal: Journal,
        metrics: Metrics | None,
        packs_replies: bool,
    ) -> None:
        self._handler = handler
        self._journal = journal
        self._metrics = metrics
        self._packs_replies = packs_replies

    async def answer(self, request: HttpRequest, client: object) -> HttpAnswer:
        """Answer one request of a client, whose address is given."""
        if request.target == METRICS_TARGET and request.verb == "GET" and self._metrics:
            return await self._answer_metrics(self._metrics, request)
        exchange = begin_exchange(self._journal, request, client)
        answer = None
        try:
            answer = await self._handler.handle(request)
            if self._packs_replies:
                answer = await _packed(answer, request)
        except asyncio.CancelledError:
            exchange.fail("cancelled")
            raise
        finally:
            if answer is None and not exchange.reason:
                exchange.fail("system_error")
            self._journal.end(exchange, 0 if answer is None else len(answer.body))
        return with_keys(answer, self._journal, exchange)

    async def _answer_metrics(self, metrics: Metrics, request: HttpRequest) -> HttpAnswer:
        accept = request.header(_ACCEPT) or b""
        content_type, text = await metrics(accept.decode("latin-1"))
        answer = HttpAnswer(200, text, (), content_type.encode())
        return await _packed(answer, request) if self._packs_replies else answer


async def _packed(answer: HttpAnswer, request: HttpRequest) -> HttpAnswer:
    """The answer as the client accepts it, compressed if that makes it smaller."""
    body = answer.body
    if len(body) < PACKED_BYTES_MIN:
        return answer
    coding = accepted_coding(request.header(b"accept-encoding"))
    varies = (*answer.headers, (b"vary", b"accept-encoding"))
    if coding is not None:
        if len(body) <= INLINE_BYTES_MAX:
            shorter = packed(body, coding)
        else:
            shorter = await off_loop(packed, body, coding)
        if len(shorter) < len(body):
            return answer._replace(body=shorter, headers=(*varies, (b"content-encoding", coding)))
    return answer._replace(headers=varies)
