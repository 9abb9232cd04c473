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

    def begin(self, exchange: Exchange) -> None:
        """Our span takes the place of the client's in what the request carries on."""
        exchange.parent = exchange.context
        span = self._tracer.begin(
            f"mindbus.{exchange.door}", exchange.context, exchange.begin_ns, is_server=True
        )
        exchange.span = span
        exchange.context = TraceContext(*context_of(span))

    def end(self, exchange: Exchange, end_ns: int) -> None:
        """The request is answered: its span is over."""
        assert exchange.span is not None
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
