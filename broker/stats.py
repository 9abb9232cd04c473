"""Counters of the broker, and the map that STATS answers with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import compiled
from broker.readiness import why_not_ready
from broker.service import WORKER_STATES, Service
from protocol import control, method_tensors
from protocol import head as heads

if TYPE_CHECKING:
    from broker.core import Core

NS_PER_MS = 1_000_000


@dataclass(slots=True)
class Counters:
    """Totals since start, beside those of the book.

    accepted = answered + failed + cancelled + requests held; the first two follow from the book.
    """

    accepted: int = 0
    cancelled: int = 0
    refused: int = 0
    redispatched: int = 0
    duplicates: int = 0
    #: requests whose remembered answer was given again
    replayed: int = 0
    malformed: int = 0
    replies_late: int = 0
    replies_stale: int = 0
    clients_gone: int = 0
    replies_dropped: int = 0
    workers_lost: int = 0
    #: failures and refusals by reason (`status.REASONS`)
    reasons: Counter[str] = field(default_factory=Counter)


def totals(core: Core) -> dict[str, int]:
    """All counters but the reasons, with `answered` and `failed`."""
    counters = core.counters
    names = (each.name for each in fields(counters) if each.name != "reasons")
    counted = {name: getattr(counters, name) for name in names}
    counted["answered"] = core.book.answered()
    counted["failed"] = core.book.ended() - counted["answered"] - counters.cancelled
    return counted


def describe(core: Core, now_ns: int) -> dict[str, Any]:
    """What `mindbus status` shows: totals, services with their queues, workers with their load."""
    registration = core.registration
    servables = {service.servable: None for service in registration.services.values()}
    requests, request_bytes = core.load()
    counters = core.counters
    return {
        "hot_path": compiled.kind(),
        "requests": requests,
        "request_bytes": request_bytes,
        "requests_max": core.settings.requests_max,
        "tables": {
            "clients": len(core._clients),
            "deadlines": len(core._deadlines),
            "keys": len(core.keys.running),
        },
        "answers": {"count": len(core.keys.answers), "bytes": core.keys.answer_bytes},
        "counters": totals(core),
        "reasons": dict(counters.reasons),
        "attempts": core._dispatcher.attempts,
        "book": core.book.describe(),
        "services": [
            {
                "service": service.key.decode(),
                "servable": service.servable,
                "version": service.version,
                "queued": service.queued,
                "queued_bytes": _queued_bytes(service),
                "suspects": sum(lane.suspects.count for lane in service.lanes),
                "second_attempts": _second_attempts(service),
                "waiting_ms": _waiting_ms(service, now_ns),
                "workers": len(service.workers),
                "methods": service.page.counts(now_ns),
                "not_ready": why_not_ready(service, now_ns, core.settings.ready_ms),
            }
            for service in registration.services.values()
        ],
        "servables": [
            {
                "servable": servable,
                "version": registration.routes[heads.service_key(servable, 0)].version,
                "labels": registration.labels.get(servable, {}),
                "shares": registration.shares(servable),
            }
            for servable in servables
        ],
        "workers": [
            {
                "worker_id": worker.worker_id,
                "generation": worker.generation,
                "service": worker.service.key.decode(),
                "is_extra": worker.is_extra,
                "state": WORKER_STATES[worker.state],
                "in_flight": len(worker.in_flight),
                "credit": worker.credit,
                "batch_seq": worker.progress.batch_seq,
                "busy_ms": worker.progress.busy_ms,
                "heard_ms": (now_ns - worker.heard_ns) // NS_PER_MS,
                **_of_ready(worker.ready),
            }
            for worker in registration.workers.values()
        ],
    }


def _waiting_ms(service: Service, now_ns: int) -> int:
    """How long the one that waits longest has been waiting."""
    backlogs = [each for lane in service.lanes for each in (lane.backlog, lane.suspects)]
    oldest_ns = min((request.since_ns for each in backlogs for request in each), default=now_ns)
    return (now_ns - oldest_ns) // NS_PER_MS


def _queued_bytes(service: Service) -> int:
    backlogs = [each for lane in service.lanes for each in (lane.backlog, lane.suspects)]
    return sum(request.body_bytes for backlog in backlogs for request in backlog)


def _second_attempts(service: Service) -> int:
    """Requests that are computed again, because the worker of their first attempt died."""
    return sum(
        not request.done and request.attempt > 1
        for worker in service.workers
        for request in worker.in_flight.values()
    )


def _of_ready(ready: control.Ready | None) -> dict[str, Any]:
    if ready is None:
        return {}
    methods = [[method.name, method.inputs, method.outputs] for method in ready.methods]
    return {
        "device": ready.device._asdict(),
        "pid": ready.pid,
        "methods": methods,
        "tensors": method_tensors.as_document(ready.methods),
    }
