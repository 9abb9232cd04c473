"""The RPCs of the gRPC door: each call is answered by a coroutine of its kind."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple, Protocol

from gateway.exchange import Exchange
from gateway.h2_call import Call
from gateway.h2_headers import REASON_KEY, trailers
from gateway.journal import Journal
from gateway.rare_warning import RareWarning
from gateway.requests import RETRY_AFTER_MS
from gateway.rpcs import BothStreams, Rpcs, ServerStream, Unary
from protocol import status
from protocol.errors import RequestError
from protocol.status import REASONS
from telemetry.log import get_logger

log = get_logger("GATEWAY")

PREDICT = "/mindspore.serving.proto.MSService/Predict"

#: When a client of gRPC that retries by itself may do so, in ms (of a reason that may be retried).
PUSHBACK_KEY = "grpc-retry-pushback-ms"

#: Statuses of refused calls of `Predict`; others are INVALID_ARGUMENT.
_PREDICT_CODES = {
    "unread_bytes_full": status.RESOURCE_EXHAUSTED,
    "body_too_large": status.RESOURCE_EXHAUSTED,
}

NS_PER_MS = 1_000_000

#: Which code a failed call ends with.
CodeOf = Callable[[RequestError], int]


class Inbox:
    """What a call has received and nobody has taken yet, and who answers it."""

    __slots__ = (
        "deadline_ns",
        "has_ended",
        "messages",
        "news",
        "room",
        "rpc",
        "task",
        "timer",
        "why_dropped",
    )

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self.messages: deque[bytes] = deque()
        self.has_ended = False
        #: who waits for a message, and who for room in the client's window
        self.news: asyncio.Future[None] | None = None
        self.room: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        #: when the client stops to wait, monotonic; None = never
        self.deadline_ns: int | None = None
        self.timer: asyncio.TimerHandle | None = None
        #: the reason, if the task is cancelled
        self.why_dropped = "cancelled"

    def cancel_timer(self) -> None:
        """The call is over before its deadline."""
        if self.timer is not None:
            self.timer.cancel()


class Connection(Protocol):
    """What those who answer ask of a connection."""

    def begin_exchange(self, call: Call, request_bytes: int) -> Exchange:
        """Enter a call."""

    def check_reply(self, body: bytes) -> None:
        """Raises RequestError if a reply is too large, or too much is unread already."""

    def reply(self, call: Call, body: bytes, end: bytes) -> None:
        """Send the only reply of a call, and its end."""

    def send(self, call: Call, body: bytes) -> Awaitable[None]:
        """Send one of several replies; back when the client's window has taken it."""

    def finish(self, call: Call, end: bytes) -> None:
        """End a call after what was sent."""

    def messages(self, call: Call) -> AsyncIterator[bytes]:
        """The messages of a call, as they come; what is not taken is not asked for."""


class PredictHandler(Protocol):
    """What the door asks of a handler; `MsServiceHandler` is one."""

    def predict(self, body: bytes, budget_ms: int | None) -> Awaitable[bytes]:
        """Answer one message. Raises RequestError for bytes that are none."""


class Rpc(NamedTuple):
    """How an RPC is answered. takes_stream: from its first message on, else once it is there."""

    answer: Callable[[Connection, Call, Inbox], Coroutine[Any, Any, None]]
    takes_stream: bool = False


class GrpcService:
    """What all connections of a door have in common: limits, journal, and RPCs by their names."""

    def __init__(
        self,
        handler: PredictHandler,
        rpcs: Rpcs,
        message_bytes_max: int,
        unread_bytes_max: int,
        journal: Journal,
    ) -> None:
        self.message_bytes_max = message_bytes_max
        self.unread_bytes_max = unread_bytes_max
        self.journal = journal
        #: of a client that broke the protocol
        self.warn = RareWarning("gRPC connection ended")
        self.rpcs: dict[str, Rpc] = {PREDICT: self._unary(handler.predict, _predict_code_of)}
        for name, unary in rpcs.unary.items():
            self.rpcs[name] = self._unary(unary, _code_of)
        for name, stream in rpcs.server_streams.items():
            self.rpcs[name] = Rpc(partial(_answer_one, journal, stream))
        for name, both in rpcs.both_streams.items():
            self.rpcs[name] = Rpc(partial(_answer_stream, journal, both), takes_stream=True)

    def _unary(self, answer: Unary, code_of: CodeOf) -> Rpc:
        return Rpc(partial(_answer_unary, self.journal, answer, code_of))


async def _answer_unary(
    journal: Journal,
    answer: Unary,
    code_of: CodeOf,
    connection: Connection,
    call: Call,
    inbox: Inbox,
) -> None:
    body = inbox.messages.popleft()
    exchange = connection.begin_exchange(call, len(body))
    size = 0
    try:
        reply = await answer(body, _budget_ms(inbox))
        connection.check_reply(reply)
        end = trailers(status.OK, "", journal.reply_keys(exchange))
        connection.reply(call, reply, end)
        size = len(reply)
    except asyncio.CancelledError:
        exchange.fail(inbox.why_dropped)
    except RequestError as error:
        _fail(journal, connection, call, exchange, error, code_of(error))
    except Exception:
        _fail_by_bug(journal, connection, call, exchange)
    finally:
        inbox.cancel_timer()
        journal.end(exchange, size)


async def _answer_one(
    journal: Journal, answer: ServerStream, connection: Connection, call: Call, inbox: Inbox
) -> None:
    body = inbox.messages.popleft()
    await _carry(journal, connection, call, inbox, answer(body), len(body))


async def _answer_stream(
    journal: Journal, answer: BothStreams, connection: Connection, call: Call, inbox: Inbox
) -> None:
    replies = answer(connection.messages(call), _budget_ms(inbox))
    await _carry(journal, connection, call, inbox, replies, 0)


async def _carry(
    journal: Journal,
    connection: Connection,
    call: Call,
    inbox: Inbox,
    replies: AsyncIterator[bytes],
    request_bytes: int,
) -> None:
    """A stream is one exchange; what its client does not take is not asked for."""
    exchange = connection.begin_exchange(call, request_bytes)
    exchange.key = None  # it would be that of all requests of a stream
    size = 0
    try:
        async with aclosing(replies):  # type: ignore[type-var]
            async for reply in replies:
                await connection.send(call, reply)
                size += len(reply)
        connection.finish(call, trailers(status.OK, "", journal.reply_keys(exchange)))
    except asyncio.CancelledError:
        exchange.fail(inbox.why_dropped)
    except RequestError as error:
        _fail(journal, connection, call, exchange, error, _code_of(error))
    except Exception:
        _fail_by_bug(journal, connection, call, exchange)
    finally:
        inbox.cancel_timer()
        journal.end(exchange, size)


def _fail(
    journal: Journal,
    connection: Connection,
    call: Call,
    exchange: Exchange,
    error: RequestError,
    code: int,
) -> None:
    exchange.fail(error.reason)
    metadata = [*journal.reply_keys(exchange), (REASON_KEY, error.reason)]
    if REASONS[error.reason].retry:
        metadata.append((PUSHBACK_KEY, str(RETRY_AFTER_MS)))
    connection.finish(call, trailers(code, error.message, metadata))


def _fail_by_bug(journal: Journal, connection: Connection, call: Call, exchange: Exchange) -> None:
    log.exception("bug in the gateway", rpc=call.head.path)
    exchange.fail("system_error")
    metadata = journal.reply_keys(exchange)
    text = "a bug of the gateway, its log has more"
    connection.finish(call, trailers(status.INTERNAL, text, metadata))


def _budget_ms(inbox: Inbox) -> int | None:
    """What is left of the time that the client waits."""
    if inbox.deadline_ns is None:
        return None
    # A deadline that is nearly over still is one: 0 would mean that there is none.
    return max(1, (inbox.deadline_ns - time.monotonic_ns()) // NS_PER_MS)


def _code_of(error: RequestError) -> int:
    """The code of an error's reason (`protocol.status`)."""
    return REASONS[error.reason].grpc


def _predict_code_of(error: RequestError) -> int:
    return _PREDICT_CODES.get(error.reason, status.INVALID_ARGUMENT)
