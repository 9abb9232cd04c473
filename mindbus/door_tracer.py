"""The spans of a gateway: one for each request at a door, and how long the broker let it wait."""

from __future__ import annotations

from gateway.exchange import Exchange
from protocol import status
from protocol.trace_context import TraceContext
from telemetry.tracing import Attributes, Tracer, context_of

NS_PER_US = 1_000


class DoorTracer:
    """Traces the exchanges of one gateway (`gateway.journal.DoorTracer`)."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._rate = 1
        self._begun = 0

    def set_rate(self, rate: int) -> None:
        """Trace one of so many requests whose clients have not decided; 0 = none, and no others."""
        self._rate = rate
        self._begun = 0

    def begin(self, exchange: Exchange) -> None:
        """Our span takes the place of the client's in what the request carries on."""
        context = exchange.context
        if not self._rate:
            if context is not None:  # it goes on, and nobody behind us makes spans of it
                exchange.context = context._replace(is_sampled=False)
            return
        if context is None:
            self._begun += 1
            if (self._begun - 1) % self._rate:
                return
        exchange.parent = context
        span = self._tracer.begin(
            f"mindbus.{exchange.door}", exchange.context, exchange.begin_ns, is_server=True
        )
        exchange.span = span
        exchange.context = TraceContext(*context_of(span))

    def end(self, exchange: Exchange, end_ns: int) -> None:
        """The request is answered: its span is over, if it has one."""
        if exchange.span is None:
            return
        assert exchange.context is not None
        if exchange.spec is not None and exchange.context.is_sampled:
            # The broker tells how long it was, not when; it came there when it was read.
            begin_ns = exchange.begin_ns + exchange.reading_ns
            until_ns = min(end_ns, begin_ns + exchange.waited_us * NS_PER_US)
            self._tracer.record("mindbus.queue", exchange.context, begin_ns, until_ns, {})
        code = status.GRPC_NAMES.get(exchange.code, "UNKNOWN")
        error = None if exchange.code == status.OK else exchange.reason or code
        self._tracer.end(exchange.span, end_ns, _attributes(exchange, code), error)


def _attributes(exchange: Exchange, code: str) -> Attributes:
    attributes: dict[str, str | int] = {
        "mindbus.request_id": exchange.request_id,
        "mindbus.code": code,
        "mindbus.request_bytes": exchange.request_bytes,
        "mindbus.reply_bytes": exchange.reply_bytes,
    }
    if exchange.reason:
        attributes["mindbus.reason"] = exchange.reason
    if exchange.spec is not None:
        attributes |= {
            "mindbus.servable": exchange.spec.servable,
            "mindbus.version": exchange.spec.version,
            "mindbus.method": exchange.spec.method,
        }
    return attributes
