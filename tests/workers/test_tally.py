"""What a worker counts: runs of models and stages, waits, results; it rides in heartbeats."""

from __future__ import annotations

from protocol import control, head
from protocol import worker_session as ws
from protocol.control import Histogram
from protocol.values import MethodSignature, RequestSpec
from protocol.worker_session import SessionSettings, WorkerSession
from workers.stages.rows import PendingRequest, Plan, Row, Step, Subgraph, Work
from workers.stages.tally import SIZE_BOUNDS, TIME_BOUNDS_NS, Tally

MS = 1_000_000
MODEL = Subgraph("net.mindir", 0)


def work(count: int, model: Subgraph | None = MODEL) -> Work:
    signature = MethodSignature("net", "m", ("x",), ("y",))
    spec = RequestSpec("net", "m", 1)
    request = PendingRequest(1, 0, spec, signature, [()] * count, 0, False, bytes(16))
    step = Step(2, None, model, 8, False)  # type: ignore[arg-type]
    plan = Plan("m", (step,), ())
    return Work(model, [Row(request, index, plan) for index in range(count)], 1, 0)


def named(tally: Tally) -> dict[str, Histogram]:
    return {histogram.name: histogram for histogram in tally.numbers()}


def test_a_run_of_a_model_is_entered_with_its_time_and_its_size() -> None:
    tally = Tally()
    tally.complete(work(5), 3 * MS)
    tally.complete(work(1), 3 * MS)
    runs, sizes = named(tally)["compute_ns"], named(tally)["batch_size"]
    assert runs.labels == sizes.labels == (("model", "net.mindir"), ("subgraph", "0"))
    assert (runs.counts[TIME_BOUNDS_NS.index(5 * MS)], runs.total) == (2, 6 * MS)
    assert sizes.counts[SIZE_BOUNDS.index(8)] == sizes.counts[SIZE_BOUNDS.index(1)] == 1
    assert sizes.total == 6


def test_a_python_stage_is_entered_by_method_and_number() -> None:
    tally = Tally()
    tally.complete(work(5, None), 3 * MS)
    stage = named(tally)["stage_ns"]
    assert (stage.name, stage.labels) == ("stage_ns", (("method", "m"), ("stage", "2")))


def test_an_execution_is_a_batch_of_the_first_stage() -> None:
    tally = Tally()
    tally.complete(work(5), 3 * MS)
    tally.complete(work(2, None), 3 * MS)
    later = work(3)
    for row in later.rows:
        row.position = 1
    tally.complete(later, 3 * MS)
    executions = named(tally)["executions"]
    assert (executions.labels, executions.counts) == ((("method", "m"),), (2,))


def test_waits_results_and_compilations_are_entered() -> None:
    tally = Tally()
    tally.begin_request("m", 2 * MS)
    tally.end_instances("m", "ok")
    tally.end_instances("m", "ok", 2)
    tally.compile_model("net.mindir")
    numbers = named(tally)
    assert numbers["worker_wait_ns"].total == 2 * MS
    assert numbers["instances"].counts == (3,)
    assert numbers["recompiles"].counts == (1,)


def test_heartbeats_carry_the_numbers_and_a_worker_that_leaves_says_the_last_ones() -> None:
    tally = Tally()
    device = control.Device("CPU", 0)
    offer = control.Ready("w", 1, "net/1", 1, (), device, 1, "net")
    session = WorkerSession(SessionSettings(offer))
    session.read_numbers = tally.numbers
    session.connect(0)
    session.receive(control.pack(control.Welcome(1_000, 10)), 0)
    session.outbox.clear()
    tally.end_instances("m", "ok")
    session.handle_timer(1_000 * MS)
    tally.end_instances("m", "ok")
    session.drain(1_001 * MS)
    session.receive(control.pack(control.Drain()), 1_002 * MS)
    assert session.state == ws.CLOSED
    commands = [head.unpack(bytes(parts[0])).command for parts in session.outbox]
    assert commands == [head.HEARTBEAT, head.DRAIN, head.HEARTBEAT, head.DISCONNECT]
    beats = [control.unpack_heartbeat(session.outbox[at][1:]) for at in (0, 2)]
    assert [beat.numbers[0].counts for beat in beats] == [(1,), (2,)]
