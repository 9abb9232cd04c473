"""What holds between any two calls of the core; the numbers are those of the simulator's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker import service as states
from broker.lane import Backlog, Lane
from broker.priorities import NORMAL, level_of
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
        held += outstanding.values()
    _check_totals(core, held)
    for service in core.registration.services.values():
        _check_service(service, core)
    _check_workers(core, held)
    _check_keys(core, held)
    counters = core.counters
    assert counters.accepted == core.book.ended() + len(held), "accounting identity"
    assert core.book.ended() >= core.book.answered() + counters.cancelled


def _check_totals(core: Core, held: list[Request]) -> None:
    body_bytes = 0
    for request in held:
        body_bytes += request.body_bytes
    assert core.load() == (len(held), body_bytes)
    assert len(core._deadlines) == len(held), "every held request has its deadline"
    # I6: limits
    settings = core.settings
    if len(held) > settings.requests_max:
        calls = sum(heads.method_of(request.head).startswith(CALL_PREFIX) for request in held)
        assert len(held) - calls <= settings.requests_max
        assert len(held) <= settings.requests_max + limits.CALLS_RESERVE
    assert body_bytes <= settings.request_bytes_max


def _check_keys(core: Core, held: list[Request]) -> None:
    keys = core.keys
    assert keys.running.keys() <= set(held), "a key stands for nobody"
    assert {key: request for request, key in keys.running.items()} == {
        key: request for key, (request, _) in keys.requests.items()
    }
    assert keys.answers.keys().isdisjoint(keys.requests), "a key stands for two things"
    assert keys.answer_bytes == sum(answer.size for answer in keys.answers.values())
    assert keys.answer_bytes <= limits.ANSWERS_BYTES_MAX


def _check_service(service: Service, core: Core) -> None:
    for lane in service.lanes:
        _check_backlog(service, lane, lane.backlog, core)
        _check_backlog(service, lane, lane.suspects, core)
        assert not (lane.backlog.count and lane.tokens), f"I4: {service.key!r}: backlog and tokens"
        _check_suspects(service, lane)
        pooled = set(lane.tokens)
        for worker in service.workers:
            if lane in worker.lanes:
                free = worker.state == states.READY and len(worker.in_flight) < worker.credit
                assert (worker in pooled) == (free and not worker.is_kept), worker.worker_id
                pooled.discard(worker)
        assert not pooled, "I3: no tokens of a worker that is gone"
    for worker in service.workers:
        assert core.registration.workers[worker.routing_id] is worker
        assert worker.lanes == (service.lanes[-1:] if worker.is_extra else service.lanes)
    assert (service.give_up_ns is None) == service.has_device_worker


def _check_backlog(service: Service, lane: Lane, backlog: Backlog, core: Core) -> None:
    waiting = list(backlog)
    assert backlog.count == len(waiting)
    levels = backlog._levels
    if levels is not None:
        assert levels, "levels are kept for nobody"
        for level, line in enumerate(levels.lines):
            assert all(level_of(request.head) == level for request in line)
    if not waiting:
        return
    for request in waiting:
        assert not request.done
        assert levels is not None or level_of(request.head) == NORMAL
        assert request.service is service
        assert request.lane is lane
    alias = heads.service_key(service.servable, 0)
    if not service.takes_work and core.registration.routes[alias].takes_work:
        asked = [heads.service_of(request.head) for request in waiting]
        assert alias not in asked, f"I12: version 0 waits for {service.key!r}, which takes no work"
    if len(service.lanes) > 1:
        assert all(service.lane_of(request.head) is lane for request in waiting)


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


def _check_workers(core: Core, held: list[Request]) -> None:
    tickets: set[int] = set()
    running: set[Request] = set()
    for worker in core.registration.workers.values():
        in_flight = worker.in_flight
        assert worker.state in (states.READY, states.DRAINING)
        assert len(in_flight) <= worker.credit, f"I2: {worker.worker_id} above its credit"
        assert tickets.isdisjoint(in_flight), "I10: a ticket stands twice"
        tickets.update(in_flight)
        for ticket, request in in_flight.items():
            if request.done:
                assert not request.frames, "a body is held for nobody"
            else:
                assert request.ticket == ticket, "I5: a ticket of an older attempt"
                assert request.worker is worker, "I5: somebody else computes it"
                running.add(request)
                assert not request.deaths or len(in_flight) == 1, "I11: a suspect is not alone"
    attempts_max = core.settings.attempts_max
    for request in held:
        assert not request.done
        waits = request.waits_in is not None
        assert waits != (request in running), "I5: held = waiting or running"
        assert request.attempt <= attempts_max
    assert running.issubset(held), "I5: somebody computes for nobody"
