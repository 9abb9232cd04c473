"""Spans by OpenTelemetry's SDK, where somebody wants them; nothing of it is imported where not.

MINDBUS_TRACING=on switches it on for every process of a server. The rest is OpenTelemetry's own:
OTEL_TRACES_EXPORTER names the exporter (`otlp`, which is the default and a package of its own, or
`console`; several with commas; `module:class` takes any), OTEL_TRACES_SAMPLER what is recorded of
traces that nobody has decided about (default: all), OTEL_RESOURCE_ATTRIBUTES more about the server.
What a caller decided (the flag `sampled` of its traceparent) is kept.

Times come in as monotonic nanoseconds. Spans carry wall-clock time, which nothing here decides by.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from telemetry.log import get_logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

log = get_logger()

SWITCH: Final = "MINDBUS_TRACING"
EXPORTERS: Final = "OTEL_TRACES_EXPORTER"

#: (trace id of 16 B, span id of 8 B, whether it is recorded); `protocol`'s TraceContext is one.
Context = tuple[bytes, bytes, bool]
Attributes = Mapping[str, str | int | float | bool]


class TracingError(Exception):
    """Spans cannot be exported as the environment wants; the text says why."""


def open_tracer(role: str, environment: Mapping[str, str]) -> Tracer | None:
    """A tracer if the environment wants one. role: of this process, `gateway` or `worker`.

    Without what it needs there is a warning, and no tracing: requests are served all the same.
    """
    if environment.get(SWITCH) != "on":
        return None
    try:
        return Tracer(_make_provider(role, environment))
    except (ImportError, TracingError) as error:
        log.warning("tracing is off", role=role, error=str(error))
        return None


class Tracer:
    """Makes the spans of one process. Methods may be called from any thread."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace

        self._trace = trace
        self._provider = provider
        self._tracer = provider.get_tracer("mindbus")

    def begin(
        self, name: str, parent: Context | None, begin_ns: int, is_server: bool = False
    ) -> Span:
        """Begin a span. is_server: it answers somebody else's call."""
        trace = self._trace
        context = None
        if parent is not None:
            trace_id, span_id, is_sampled = parent
            remote = trace.SpanContext(
                int.from_bytes(trace_id),
                int.from_bytes(span_id),
                is_remote=True,
                trace_flags=trace.TraceFlags(int(is_sampled)),
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        kind = trace.SpanKind.SERVER if is_server else trace.SpanKind.INTERNAL
        return self._tracer.start_span(name, context, kind, start_time=_wall_ns(begin_ns))

    def end(
        self, span: Span, end_ns: int, attributes: Attributes, error: str | None = None
    ) -> None:
        """End a span. error: what failed."""
        self._finish(span, _wall_ns(end_ns), attributes, error)

    def _finish(self, span: Span, wall_ns: int, attributes: Attributes, error: str | None) -> None:
        if span.is_recording():
            span.set_attributes(dict(attributes))
            if error is not None:
                span.set_status(self._trace.StatusCode.ERROR, error)
        span.end(wall_ns)

    def record(
        self,
        name: str,
        parent: Context,
        begin_ns: int,
        end_ns: int,
        attributes: Attributes,
        error: str | None = None,
    ) -> Context:
        """A span that is over already. Returns its context, for children."""
        span = self.begin(name, parent, begin_ns)
        # By the same offset as its begin: it may be shorter than what two readings differ by.
        begun_ns: int = getattr(span, "start_time", None) or _wall_ns(begin_ns)
        self._finish(span, begun_ns + end_ns - begin_ns, attributes, error)
        return context_of(span)

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


def context_of(span: Span) -> Context:
    """What the children of a span need to know."""
    context = span.get_span_context()
    return (
        context.trace_id.to_bytes(16),
        context.span_id.to_bytes(8),
        bool(context.trace_flags.sampled),
    )


def _wall_ns(monotonic_ns: int) -> int:
    return time.time_ns() - time.monotonic_ns() + monotonic_ns


def _make_provider(role: str, environment: Mapping[str, str]) -> TracerProvider:
    """Raises: ImportError, TracingError."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "mindbus", "mindbus.role": role})
    if "OTEL_SERVICE_NAME" in environment:
        resource = resource.merge(
            Resource.create({"service.name": environment["OTEL_SERVICE_NAME"]})
        )
    names = [name.strip() for name in environment.get(EXPORTERS, "otlp").split(",")]
    exporters = [_exporter(name) for name in names if name and name != "none"]
    provider = TracerProvider(resource=resource)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter(name: str) -> Any:
    found: Iterable[Any] = entry_points(group="opentelemetry_traces_exporter", name=name)
    for entry in found:
        return entry.load()()
    module, colon, attribute = name.partition(":")
    if not colon:
        raise TracingError(f"{EXPORTERS}: no package brings the exporter {name!r}")
    try:
        return getattr(importlib.import_module(module), attribute)()
    except AttributeError as error:
        raise TracingError(f"{EXPORTERS} {name!r}: {error}") from None
