"""Deadlines of all requests, in a wheel of ticks: O(1) to add and to take out.

Rule: a deadline fires at the end of its tick, so never early and at most one tick late.
Rule: an empty tick is not kept; the wheel of an idle broker is empty.
"""

from __future__ import annotations

import heapq

from broker.service import Request

#: Width of a tick. Deadlines are given in milliseconds; 5 ms is well below what a client can see
#: and lets a thousand requests per tick share one timer.
TICK_NS = 5_000_000

#: The heap of ticks is rebuilt when this many of its entries more than the live ones are stale.
STALE_TICKS_MAX = 256


class Deadlines:
    """The wheel. Keys are tick numbers (`deadline_ns // TICK_NS`); values are the requests."""

    def __init__(self) -> None:
        self._ticks: dict[int, dict[Request, None]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return sum(len(requests) for requests in self._ticks.values())

    def add(self, request: Request) -> None:
        """Watch `request.deadline_ns`."""
        tick = request.deadline_ns // TICK_NS
        requests = self._ticks.get(tick)
        if requests is None:
            self._ticks[tick] = {request: None}
            heapq.heappush(self._order, tick)
        else:
            requests[request] = None

    def discard(self, request: Request) -> None:
        """Stop watching a request; harmless if its deadline has fired already."""
        tick = request.deadline_ns // TICK_NS
        requests = self._ticks.get(tick)
        if requests is None:
            return
        requests.pop(request, None)
        if not requests:
            del self._ticks[tick]
            if len(self._order) > len(self._ticks) + STALE_TICKS_MAX:
                self._order = sorted(self._ticks)

    def next_ns(self) -> int | None:
        """When the earliest tick ends, or None if nothing is watched."""
        order = self._order
        while order and order[0] not in self._ticks:
            heapq.heappop(order)
        return (order[0] + 1) * TICK_NS if order else None

    def expired(self, now_ns: int) -> list[Request]:
        """Take out and return every request whose tick has ended, earliest tick first."""
        requests: list[Request] = []
        while True:
            next_ns = self.next_ns()
            if next_ns is None or next_ns > now_ns:
                return requests
            requests.extend(self._ticks.pop(heapq.heappop(self._order)))
