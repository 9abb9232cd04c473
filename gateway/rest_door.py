"""The RESTful door: HTTP/1.1 by uvicorn and httptools, inside of the loop that runs anyway.

The door reads a request's whole body, keeps it only up to the limit, and hands the request to a
handler, whose answer goes out as it is. Malformed HTTP is answered by the connection itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import uvicorn

from gateway.accepting import Acceptor
from gateway.addresses import AddressError, TcpAddress, parse_rest_address
from gateway.content_coding import (
    INLINE_BYTES_MAX,
    PACKED_BYTES_MIN,
    accepted_coding,
    packed,
)
from gateway.doors import DoorError
from gateway.exchange import Exchange
from gateway.http_connection import HttpConnection, Patience
from gateway.http_messages import Header, HttpAnswer, HttpHandler, HttpRequest
from gateway.journal import REQUEST_ID_KEY, TRACE_KEY, Journal
from gateway.off_loop import off_loop
from gateway.requests import IDEMPOTENCY_KEY, PRIORITY_KEY
from gateway.rest_router import METRICS_TARGET
from gateway.tls import TlsError, TlsSettings, rest_context
from protocol import limits

#: Connections that wait to be accepted.
BACKLOG = 2048

DEFAULT_PATIENCE = Patience()

_REQUEST_ID = REQUEST_ID_KEY.encode()
_TRACE = TRACE_KEY.encode()
_PRIORITY = PRIORITY_KEY.encode()
_IDEMPOTENCY = IDEMPOTENCY_KEY.encode()
#: Headers that say something of any request.
_GIVEN = frozenset((_REQUEST_ID, _TRACE, _PRIORITY, _IDEMPOTENCY))
_ACCEPT = b"accept"

#: Gives content type and text for the header `accept` of who asks.
Metrics = Callable[[str], Awaitable[tuple[str, bytes]]]


class RestDoor:
    """An open HTTP port. Make it with `open`, on the loop that serves it."""

    def __init__(
        self, server: uvicorn.Server, acceptor: Acceptor, listener: socket.socket, address: str
    ) -> None:
        self._server = server
        self._acceptor = acceptor
        self._clock = asyncio.create_task(self._keep_date())
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
        listener = listener or await _listen(where, address)
        application = _Application(handler, journal or Journal(), metrics, packs_replies)
        server = uvicorn.Server(_settings(application, patience))
        server.config.load()
        make_connection = partial(
            HttpConnection,
            config=server.config,
            server_state=server.server_state,
            app_state={},
            patience=patience,
        )
        port = listener.getsockname()[1]
        acceptor = Acceptor(listener, make_connection, context)
        return cls(server, acceptor, listener, str(where._replace(port=port)))

    async def _keep_date(self) -> None:
        # uvicorn's main loop does the same, besides waiting for signals that are not its own here.
        while True:
            await self._server.on_tick(0)
            await asyncio.sleep(1)

    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._server.server_state.connections)

    async def leave(self, idle_s: float) -> None:
        """Leave the clients to other gateways; `close` comes after that.

        idle_s: how long a connection that is kept alive may make one more request, whose reply
        tells its client that it ends; so no client finds it closed while it sends one.
        """
        state: Any = self._server.server_state
        state.is_leaving = True  # for those that are being accepted
        self._acceptor.close()
        for connection in list(state.connections):
            connection.end_after_next()
        await self._acceptor.wait_opened(idle_s)
        await _wait_lost(state.connections, idle_s)

    async def close(self, grace_s: float) -> None:
        """Take no new connections, let running requests finish for `grace_s` seconds, then drop."""
        state: Any = self._server.server_state
        self._acceptor.close()
        for connection in list(state.connections):
            connection.shutdown()  # at once if it is idle, else after its reply
        await _wait_lost(state.connections, grace_s)
        for task in list(self._acceptor.opening):
            task.cancel()
        for connection in list(state.connections):
            connection.abandon()
        await _wait_lost(state.connections, None)
        if state.tasks:
            await asyncio.wait(list(state.tasks))
        self._clock.cancel()


async def _wait_lost(connections: Any, timeout_s: float | None) -> None:
    lost = [connection.lost for connection in connections]
    if lost:
        await asyncio.wait(lost, timeout=timeout_s)


class _Application:
    """The ASGI application: reads the body, asks the handler, sends the answer."""

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

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = HttpRequest(scope["method"], scope["raw_path"], scope["headers"])
        if request.target == METRICS_TARGET and request.verb == "GET" and self._metrics:
            await self._answer_metrics(self._metrics, request, receive, send)
            return
        connection: HttpConnection = scope["mindbus"]
        connection.handler_task = asyncio.current_task()
        begin_s = connection.loop.time()
        exchange = self._begin(request, scope["client"])
        answer = None
        try:
            body = await self._read_body(receive)
            reading_ms = int((connection.loop.time() - begin_s) * 1_000)
            if reading_ms:
                exchange.reading_ns = reading_ms * 1_000_000
            exchange.request_bytes = 0 if body is None else len(body)
            answer = await self._handler.handle(request._replace(body=body, reading_ms=reading_ms))
            if self._packs_replies:
                answer = await _packed(answer, request)
        except (asyncio.CancelledError, _GoneError):
            exchange.fail("cancelled")
            if connection.is_abandoned:
                return
            raise
        finally:
            connection.handler_task = None
            if answer is None and not exchange.reason:
                exchange.fail("system_error")
            self._journal.end(exchange, 0 if answer is None else len(answer.body))
        told = tuple(
            (key.encode(), text.encode()) for key, text in self._journal.reply_keys(exchange)
        )
        await _send(send, answer._replace(headers=answer.headers + told))

    def _begin(self, request: HttpRequest, client: Any) -> Exchange:
        given: dict[bytes, str] = {}
        for name, value in request.headers:
            if name in _GIVEN:
                text = value.decode("latin-1")
                # One that comes again is one value with the first, as in `HttpRequest.header`.
                given[name] = f"{given[name]}, {text}" if name in given else text
        exchange = self._journal.begin("rest", given.get(_REQUEST_ID), given.get(_TRACE))
        exchange.peer = client
        exchange.priority, exchange.key = given.get(_PRIORITY), given.get(_IDEMPOTENCY)
        return exchange

    async def _answer_metrics(
        self, metrics: Metrics, request: HttpRequest, receive: Any, send: Any
    ) -> None:
        try:
            await self._read_body(receive)
        except _GoneError:
            return
        accept = request.header(_ACCEPT) or b""
        content_type, text = await metrics(accept.decode("latin-1"))
        answer = HttpAnswer(200, text, (), content_type.encode())
        await _send(send, await _packed(answer, request) if self._packs_replies else answer)

    async def _read_body(self, receive: Any) -> bytes | None:
        message = await receive()
        if message["type"] == "http.request" and not message["more_body"]:
            body: bytes = message["body"]
            return body if len(body) <= self._handler.body_bytes_max else None
        return await self._read_long_body(message, receive)

    async def _read_long_body(self, message: Any, receive: Any) -> bytes | None:
        # A body over the limit is read to its end, so that the client gets to read the answer, but
        # nothing of it is kept.
        chunks: list[bytes] = []
        size = 0
        while message["type"] == "http.request":
            size += len(message["body"])
            if size <= self._handler.body_bytes_max:
                chunks.append(message["body"])
            else:
                chunks.clear()
            if not message["more_body"]:
                return b"".join(chunks) if size <= self._handler.body_bytes_max else None
            message = await receive()
        raise _GoneError


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


async def _send(send: Any, answer: HttpAnswer) -> None:
    headers: list[Header] = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


class _GoneError(Exception):
    """The client went away before its request was complete."""


def _settings(application: _Application, patience: Patience) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=HttpConnection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="error",
        timeout_keep_alive=patience.idle_s,  # type: ignore[arg-type]
    )


async def _listen(where: TcpAddress, address: str) -> socket.socket:
    """A listening socket; its address is free to be taken again right after a restart."""
    listener = None
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, name = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(name)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except (OSError, UnicodeError):
        if listener is not None:
            listener.close()
        raise DoorError(
            f"Serving Error: RESTful server start failed, bind to the socket address {address} "
            "failed"
        ) from None
    return listener
