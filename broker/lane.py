"""A lane: requests that the same workers take, and the free tokens of these workers.

Theory of operation. Each unit of a worker's credit that is free is a *token*. A lane hands out the
tokens of its least loaded worker first, so an idle device never waits behind a busy one; among
equals the one that waited longest is next. A token comes home with the worker's reply or dies with
the worker, never with a deadline: a device is never over-committed.

A request whose worker died while it was computed is a *suspect*: it may have been the cause. One
worker is kept for the suspects of a lane, without any other request, and gets one at a time; so if
it dies again, everybody knows whose doing it was, and nobody else is harmed. It is a device worker:
an extra worker would send the model stages of the suspect to others, and that would be one more
attempt to kill one.

Rule: a lane has tokens or a backlog, never both.
Rule: where suspects wait, a worker is kept for them, or no device worker has a token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.service import Request, Worker


class Backlog:
    """Requests that wait, in their order. Those that are done are skipped and swept."""

    __slots__ = ("_requests", "count")

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        #: how many wait
        self.count = 0

    def __iter__(self) -> Iterator[Request]:
        return (request for request in self._requests if request.waits_in is self)

    def add(self, request: Request) -> None:
        """Let a request wait behind all others."""
        self._requests.append(request)
        request.waits_in = self
        self.count += 1

    def add_first(self, request: Request) -> None:
        """Let a request wait before all others: it has waited before."""
        self._requests.appendleft(request)
        request.waits_in = self
        self.count += 1

    def leave(self, request: Request) -> None:
        """A request waits no longer. It is swept once the dead outnumber the living."""
        assert request.waits_in is self, request.request_id
        request.waits_in = None
        self.count -= 1
        if len(self._requests) > 2 * self.count + 64:
            self._requests = deque(self)

    def next(self) -> Request | None:
        """Take the request that is next, or None if nobody waits."""
        while self._requests:
            request = self._requests.popleft()
            if request.waits_in is self:
                request.waits_in = None
                self.count -= 1
                return request
        return None

    def take_all(self) -> list[Request]:
        """Take every request, in their order."""
        taken = []
        while (request := self.next()) is not None:
            taken.append(request)
        return taken


class TokenPool:
    """The free tokens of one lane, least loaded worker first: O(1), no scan of the workers.

    Workers stand in levels by their number of requests in flight; a bit mask tells which levels
    are occupied. An extra worker stands one level higher: an idle device worker answers sooner,
    because its models are not a trip over the bus away.
    """

    __slots__ = ("_levels", "_mask")

    def __init__(self) -> None:
        self._levels: list[dict[Worker, None]] = []
        self._mask = 0

    def __bool__(self) -> bool:
        return self._mask != 0

    def __iter__(self) -> Iterator[Worker]:
        for level in self._levels:
            yield from level

    def add(self, worker: Worker) -> None:
        """Offer the worker's free tokens; nothing happens if it has none."""
        load = len(worker.in_flight)
        if load >= worker.credit:
            return
        load += worker.is_extra
        while len(self._levels) <= load:
            self._levels.append({})
        self._levels[load][worker] = None
        self._mask |= 1 << load

    def remove(self, worker: Worker) -> None:
        """Withdraw the worker's tokens. Call it before its number in flight changes."""
        load = len(worker.in_flight) + worker.is_extra
        if load < len(self._levels):
            level = self._levels[load]
            level.pop(worker, None)
            if not level:
                self._mask &= ~(1 << load)

    def least_loaded(self) -> Worker | None:
        """The worker whose token is next, or None if every token is taken."""
        mask = self._mask
        if not mask:
            return None
        return next(iter(self._levels[(mask & -mask).bit_length() - 1]))

    def least_loaded_device_worker(self) -> Worker | None:
        """The same among device workers. A scan, for what is rare."""
        return next((worker for worker in self if not worker.is_extra), None)


class Lane:
    """A backlog, the suspects, and the tokens of the workers that take from both."""

    __slots__ = ("backlog", "kept", "suspects", "tokens")

    def __init__(self) -> None:
        self.backlog = Backlog()
        self.suspects = Backlog()
        self.tokens = TokenPool()
        #: the worker that is kept for the suspects
        self.kept: Worker | None = None
