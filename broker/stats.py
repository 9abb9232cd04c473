"""Counters of the broker, and the map that STATS answers with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker.service import WORKER_STATES, Service
from protocol import control

if TYPE_CHECKING:
    from broker.core import Core


@dataclass(slots=True)
class Counters:
    """Totals since start. accepted = answered + failed + cancelled + requests held."""

    accepted: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    redispatched: int = 0
    duplicates: int = 0
    malformed: int = 0
    replies_late: int = 0
    replies_stale: int = 0
    clients_gone: int = 0
    replies_dropped: int = 0
    workers_lost: int = 0
    #: failures and refusals by reason (`status.REASONS`)
    reasons: Counter[str] = field(default_factory=Counter)


def describe(core: Core) -> dict[str, Any]:
    """What `mindbus status` shows: totals, services with their queues, workers with their load."""
    requests, request_bytes = core.load()
    counters = core.counters
    totals = {name: getattr(counters, name) for name in counters.__slots__ if name != "reasons"}
    return {
        "requests": requests,
        "request_bytes": request_bytes,
        "requests_max": core.settings.requests_max,
        "counters": totals,
        "reasons": dict(counters.reasons),
        "services": [
            {
                "service": service.key.decode(),
                "servable": service.servable,
                "version": service.version,
                "queued": service.queued,
                "suspects": sum(lane.suspects.count for lane in service.lanes),
                "oldest_ns": _oldest_ns(service),
                "workers": len(service.workers),
            }
            for service in core.registration.services.values()
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
                **_of_ready(worker.ready),
            }
            for worker in core.registration.workers.values()
        ],
    }


def _oldest_ns(service: Service) -> int | None:
    backlogs = [each for lane in service.lanes for each in (lane.backlog, lane.suspects)]
    return min((request.since_ns for each in backlogs for request in each), default=None)


def _of_ready(ready: control.Ready | None) -> dict[str, Any]:
    if ready is None:
        return {}
    methods = [[method.name, method.inputs, method.outputs] for method in ready.methods]
    return {"device": ready.device._asdict(), "pid": ready.pid, "methods": methods}
