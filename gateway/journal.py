"""The journal of a gateway: begins and ends exchanges, counts them, logs them, traces them.

One per gateway, for all its doors. Counting is always on; the access log and spans cost nothing
when they are off. `REQUEST_ID_KEY` and `TRACE_KEY` are names of HTTP headers and of gRPC metadata.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from gateway.exchange import Exchange, enter
from gateway.numbers import Numbers
from protocol import status
from protocol.trace_context import TraceContext, format_traceparent, parse_traceparent

REQUEST_ID_KEY = "x-request-id"
TRACE_KEY = "traceparent"

#: How a client learns of our span (W3C Trace Context level 2).
TRACE_REPLY_KEY = "traceresponse"

NS_PER_MS = 1_000_000

#: Longer ids of clients are not taken: they go into every log line.
REQUEST_ID_CHARACTERS_MAX = 128


class DoorTracer(Protocol):
    """What the journal asks of tracing; `mindbus.tracing` has one."""

    def begin(self, exchange: Exchange) -> None:
        """Put our span into `exchange.context`, and what was there into `exchange.parent`."""

    def end(self, exchange: Exchange, end_ns: int) -> None:
        """The span is over."""


class Journal:
    """All exchanges of one gateway.

    write: takes the values of one line of the access log; None = there is none. tracer: None =
    contexts are passed on as they came.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any]], None] | None = None,
        tracer: DoorTracer | None = None,
    ) -> None:
        self.numbers = Numbers()
        self._doors = self.numbers.doors
        self._write = write
        self._tracer = tracer
        self._id_form = f"{os.urandom(6).hex()}-%x"
        self._numbers_of_ids = itertools.count(1)

    def begin(
        self,
        door: str,
        request_id: str | None,
        traceparent: str | None,
        request_bytes: int = 0,
        reading_ms: int = 0,
    ) -> Exchange:
        """A request came. It is this task's from now on.

        request_id, traceparent: as the client gave them; what cannot be used is replaced.
        reading_ms: how long ago it began to come.
        """
        if request_id is None or not _is_usable(request_id):
            request_id = self._id_form % next(self._numbers_of_ids)
        context = None if traceparent is None else parse_traceparent(traceparent)
        exchange = Exchange(door, request_id, context, time.monotonic_ns())
        if reading_ms:
            exchange.reading_ns = reading_ms * NS_PER_MS
            exchange.begin_ns -= exchange.reading_ns
        if request_bytes:
            exchange.request_bytes = request_bytes
        self._doors[door].inflight += 1
        enter(exchange)
        if self._tracer is not None:
            self._tracer.begin(exchange)
        return exchange

    def end(self, exchange: Exchange, reply_bytes: int) -> None:
        """It is answered, or will not be. Call it once."""
        end_ns = time.monotonic_ns()
        exchange.reply_bytes = reply_bytes
        code = status.GRPC_NAMES.get(exchange.code, "UNKNOWN")
        self._doors[exchange.door].end(code, end_ns - exchange.begin_ns)
        if self._tracer is not None:
            self._tracer.end(exchange, end_ns)
        if self._write is not None:
            self._write(_line(exchange, code, end_ns))

    def reply_keys(self, exchange: Exchange) -> tuple[tuple[str, str], ...]:
        """What the client is told with its reply: headers, or metadata."""
        own = (REQUEST_ID_KEY, exchange.request_id)
        if exchange.context is None:
            return (own,)
        return own, (TRACE_REPLY_KEY, format_traceparent(exchange.context))


def _is_usable(request_id: str) -> bool:
    is_short = 0 < len(request_id) <= REQUEST_ID_CHARACTERS_MAX
    return is_short and request_id.isascii() and request_id.isprintable()


def _address(peer: object) -> str:
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple | list) else str(peer or "")


def _line(exchange: Exchange, code: str, end_ns: int) -> dict[str, Any]:
    spec = exchange.spec
    context: TraceContext | None = exchange.context
    return {
        "door": exchange.door,
        "peer": _address(exchange.peer),
        "request_id": exchange.request_id,
        "trace_id": "" if context is None else context.trace_id.hex(),
        "servable": "" if spec is None else spec.servable,
        "version": "" if spec is None else spec.version,
        "method": "" if spec is None else spec.method,
        "code": code,
        "reason": exchange.reason,
        "queue_ms": exchange.waited_us / 1_000,
        "duration_ms": round((end_ns - exchange.begin_ns) / 1e6, 3),
        "request_bytes": exchange.request_bytes,
        "reply_bytes": exchange.reply_bytes,
    }
