"""Tracing: nothing where nobody wants it, and spans of OpenTelemetry where somebody does."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.journal import Journal
from gateway.requests import failure_of_bus, pack_request
from mindbus.door_tracer import DoorTracer
from protocol import head as heads
from protocol.trace_context import parse_traceparent
from protocol.values import MethodSignature, RequestSpec
from telemetry.log import configure
from telemetry.tracing import Tracer, open_tracer
from tests.telemetry.span_files import as_plain
from workers.request_tracer import RequestTracer
from workers.stages.rows import PendingRequest, Trace, TracedWork

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SPEC = RequestSpec("add", "m", 1)
MS = 1_000_000


class Collected:
    """A tracer, and what it has exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = Tracer(provider)

    def spans(self) -> dict[str, dict[str, Any]]:
        return {span.name: as_plain(span) for span in self._exporter.get_finished_spans()}


def reply(code: int = 0, waited_us: int = 0) -> bytes:
    dialect = heads.DIALECT_RESTFUL
    return heads.pack(heads.Head(heads.REPLY, dialect=dialect, status=code, budget_ms=waited_us))


def test_a_door_makes_a_span_below_the_clients_and_the_head_carries_ours() -> None:
    collected = Collected()
    journal = Journal(None, DoorTracer(collected.tracer))
    exchange = journal.begin("rest", "r1", f"00-{TRACE_ID}-{PARENT}-01")
    head = heads.unpack(pack_request(SPEC, heads.DIALECT_RESTFUL, 1, 0, [b"x"])[0])
    failure_of_bus(reply(waited_us=2), [])
    told = dict(journal.reply_keys(exchange))
    journal.end(exchange, 5)
    door, queue = collected.spans()["mindbus.rest"], collected.spans()["mindbus.queue"]
    assert (door["trace"], door["parent"]) == (TRACE_ID, PARENT)
    assert (head.trace_id.hex(), head.span_id.hex()) == (TRACE_ID, door["span"])
    assert head.flags & heads.FLAG_SAMPLED
    assert queue["parent"] == door["span"]
    assert 0 <= queue["end_ns"] - queue["begin_ns"] < 1_000_000, "2 us, and two looks at a clock"
    assert door["attributes"]["mindbus.request_id"] == "r1"
    assert door["attributes"]["mindbus.method"] == "m"
    assert told["traceresponse"] == f"00-{TRACE_ID}-{door['span']}-01"
    assert not door["is_error"]


def test_without_a_parent_a_trace_begins_at_the_door() -> None:
    collected = Collected()
    journal = Journal(None, DoorTracer(collected.tracer))
    journal.end(journal.begin("grpc", None, None), 0)
    door = collected.spans()["mindbus.grpc"]
    assert door["parent"] is None
    assert int(door["trace"], 16) > 0


def test_what_the_caller_does_not_record_is_not_recorded_here() -> None:
    collected = Collected()
    journal = Journal(None, DoorTracer(collected.tracer))
    exchange = journal.begin("rest", None, f"00-{TRACE_ID}-{PARENT}-00")
    head = heads.unpack(pack_request(SPEC, heads.DIALECT_RESTFUL, 1, 0, [b"x"])[0])
    journal.end(exchange, 5)
    assert not collected.spans()
    assert head.trace_id.hex() == TRACE_ID, "who asks for the trace still finds it in the logs"
    assert not head.flags & heads.FLAG_SAMPLED


def test_a_failed_request_has_a_failed_span() -> None:
    collected = Collected()
    journal = Journal(None, DoorTracer(collected.tracer))
    exchange = journal.begin("rest", None, None)
    exchange.fail("queue_full")
    journal.end(exchange, 5)
    door = collected.spans()["mindbus.rest"]
    assert door["is_error"]
    assert door["attributes"]["mindbus.reason"] == "queue_full"


def test_a_worker_makes_spans_of_its_wait_and_every_stage() -> None:
    collected = Collected()
    signature = MethodSignature("add", "m", ("x",), ("y",))
    request = PendingRequest(7, 0, SPEC, signature, [(), ()], 0, False, bytes(16), 10 * MS)
    works = [
        TracedWork(1, "", 4, 12 * MS, 13 * MS),
        TracedWork(2, "net.mindir", 8, 14 * MS, 20 * MS),
    ]
    request.trace = Trace(bytes.fromhex(TRACE_ID), bytes.fromhex(PARENT), works)
    RequestTracer(collected.tracer, {"mindbus.worker": "add/0"}).trace(request, True, 21 * MS)
    spans = [as_plain(span) for span in collected._exporter.get_finished_spans()]
    worker, batch, first, second = spans
    assert [span["name"] for span in spans] == [
        "mindbus.worker",
        "mindbus.batch",
        "mindbus.stage",
        "mindbus.stage",
    ]
    assert (worker["trace"], worker["parent"]) == (TRACE_ID, PARENT)
    assert {batch["parent"], first["parent"], second["parent"]} == {worker["span"]}
    lengths = [round((span["end_ns"] - span["begin_ns"]) / MS) for span in spans]
    assert lengths == [11, 2, 1, 6]
    assert second["attributes"] == {
        "mindbus.stage": 2,
        "mindbus.batch_size": 8,
        "mindbus.model": "net.mindir",
    }


def test_spans_carry_the_time_of_day() -> None:
    collected = Collected()
    journal = Journal(None, DoorTracer(collected.tracer))
    journal.end(journal.begin("rest", None, None), 0)
    assert abs(collected.spans()["mindbus.rest"]["begin_ns"] - time.time_ns()) < 60e9


# ---------------------------------------------------------------- on and off


def test_nothing_of_opentelemetry_is_imported_where_nobody_wants_spans() -> None:
    program = (
        "import sys\n"
        "import mindbus.gateway_process, workers.device_worker\n"
        "from telemetry.tracing import open_tracer\n"
        "assert open_tracer('gateway', {}) is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("exporter", ["no-such-exporter", "no_such_module:Exporter", "json:Absent"])
def test_an_exporter_that_is_not_there_costs_the_spans_only(exporter: str) -> None:
    stream = io.StringIO()
    configure("test", {}, stream)
    environment = {"MINDBUS_TRACING": "on", "OTEL_TRACES_EXPORTER": exporter}
    assert open_tracer("worker", environment) is None
    assert "tracing is off role=worker" in stream.getvalue()


def test_the_environment_names_the_exporter() -> None:
    environment = {"MINDBUS_TRACING": "on", "OTEL_TRACES_EXPORTER": "console"}
    tracer = open_tracer("worker", environment)
    assert tracer is not None
    tracer.close()


def test_a_trace_context_is_what_a_tracer_takes() -> None:
    context = parse_traceparent(f"00-{TRACE_ID}-{PARENT}-01")
    assert context is not None
    collected = Collected()
    collected.tracer.record("name", context, 0, 1, {})
    assert collected.spans()["name"]["parent"] == PARENT
