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

What waits has one of three levels; `priorities.py` says in which order they are served. A request
that comes back from a lost worker stands first in its level.

Rule: a lane has tokens or a backlog, never both.
Rule: where suspects wait, a worker is kept for them, or no device worker has a token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from broker.priorities import Levels
from protocol.head import FLAGS_LOW_BYTE, FLAGS_PRIORITY

if TYPE_CHECKING:
    from broker.service import Request, Worker


class Backlog:
    """Requests that wait, each level in its order. Those that are done are skipped and swept.

    While nobody asks for a level there is one line, and the levels cost nothing.
    """

    __slots__ = ("_levels", "_requests", "count")

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        #: set while somebody waits in another level than NORMAL
        self._levels: Levels | None = None
        #: how many wait
        self.count = 0

    def __iter__(self) -> Iterator[Request]:
        lines = (self._requests,) if self._levels is None else self._levels.lines
        return (request for line in lines for request in line if request.waits_in is self)

    def add(self, request: Request) -> None:
        """Let a request wait behind all others of its level."""
        if self._levels is not None or request.head[FLAGS_LOW_BYTE] & FLAGS_PRIORITY:
            self._line_for(request).append(request)
        else:
            self._requests.append(request)
        request.waits_in = self
        self.count += 1

    def add_first(self, request: Request) -> None:
        """Let a request wait before all others of its level: it has waited before."""
        self._line_for(request).appendleft(request)
        request.waits_in = self
        self.count += 1

    def _line_for(self, request: Request) -> deque[Request]:
        if self._levels is None:
            if not request.head[FLAGS_LOW_BYTE] & FLAGS_PRIORITY:
                return self._requests
            self._levels = Levels(self._requests)
        return self._levels.line_for(request)

    def leave(self, request: Request) -> None:
        """A request waits no longer. It is swept once the dead outnumber the living."""
        assert request.waits_in is self, request.request_id
        request.waits_in = None
        self.count -= 1
        for line in (self._requests,) if self._levels is None else self._levels.lines:
            if len(line) > 2 * self.count + 64:
                living = [each for each in line if each.waits_in is self]
                line.clear()
                line.extend(living)
        self._end_levels()

    def _end_levels(self) -> None:
        """Go back to one line once nobody waits in another level."""
        if self._levels is not None and (not self.count or not self._levels):
            if not self.count:
                self._requests.clear()
            self._levels = None

    def next(self) -> Request | None:
        """Take the request that is next, or None if nobody waits."""
        if self._levels is not None:
            return self._next_by_level(self._levels)
        while self._requests:
            request = self._requests.popleft()
            if request.waits_in is self:
                request.waits_in = None
                self.count -= 1
                return request
        return None

    def _next_by_level(self, levels: Levels) -> Request | None:
        found = None
        while found is None and (level := levels.next_level()) is not None:
            request = levels.lines[level].popleft()
            if request.waits_in is self:
                request.waits_in = None
                self.count -= 1
                levels.note_turn(level)
                found = request
        self._end_levels()
        return found

    def take_all(self) -> list[Request]:
        """Take every request, each level in its order."""
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
