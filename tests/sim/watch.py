"""Looks at what one life of the broker sends: order, tickets, drains."""

from __future__ import annotations

from typing import Any

from broker.core import Core
from broker.priorities import HIGH, LOW, NORMAL, level_of
from broker.service import Service
from protocol import control
from protocol import head as heads


class Watch:
    """What a core must do in its order; begins anew with each core.

    has_versions: requests for version 0 may move between versions.
    """

    def __init__(self, core: Core, has_versions: bool) -> None:
        self._core = core
        self._has_versions = has_versions
        self._arrivals: dict[bytes, int] = {}
        #: payload -> the service that the request was bound to when it came
        self._bound: dict[bytes, bytes] = {}
        #: payloads that have lost their place in a line: they were sent to a worker before, or were
        #: for version 0, and their version took no work any more
        self._displaced: set[bytes] = set()
        self._dispatched: dict[bytes, int] = {}
        self._drained: set[bytes] = set()
        self._ticket_last = 0
        #: between versions the order can be told only if each move is seen
        self._knows_order = True
        # One event may move a request to another version and back, behind the others.
        rehome = core.registration.rehome

        def watched_rehome(service: Service, now_ns: int) -> None:
            rehome(service, now_ns)
            self.note_displaced()

        try:
            core.registration.rehome = watched_rehome  # type: ignore[method-assign]
        except AttributeError:  # a core that is compiled keeps its methods
            self._knows_order = not has_versions

    def note_arrival(self, parts: list[Any]) -> None:
        """A client's message is about to reach the core."""
        for head, frames in heads.split_parcels(parts):
            if head[3] != heads.REQUEST:
                continue
            if (
                frames[0] in self._arrivals
            ):  # under a key: it has the place of the first one, if any
                self._displaced.add(frames[0])
            self._arrivals.setdefault(frames[0], len(self._arrivals))

    def note_bound(self, client: bytes) -> None:
        """The core has taken a client's message."""
        for request in self._core._clients.get(client, {}).values():
            self._bound.setdefault(bytes(request.frames[0]), request.service.key)

    def note_displaced(self) -> None:
        """The core has acted: who waits in another line now?"""
        if not self._has_versions:
            return
        for outstanding in self._core._clients.values():
            for request in outstanding.values():
                payload = bytes(request.frames[0])
                if request.service.key != self._bound[payload]:
                    self._displaced.add(payload)

    def check_leaving(self, routing_id: bytes, parts: list[Any]) -> None:
        """A worker that says that it is drained has answered everything."""
        worker = self._core.registration.workers.get(routing_id)
        if worker is None or parts[0][3] != heads.DISCONNECT:
            return
        if control.unpack_disconnect(parts[1:]).reason == "drained":
            assert not worker.in_flight, f"{worker.worker_id} left with {list(worker.in_flight)}"

    def check_lines(self) -> None:
        """Who was sent to a worker before, and comes back, is first in its level.

        Requests that move to another version stand behind all others, so only where there is one.
        """
        if self._has_versions:
            return
        for service in self._core.registration.services.values():
            for lane in service.lanes:
                for level in (HIGH, NORMAL, LOW):
                    waiting = [each for each in lane.backlog if level_of(each.head) == level]
                    returned = sum(bool(request.ticket) for request in waiting)
                    assert all(request.ticket for request in waiting[:returned]), (
                        "I9: who comes back stands first in its level"
                    )

    def check_dispatch(self, to_workers: dict[bytes, list[Any]]) -> None:
        """Check the requests of one turn in the order of their tickets."""
        requests: list[tuple[int, bytes, bytes, Any]] = []
        workers = self._core.registration.workers
        for routing_id, parts in to_workers.items():
            for frame, frames in heads.split_parcels(parts):
                head = heads.unpack(frame)
                if head.command == heads.DRAIN:
                    self._drained.add(routing_id)
                elif head.command == heads.REQUEST:
                    assert routing_id not in self._drained, "I3: a request behind the drain"
                    requests.append((head.request_id, routing_id, frame, frames[0]))
        if requests:
            self.note_displaced()
        for ticket, routing_id, frame, payload in sorted(requests, key=lambda item: item[0]):
            head = heads.unpack(frame)
            assert ticket > self._ticket_last, "I10: a ticket is used again"
            self._ticket_last = ticket
            assert payload not in self._core.keys.answers, "what was answered is executed again"
            worker = workers.get(routing_id)
            if head.flags & heads.FLAG_REDELIVERED or worker is None:
                continue
            # Requests of one service wait in line with those of the same method and level.
            is_displaced = payload in self._displaced or self._bound[payload] != worker.service.key
            self._displaced.add(payload)
            if is_displaced or not self._knows_order:
                continue
            line = worker.service.key + head.method + bytes((level_of(frame),))
            arrival, key = self._arrivals[payload], line
            assert arrival > self._dispatched.get(key, -1), "I9: FIFO of first attempts"
            self._dispatched[key] = arrival
