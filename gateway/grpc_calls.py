"""Calls of the gRPC door: what has come of one, who answers it, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from gateway.exchange import Exchange
from gateway.forward import Forwarded, Forwarder
from gateway.h2_call import Call
from gateway.h2_headers import REASON_KEY, trailers
from gateway.journal import Journal
from gateway.requests import RETRY_AFTER_MS
from protocol import status
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.status import REASONS
from telemetry.log import get_logger

if TYPE_CHECKING:
    from gateway.grpc_rpcs import Rpc

log = get_logger("GATEWAY")

#: When a client of gRPC that retries by itself may do so, in ms (of a reason that may be retried).
PUSHBACK_KEY = "grpc-retry-pushback-ms"

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
        self.messages: deque[Buffer] = deque()
        self.has_ended = False
        #: who waits for a message, and who for room in the client's window
        self.news: asyncio.Future[None] | None = None
        self.room: asyncio.Future[None] | None = None
        #: who answers
        self.task: asyncio.Task[None] | ForwardedCall | None = None
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

    def check_reply(self, body: Buffer) -> None:
        """Raises RequestError if a reply is too large, or too much is unread already."""

    def reply(self, call: Call, body: Buffer, end: bytes) -> None:
        """Send the only reply of a call, and its end."""

    def send(self, call: Call, body: Buffer) -> Awaitable[None]:
        """Send one of several replies; back when the client's window has taken it."""

    def finish(self, call: Call, end: bytes) -> None:
        """End a call after what was sent."""

    def note_taken(self, call: Call, body: Buffer) -> None:
        """Somebody took a message of a call."""


class ForwardedCall(Forwarded):
    """A call of one message that was forwarded to the bus."""

    __slots__ = ("_call", "_code_of", "_connection", "_inbox")

    def __init__(
        self,
        forwarder: Forwarder,
        plan: Any,
        exchange: Exchange,
        journal: Journal,
        code_of: CodeOf,
        connection: Connection,
        call: Call,
        inbox: Inbox,
    ) -> None:
        super().__init__(forwarder, plan, exchange, journal)
        self._code_of = code_of
        self._connection = connection
        self._call = call
        self._inbox = inbox

    def cancel(self) -> None:
        """It is over before its reply."""
        if not self.is_over:
            self._inbox.task = None  # see `answer`
            self.drop(self._inbox.why_dropped)

    def answer(self, outcome: Any) -> None:
        """Answer it; see `Forwarded`."""
        journal, connection, call, exchange = (
            self.journal, self._connection, self._call, self.exchange,
        )  # fmt: skip
        size = 0
        if isinstance(outcome, bytes | memoryview):
            try:
                connection.check_reply(outcome)
                end = trailers(status.OK, "", journal.reply_keys(exchange))
                connection.reply(call, outcome, end)
                size = len(outcome)
            except RequestError as error:
                outcome = error
        if isinstance(outcome, RequestError):
            fail(journal, connection, call, exchange, outcome, self._code_of(outcome))
        elif outcome is None:
            fail_by_bug(journal, connection, call, exchange)
        inbox = self._inbox
        inbox.task = None  # they know each other, which would make garbage for the collector
        inbox.cancel_timer()
        journal.end(exchange, size)


def forward_call(
    journal: Journal,
    forwarder: Forwarder,
    code_of: CodeOf,
    connection: Connection,
    call: Call,
    inbox: Inbox,
) -> bool:
    """Forward a call to the bus, if it needs no more than that."""
    body = inbox.messages[0]
    plan = forwarder.look(body)
    if plan is None:
        return False
    inbox.messages.clear()
    exchange = connection.begin_exchange(call, len(body))
    inbox.task = forwarded = ForwardedCall(
        forwarder, plan, exchange, journal, code_of, connection, call, inbox
    )
    forwarded.begin(body, budget_ms_of(inbox))
    return True


def fail(
    journal: Journal,
    connection: Connection,
    call: Call,
    exchange: Exchange,
    error: RequestError,
    code: int,
) -> None:
    """End a call that failed with a status of gRPC."""
    exchange.fail(error.reason)
    metadata = [*journal.reply_keys(exchange), (REASON_KEY, error.reason)]
    if REASONS[error.reason].retry:
        metadata.append((PUSHBACK_KEY, str(RETRY_AFTER_MS)))
    connection.finish(call, trailers(code, error.message, metadata))


def fail_by_bug(journal: Journal, connection: Connection, call: Call, exchange: Exchange) -> None:
    """End a call after a bug of ours, while that is handled."""
    log.exception("bug in the gateway", rpc=call.head.path)
    exchange.fail("system_error")
    metadata = journal.reply_keys(exchange)
    text = "a bug of the gateway, its log has more"
    connection.finish(call, trailers(status.INTERNAL, text, metadata))


def budget_ms_of(inbox: Inbox) -> int | None:
    """What is left of the time that the client waits, in whole ms, none of it cut off.

    So the call's own timer comes before the broker's: a call that takes too long ends with the
    status of gRPC, and not, a moment earlier, with a reply that says so in its dialect.
    """
    if inbox.deadline_ns is None:
        return None
    # A deadline that is over still is one: 0 would mean that there is none.
    return max(1, -(-(inbox.deadline_ns - time.monotonic_ns()) // NS_PER_MS))
