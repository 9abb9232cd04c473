"""One request at a door, from its arrival to its answer: what numbers, log and trace tell of it.

The door makes an exchange, and the task that answers the request finds it with `current`: so no
handler passes it on, and a handler that knows nothing of it is told of all the same, by
`gateway.requests`. Pure.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from protocol import status
from protocol.trace_context import TraceContext
from protocol.values import RequestSpec


class Exchange:
    """What is known so far. There is one for each request: what most never have is the class's."""

    #: our span, if there is one
    span: Any = None
    #: what the client said, if our own span is in `context` now
    parent: TraceContext | None = None
    #: how long the rest of it took to come
    reading_ns = 0
    #: how long it waited in the broker
    waited_us = 0
    #: the client's address, as the door has it
    peer: object = ""
    #: which method it was for, once that was read
    spec: RequestSpec | None = None
    #: how urgent its client calls it, by the names of `heads.PRIORITIES`
    priority: str | None = None
    #: its idempotency key, as the client gave it
    key: str | None = None
    #: gRPC number that says how it ended, in every dialect
    code = status.OK
    #: one of `status.REASONS`, if it failed before a worker, or instead of one
    reason = ""
    request_bytes = 0
    reply_bytes = 0

    def __init__(
        self, door: str, request_id: str, context: TraceContext | None, begin_ns: int
    ) -> None:
        self.door = door
        #: the client's own name for it, or one that we made
        self.request_id = request_id
        #: what the head carries on: the trace, and the span that is the parent of the worker's
        self.context = context
        self.begin_ns = begin_ns

    def fail(self, reason: str) -> None:
        """It is not answered by a worker."""
        self.reason = reason
        self.code = status.REASONS[reason].grpc


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)

#: The exchange that this task answers; None where nobody made one.
current = _current.get

#: Make an exchange this task's.
enter = _current.set


def note_failure(reason: str) -> None:
    """The request of this task fails, for a reason of `status.REASONS`."""
    exchange = _current.get()
    if exchange is not None:
        exchange.fail(reason)
