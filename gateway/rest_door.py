"""The RESTful door: HTTP/1.1 by uvicorn and httptools, inside of the loop that runs anyway.

The door reads a request's whole body, keeps it only up to the limit, and hands verb, target and
body to a handler; the handler's answer goes out as `application/json`, with status 200 whatever the
application says, unless the client set a deadline. Malformed HTTP is answered by the connection
itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import uvicorn

from gateway.accepting import Acceptor
from gateway.addresses import AddressError, TcpAddress, parse_rest_address
from gateway.doors import DoorError
from gateway.exchange import Exchange
from gateway.http_connection import HttpConnection, Patience
from gateway.journal import REQUEST_ID_KEY, TRACE_KEY, TRACE_REPLY_KEY, Journal
from gateway.tls import TlsError, TlsSettings, rest_context
from protocol import limits
from protocol.restful_timeout import HEADER as TIMEOUT_HEADER
from protocol.trace_context import format_traceparent

#: Connections that wait to be accepted.
BACKLOG = 2048

DEFAULT_PATIENCE = Patience()

JSON = (b"content-type", b"application/json")

_REQUEST_ID = REQUEST_ID_KEY.encode()
_TRACE = TRACE_KEY.encode()
_TRACE_REPLY = TRACE_REPLY_KEY.encode()
_HEADERS = frozenset((_REQUEST_ID, _TRACE, TIMEOUT_HEADER))


#: Where Prometheus asks, with GET. No servable can have this address.
METRICS_TARGET = b"/metrics"

#: Gives content type and text for the header `accept` of who asks.
Metrics = Callable[[str], Awaitable[tuple[str, bytes]]]


class HttpHandler(Protocol):
    """What the door asks of a handler; `RestfulHandler` is one."""

    #: the largest body that the handler wants to see
    body_bytes_max: int

    def handle(
        self,
        verb: str,
        target: bytes,
        body: bytes | None,
        timeout: bytes | None = None,
        reading_ms: int = 0,
    ) -> Awaitable[tuple[int, bytes]]:
        """Answer one request with an HTTP status and a body.

        body: None if it was too large. timeout: the header of that name, `reading_ms` ago.
        """


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
    ) -> RestDoor:
        """Listen at `ip:port` or `host:port`; port 0 stands for any free one.

        max_msg_mb_size: MiB (1 to 512) that a body may have; the handler's limit must be the same.
        listener: a copy of another gateway's; both accept from one queue, so that nobody who has
        connected is lost when one of them closes. Ours from now on, whatever happens.
        journal: where its requests are entered; None = one of its own. metrics: answers
        `GET /metrics`; None = that is a request like any other.
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
        server = uvicorn.Server(
            _settings(_Application(handler, journal or Journal(), metrics), patience)
        )
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

    def __init__(self, handler: HttpHandler, journal: Journal, metrics: Metrics | None) -> None:
        self._handler = handler
        self._journal = journal
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["raw_path"] == METRICS_TARGET and scope["method"] == "GET" and self._metrics:
            await self._answer_metrics(self._metrics, scope, receive, send)
            return
        connection: HttpConnection = scope["mindbus"]
        connection.handler_task = asyncio.current_task()
        headers = _read_headers(scope["headers"])
        timeout = headers.get(TIMEOUT_HEADER)
        begin_s = connection.loop.time()
        exchange = self._begin(headers) if headers else self._journal.begin("rest", None, None)
        exchange.peer = scope["client"]
        status, content = 0, b""
        try:
            body = await self._read_body(receive)
            reading_ms = int((connection.loop.time() - begin_s) * 1_000)
            if reading_ms:
                exchange.reading_ns = reading_ms * 1_000_000
            exchange.request_bytes = 0 if body is None else len(body)
            status, content = await self._handler.handle(
                scope["method"], scope["raw_path"], body, timeout, reading_ms
            )
        except (asyncio.CancelledError, _GoneError):
            exchange.fail("cancelled")
            if connection.is_abandoned:
                return
            raise
        finally:
            connection.handler_task = None
            if not status and not exchange.reason:
                exchange.fail("system_error")
            self._journal.end(exchange, len(content))
        size = (b"content-length", str(len(content)).encode())
        answered = [JSON, size, (_REQUEST_ID, exchange.request_id.encode())]
        if exchange.context is not None:
            answered.append((_TRACE_REPLY, format_traceparent(exchange.context).encode()))
        await send({"type": "http.response.start", "status": status, "headers": answered})
        await send({"type": "http.response.body", "body": content})

    def _begin(self, headers: dict[bytes, bytes]) -> Exchange:
        request_id, traceparent = headers.get(_REQUEST_ID), headers.get(_TRACE)
        return self._journal.begin(
            "rest",
            None if request_id is None else request_id.decode("latin-1"),
            None if traceparent is None else traceparent.decode("latin-1"),
        )

    async def _answer_metrics(self, metrics: Metrics, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._read_body(receive)
        except _GoneError:
            return
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        content_type, text = await metrics(accept.decode("latin-1"))
        size = (b"content-length", str(len(text)).encode())
        kind = (b"content-type", content_type.encode())
        await send({"type": "http.response.start", "status": 200, "headers": [kind, size]})
        await send({"type": "http.response.body", "body": text})

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


def _read_headers(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that mean something here; if one comes again, all are one value."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _HEADERS:
            found[name] = found[name] + b", " + value if name in found else value
    return found


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
