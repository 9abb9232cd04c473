"""Who gets a request, and when: tokens for what waits, a worker of their own for suspects."""

from __future__ import annotations

from broker.lane import Lane
from broker.outbox import Outbox
from broker.service import Request, Service, Worker
from protocol import head as heads

NS_PER_MS = 1_000_000


class Dispatcher:
    """Sends requests to workers. Each attempt has a ticket of its own, never used again."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._ticket = 0

    def serve(self, service: Service, now_ns: int) -> None:
        """Give waiting requests to free tokens until one of the two runs out."""
        lanes = service.lanes
        for lane in lanes:
            if lane.kept is not None or lane.suspects.count:
                while any(self._serve_suspects(service, each, now_ns) for each in lanes):
                    pass
                break
        for lane in lanes:
            while lane.backlog.count:
                worker = lane.tokens.least_loaded()
                if worker is None:
                    break
                request = lane.backlog.next()
                assert request is not None, service.key
                self.dispatch(request, worker, now_ns)

    def _serve_suspects(self, service: Service, lane: Lane, now_ns: int) -> bool:
        """Keep a worker for the suspects of a lane, and give it the next one once it is idle.

        Returns whether a worker is free again by it.
        """
        worker = lane.kept
        if worker is None:
            worker = lane.tokens.least_loaded_device_worker() if lane.suspects.count else None
            if worker is None:
                return False
            service.withdraw(worker)
            worker.is_kept = True
            lane.kept = worker
        if worker.in_flight:
            return False
        request = lane.suspects.next()
        if request is not None:
            self.dispatch(request, worker, now_ns)
            return False
        lane.kept = None
        worker.is_kept = False
        service.offer(worker)
        return True

    def dispatch(self, request: Request, worker: Worker, now_ns: int) -> None:
        """Begin an attempt. REQUIRES: the worker has a token, or is kept and idle."""
        self._ticket = ticket = self._ticket + 1
        request.ticket = ticket
        request.worker = worker
        request.begun_ns = now_ns
        request.attempt += 1
        service = worker.service
        service.withdraw(worker)
        if not worker.in_flight:
            worker.moved_ns = now_ns
        worker.in_flight[ticket] = request
        service.offer(worker)
        budget_ms = (request.deadline_ns - now_ns) // NS_PER_MS
        head = heads.restamp(request.head, ticket, budget_ms if budget_ms > 0 else 1)
        if request.attempt > 1:
            head = heads.with_flag(head, heads.FLAG_REDELIVERED)
        self._outbox.dispatch(worker.routing_id, head, request.frames)
