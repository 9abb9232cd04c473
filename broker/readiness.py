"""Whether a service is ready: a warmed worker takes its requests and makes progress. Pure.

A worker registers when it is warm. It makes progress unless it was silent, or has held requests
without an answer, for `ready_ms`; one that says that it compiles is given its time. So a queue
that does not move makes a service not ready, whatever the workers' threads still say.
"""

from __future__ import annotations

from broker.service import READY, Service, Worker

NS_PER_MS = 1_000_000


def why_not_ready(service: Service, now_ns: int, ready_ms: int) -> str | None:
    """None if the service is ready."""
    key = service.key.decode()
    workers = [worker for worker in service.workers if not worker.is_extra]
    if not workers:
        return f"{key} has no worker" + (f": {service.retired}" if service.retired else "")
    workers = [worker for worker in workers if worker.state == READY]
    if not workers:
        return f"every worker of {key} drains"
    reasons = [_why_stuck(worker, now_ns, ready_ms) for worker in workers]
    return None if None in reasons else f"no worker of {key} makes progress: {reasons[0]}"


def _why_stuck(worker: Worker, now_ns: int, ready_ms: int) -> str | None:
    silent_ms = (now_ns - worker.heard_ns) // NS_PER_MS
    if silent_ms >= ready_ms:
        return f"{worker.worker_id} has been silent for {silent_ms} ms"
    if worker.in_flight and now_ns >= worker.patient_until_ns:
        still_ms = (now_ns - max(worker.moved_ns, worker.patient_until_ns)) // NS_PER_MS
        if still_ms >= ready_ms:
            return (
                f"{worker.worker_id} holds {len(worker.in_flight)} requests and has answered none "
                f"for {still_ms} ms"
            )
    return None
