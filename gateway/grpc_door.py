"""The gRPC door: MindSpore Serving's `MSService/Predict` and other RPCs, over grpcio on asyncio.

No serializers: handlers get and give the bytes of the messages. The status of `Predict` is OK for
all that the application decides, other RPCs (`gateway.rpcs`) have gRPC's own codes; the library
itself answers RESOURCE_EXHAUSTED (message sizes), UNIMPLEMENTED (names that are no RPC),
DEADLINE_EXCEEDED and CANCELLED.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio

from gateway.addresses import AddressError, TcpAddress, UnixAddress, parse_grpc_address
from gateway.doors import DoorError
from gateway.exchange import Exchange
from gateway.journal import REQUEST_ID_KEY, TRACE_KEY, Journal
from gateway.requests import IDEMPOTENCY_KEY, PRIORITY_KEY, RETRY_AFTER_MS
from gateway.reuse_port import leave, listeners_at, steer_away
from gateway.rpcs import NO_RPCS, BothStreams, Rpcs, ServerStream, Unary
from gateway.tls import TlsSettings, grpc_credentials
from protocol import limits
from protocol.errors import RequestError
from protocol.status import REASONS

PREDICT = "/mindspore.serving.proto.MSService/Predict"

#: When a client of gRPC that retries by itself may do so, in ms (of a reason that may be retried).
PUSHBACK_KEY = "grpc-retry-pushback-ms"

#: grpcio's codes by their number.
GRPC_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

#: grpcio's view of a call; its type parameters tell nothing here.
Context = grpc.aio.ServicerContext[Any, Any]

#: Statuses of refused calls of `Predict`; others are INVALID_ARGUMENT.
_CODES = {"unread_bytes_full": grpc.StatusCode.RESOURCE_EXHAUSTED}

#: How long who connects to others already may still be in our queue.
STEER_S = 0.2

#: grpcio spreads the age of connections by so much to either side, and looks now and then.
AGE_JITTER = 0.2

#: Trailing metadata of a refused call: the name of its reason (`protocol.status.REASONS`).
REASON_KEY = "mindbus-reason"


#: Which code a failed call ends with.
CodeOf = Callable[[RequestError], grpc.StatusCode]


class PredictHandler(Protocol):
    """What the door asks of a handler; `MsServiceHandler` is one."""

    def predict(self, body: bytes, budget_ms: int | None) -> Awaitable[bytes]:
        """Answer one message. Raises RequestError for bytes that are none."""


class GrpcDoor:
    """An open gRPC port (or unix socket). Make it with `open`, on the loop that serves it."""

    def __init__(
        self,
        server: grpc.aio.Server,
        service: _Service,
        address: str,
        port: int,
        connection_age_ms: int,
    ) -> None:
        self._server = server
        self._service = service
        self._port = port
        self._connection_age_ms = connection_age_ms
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
        reuse_port: bool = False,
        connection_age_ms: int = 0,
        unread_bytes_max: int = limits.UNREAD_BYTES_MAX,
        journal: Journal | None = None,
    ) -> GrpcDoor:
        """Listen at `ip:port`, `host:port` or `unix:path`; port 0 stands for any free one.

        max_msg_mb_size: MiB (1 to 512) that a message may have, received or sent.
        rpcs: what it speaks besides `Predict`.
        reuse_port: share the port with other gateways of this server (SO_REUSEPORT).
        connection_age_ms: after which a client is told to connect again (GOAWAY); 0 = never.
        unread_bytes_max: of the replies that one connection has not taken yet.
        journal: where its calls are entered; None = one of its own.
        Raises: DoorError with MindSpore Serving's texts; also if a TLS file cannot be read.
        """
        assert limits.MESSAGE_MB_MIN <= max_msg_mb_size <= limits.MESSAGE_MB_MAX, max_msg_mb_size
        try:
            where = parse_grpc_address(address, zero_allowed=True)
            credentials = grpc_credentials(tls) if tls else None
        except (AddressError, OSError) as error:
            raise DoorError(str(error)) from None
        message_bytes_max = max_msg_mb_size * limits.MIB
        age = [("grpc.max_connection_age_ms", connection_age_ms)] if connection_age_ms else []
        server = grpc.aio.server(
            options=[
                *age,
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.max_receive_message_length", message_bytes_max),
                ("grpc.max_send_message_length", message_bytes_max),
                ("grpc.max_concurrent_streams", limits.CONNECTION_CALLS_MAX),
                ("grpc.server.max_pending_requests", limits.CONNECTION_CALLS_MAX),
                ("grpc.server.max_pending_requests_hard_limit", limits.CONNECTION_CALLS_MAX),
            ]
        )
        service = _Service(handler, rpcs, unread_bytes_max, journal or Journal())
        server.add_generic_rpc_handlers((service,))
        try:
            if credentials is None:
                port = server.add_insecure_port(str(where))
            else:
                port = server.add_secure_port(str(where), credentials)
        except RuntimeError:
            port = 0
        if not port:
            await server.stop(None)
            raise DoorError(
                "Serving Error: Serving gRPC server start failed, create server failed, "
                f"address {address}"
            )
        await server.start()
        return cls(server, service, _bound(where, port), port, connection_age_ms)

    def unread_bytes(self) -> int:
        """Bytes of replies that clients have not taken yet."""
        return sum(self._service.unread_bytes.values())

    async def close(self, grace_s: float) -> None:
        """Take no new calls, let running ones finish for `grace_s` seconds, then cancel them."""
        await self._server.stop(grace_s)

    async def leave(self, place: int, count: int) -> None:
        """Leave the clients to the other gateways at this port; `close` comes after that.

        place: of this one's listener among `count`. New connections go to the others from now on,
        and those that are here grow too old: grpcio says GOAWAY to them, and serves what their
        clients had sent before they heard of it. It has no other way to say that; when it is
        stopped it cancels the calls that come in that moment.
        """
        if count < 2 or not self._port:
            return
        for listener in listeners_at(self._port):
            with listener:
                steer_away(listener, place, count)
                await asyncio.sleep(STEER_S)
                leave(listener)
        await asyncio.sleep(self._connection_age_ms * (1 + AGE_JITTER) / 1_000)


class _Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The RPCs of the door; every other name is answered UNIMPLEMENTED by grpcio."""

    def __init__(
        self, handler: PredictHandler, rpcs: Rpcs, unread_bytes_max: int, journal: Journal
    ) -> None:
        self._journal = journal
        self._unread_bytes_max = unread_bytes_max
        #: by the peer's address; all clients of a unix socket have one
        self.unread_bytes: dict[str, int] = {}
        self._methods = {
            PREDICT: grpc.unary_unary_rpc_method_handler(
                partial(self._answer, handler.predict, _predict_code_of)
            ),
            **{
                name: grpc.unary_unary_rpc_method_handler(partial(self._answer, answer, _code_of))
                for name, answer in rpcs.unary.items()
            },
            **{
                name: grpc.unary_stream_rpc_method_handler(partial(self._stream_out, answer))
                for name, answer in rpcs.server_streams.items()
            },
            **{
                name: grpc.stream_stream_rpc_method_handler(partial(self._stream, answer))
                for name, answer in rpcs.both_streams.items()
            },
        }

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of an RPC by its full name; None if there is none."""
        return self._methods.get(call.method)

    async def _answer(self, answer: Unary, code_of: CodeOf, body: bytes, context: Context) -> bytes:
        exchange = self._begin(len(body), context)
        size = None
        try:
            reply = await answer(body, _budget_ms(context))
            size = len(reply)
            self._note_reply(context, size)
        except asyncio.CancelledError:
            exchange.fail("cancelled")
            raise
        except RequestError as error:
            exchange.fail(error.reason)
            await _abort(context, error, code_of(error), self._journal.reply_keys(exchange))
        finally:
            self._end(exchange, size)
        return reply

    async def _stream_out(
        self, answer: ServerStream, body: bytes, context: Context
    ) -> AsyncIterator[bytes]:
        async for reply in self._carry(answer(body), len(body), context):
            yield reply

    async def _stream(
        self, answer: BothStreams, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        async for reply in self._carry(answer(requests, _budget_ms(context)), 0, context):
            yield reply

    async def _carry(
        self, replies: AsyncIterator[bytes], request_bytes: int, context: Context
    ) -> AsyncIterator[bytes]:
        """A stream is one exchange. What a client does not take is not written: grpcio waits with
        each message."""
        exchange = self._begin(request_bytes, context)
        exchange.key = None  # it would be that of all requests of a stream
        size = 0
        try:
            async with aclosing(replies):  # type: ignore[type-var]
                async for reply in replies:
                    size += len(reply)
                    yield reply
        except (asyncio.CancelledError, GeneratorExit):
            exchange.fail("cancelled")
            raise
        except RequestError as error:
            exchange.fail(error.reason)
            keys = self._journal.reply_keys(exchange)
            await _abort(context, error, _code_of(error), keys)
        except BaseException:
            exchange.fail("system_error")
            raise
        finally:
            self._journal.end(exchange, size)

    def _end(self, exchange: Exchange, size: int | None) -> None:
        """size: of what is sent, None if there is nothing; then there is a reason, or a bug."""
        if size is None and not exchange.reason:
            exchange.fail("system_error")
        self._journal.end(exchange, size or 0)

    def _begin(self, request_bytes: int, context: Context) -> Exchange:
        """Enter a call; what its client is told of it rides in the trailing metadata."""
        given = dict(context.invocation_metadata() or ())
        journal = self._journal
        request_id, traceparent = given.get(REQUEST_ID_KEY), given.get(TRACE_KEY)
        exchange = journal.begin("grpc", request_id, traceparent, request_bytes)
        exchange.peer = context.peer()
        exchange.priority, exchange.key = given.get(PRIORITY_KEY), given.get(IDEMPOTENCY_KEY)
        context.set_trailing_metadata(journal.reply_keys(exchange))
        return exchange

    def _note_reply(self, context: Context, size: int) -> None:
        """Count a reply until it has left: grpcio holds what a connection does not take.

        Raises: RequestError (unread_bytes_full).
        """
        peer = context.peer()
        unread = self.unread_bytes.get(peer, 0)
        if unread and unread + size > self._unread_bytes_max:
            raise RequestError(
                "unread_bytes_full",
                f"the reply is dropped: this client leaves {unread} B of replies unread, "
                f"unread_bytes_max is {self._unread_bytes_max}",
            )
        self.unread_bytes[peer] = unread + size
        context.add_done_callback(lambda _: self._forget_reply(peer, size))

    def _forget_reply(self, peer: str, size: int) -> None:
        unread = self.unread_bytes.get(peer, 0) - size
        if unread:
            self.unread_bytes[peer] = unread
        else:
            self.unread_bytes.pop(peer, None)


def _budget_ms(context: Context) -> int | None:
    remaining_s = context.time_remaining()
    # A deadline that is nearly over still is one: 0 would mean that there is none.
    return None if remaining_s is None else max(1, int(remaining_s * 1000))


def _code_of(error: RequestError) -> grpc.StatusCode:
    """The code of an error's reason (`protocol.status`)."""
    return GRPC_CODES[REASONS[error.reason].grpc]


def _predict_code_of(error: RequestError) -> grpc.StatusCode:
    return _CODES.get(error.reason, grpc.StatusCode.INVALID_ARGUMENT)


async def _abort(
    context: Context,
    error: RequestError,
    code: grpc.StatusCode,
    keys: tuple[tuple[str, str], ...],
) -> NoReturn:
    """End a call. keys: what its client is told besides."""
    metadata = [*keys, (REASON_KEY, error.reason)]
    if REASONS[error.reason].retry:
        metadata.append((PUSHBACK_KEY, str(RETRY_AFTER_MS)))
    await context.abort(code, error.message, tuple(metadata))
    raise AssertionError("abort returned")


def _bound(where: TcpAddress | UnixAddress, port: int) -> str:
    return str(where._replace(port=port) if isinstance(where, TcpAddress) else where)
