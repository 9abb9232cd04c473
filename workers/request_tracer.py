"""The spans of a worker: one for each request, and below it its wait and every stage. A shell.

mindbus.worker      from its arrival to its reply
  mindbus.batch     from its arrival until the first work took it: who came is computed together
  mindbus.stage     each work that computed instances of it, with all others in the batch
"""

from __future__ import annotations

from telemetry.tracing import Attributes, Tracer
from workers.stages.rows import PendingRequest


class RequestTracer:
    """Makes the spans of requests that are answered. about: the worker's own attributes."""

    def __init__(self, tracer: Tracer, about: Attributes) -> None:
        self._tracer = tracer
        self._about = about

    def trace(self, request: PendingRequest, is_answered: bool, end_ns: int) -> None:
        """A request whose trace is recorded has its reply. is_answered: it did not expire."""
        trace = request.trace
        assert trace is not None, request.ticket
        record = self._tracer.record
        attributes = {
            **self._about,
            "mindbus.method": request.method.name,
            "mindbus.instances": len(request.results),
            "mindbus.is_redelivered": request.is_redelivered,
        }
        error = None if is_answered else "deadline_exceeded"
        parent = (trace.trace_id, trace.span_id, True)
        own = record("mindbus.worker", parent, request.received_ns, end_ns, attributes, error)
        first = True
        for work in trace.works:
            size = {"mindbus.batch_size": work.batch_size}
            if first:
                record("mindbus.batch", own, request.received_ns, work.begin_ns, size)
                first = False
            stage: dict[str, str | int] = {"mindbus.stage": work.stage, **size}
            if work.model:
                stage["mindbus.model"] = work.model
            record("mindbus.stage", own, work.begin_ns, work.end_ns, stage)

    def close(self) -> None:
        """Export what is left."""
        self._tracer.close()
