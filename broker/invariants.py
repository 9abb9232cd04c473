"""What holds between any two calls of the core; the numbers are those of the simulator's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker import service as states
from broker.lane import Lane
from broker.service import Request, Service
from protocol import head as heads
from protocol import limits

if TYPE_CHECKING:
    from broker.core import Core

CALL_PREFIX = heads.CALL_PREFIX.encode()


def check(core: Core) -> None:
    """Assert every invariant. Walks all tables, so it is for tests and the simulator."""
    held: list[Request] = []
    for outstanding in core._clients.values():
        assert outstanding, "a client without requests is not kept"
        held.extend(outstanding.values())
    assert not any(request.done for request in held)
    _check_totals(core, held)
    for service in core.registration.services.values():
        _check_service(service, core)
    _check_workers(core, held)
    counters = core.counters
    ended = counters.answered + counters.failed + counters.cancelled
    assert counters.accepted == ended + len(held), "accounting identity"


def _check_totals(core: Core, held: list[Request]) -> None:
    assert core.load() == (len(held), sum(request.body_bytes for request in held))
    assert len(core._deadlines) == len(held), "every held request has its deadline"
    # I6: limits
    calls = sum(heads.method_of(request.head).startswith(CALL_PREFIX) for request in held)
    assert len(held) - calls <= core.settings.requests_max
    assert len(held) <= core.settings.requests_max + limits.CALLS_RESERVE
    assert core.load()[1] <= core.settings.request_bytes_max


def _check_service(service: Service, core: Core) -> None:
    for lane in service.lanes:
        for backlog in (lane.backlog, lane.suspects):
            waiting = list(backlog)
            assert backlog.count == len(waiting)
            assert not any(request.done for request in waiting)
            assert all(request.lane is lane is service.lane_of(request.head) for request in waiting)
        assert not (lane.backlog.count and lane.tokens), f"I4: {service.key!r}: backlog and tokens"
        _check_suspects(service, lane)
        takers = {worker for worker in service.workers if lane in worker.lanes}
        pooled = set(lane.tokens)
        for worker in takers:
            free = worker.state == states.READY and len(worker.in_flight) < worker.credit
            assert (worker in pooled) == (free and not worker.is_kept), worker.worker_id
        assert pooled <= takers, "I3: no tokens of a worker that is gone"
    for worker in service.workers:
        assert core.registration.workers[worker.routing_id] is worker
        assert worker.lanes == (service.lanes[-1:] if worker.is_extra else service.lanes)
    assert (service.give_up_ns is None) == service.has_device_worker


def _check_suspects(service: Service, lane: Lane) -> None:
    kept = lane.kept
    if lane.suspects.count and kept is None:
        idle = lane.tokens.least_loaded_device_worker()
        assert idle is None, f"I11: suspects of {service.key!r} wait beside tokens"
    if kept is None:
        return
    assert kept.is_kept
    assert not kept.is_extra
    assert kept in service.workers
    assert kept.state == states.READY
    assert kept.in_flight, "I11: a worker is kept for nobody"
    running = [request for request in kept.in_flight.values() if not request.done]
    if any(request.attempt > 1 for request in running):
        assert len(kept.in_flight) == 1, "I11: a suspect is not alone"


def _check_workers(core: Core, held: list[Request]) -> None:
    tickets: set[int] = set()
    running: set[int] = set()
    for worker in core.registration.workers.values():
        assert worker.state in (states.READY, states.DRAINING)
        assert len(worker.in_flight) <= worker.credit, f"I2: {worker.worker_id} above its credit"
        for ticket, request in worker.in_flight.items():
            assert ticket not in tickets, "I10: a ticket stands twice"
            tickets.add(ticket)
            assert request.done or (request.ticket == ticket and request.worker is worker), "I5"
            assert not (request.done and request.frames), "a body is held for nobody"
            if not request.done:
                running.add(id(request))
    for request in held:
        waits = request.waits_in is not None
        assert waits != (id(request) in running), "I5: held = waiting or running"
        assert request.attempt <= core.settings.attempts_max
