"""What a worker is doing, on a page of memory that its supervisor reads.

A worker that hangs in C with the GIL held can say nothing any more, whatever thread would; but what
it wrote last is still there. Times are of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

PROGRESS_FD = "MINDBUS_PROGRESS_FD"

PAGE_BYTES = mmap.PAGESIZE

#: Places of the page, 8 bytes each, so that each is written and read at one stroke. The rest is a
#: for tickets that were started.
_BEAT, _WORK_SINCE, _BUSY_UNTIL, _IS_WAITING, _TICKETS = range(5)

#: Tickets that the page has room for: a worker holds no more requests than this at once.
STARTED_MAX = PAGE_BYTES // 8 - _TICKETS


class Progress(NamedTuple):
    """One look at a page; 0 where nothing was written.

    beat_ns: when the bus thread last came round. work_since_ns: since when the oldest work that
    runs has been running, 0 = idle. busy_until_ns: until when the worker asks for patience.
    is_waiting: it waits for another worker, so that its own work cannot go on.
    """

    beat_ns: int
    work_since_ns: int
    busy_until_ns: int
    is_waiting: bool = False


class ProgressPage:
    """One page, mapped by the worker and by its supervisor."""

    def __init__(self, fd: int) -> None:
        """fd: of a memory file of PAGE_BYTES; stays the caller's."""
        self._map = mmap.mmap(fd, PAGE_BYTES)
        self._places = memoryview(self._map).cast("Q")
        #: the worker's: where each started ticket stands, and the free places. The one that has
        #: been free for longest is next, so a ticket is still there when its reply leaves.
        self._place_of: dict[int, int] = {}
        self._free = deque(range(_TICKETS, PAGE_BYTES // 8))
        #: the worker's: until when each of its threads asks for patience, where it does
        self._patience: dict[int, int] = {}
        self._patience_lock = threading.Lock()

    @staticmethod
    def make_fd() -> int:
        """A new memory file for one worker. Raises OSError."""
        fd = os.memfd_create("mindbus-progress", os.MFD_CLOEXEC)
        os.ftruncate(fd, PAGE_BYTES)
        return fd

    # ------------------------------------------------------------ the worker

    def beat(self, now_ns: int) -> None:
        """The bus thread comes round."""
        self._places[_BEAT] = now_ns

    def work(self, since_ns: int) -> None:
        """The oldest work that runs began then; 0 = none runs."""
        self._places[_WORK_SINCE] = since_ns

    def start(self, tickets: Iterable[int]) -> None:
        """These tickets are computed for the first time from now on."""
        for ticket in tickets:
            place = self._place_of[ticket] = self._free.popleft()
            self._places[place] = ticket

    def end(self, tickets: Iterable[int]) -> None:
        """These tickets are answered; their places may be used again."""
        for ticket in tickets:
            place = self._place_of.pop(ticket, None)
            if place is not None:
                self._free.append(place)

    def clear(self) -> None:
        """A new connection: what was started is void, and another broker counts anew."""
        self.end(list(self._place_of))
        for place in self._free:
            self._places[place] = 0

    def busy_until(self, until_ns: int) -> None:
        """Something long begins on this thread, such as a compilation; 0 = it is over.

        The page says the latest of what all threads ask for.
        """
        thread = threading.get_ident()
        with self._patience_lock:
            if until_ns:
                self._patience[thread] = until_ns
            else:
                self._patience.pop(thread, None)
            self._places[_BUSY_UNTIL] = max(self._patience.values(), default=0)

    def wait(self, is_waiting: bool) -> None:
        """The reply of another worker is waited for, or has come."""
        self._places[_IS_WAITING] = is_waiting

    def restart_clock(self, now_ns: int) -> None:
        """The time of patience or of waiting does not count for the work that runs."""
        if self._places[_WORK_SINCE]:
            self._places[_WORK_SINCE] = now_ns

    # ------------------------------------------------------------ the supervisor

    def read(self) -> Progress:
        """What the page says."""
        places = self._places
        beat, since, until = places[_BEAT], places[_WORK_SINCE], places[_BUSY_UNTIL]
        return Progress(beat, since, until, bool(places[_IS_WAITING]))

    def started(self) -> tuple[int, ...]:
        """The tickets that were started, also some that are answered by now."""
        return tuple(ticket for ticket in self._places[_TICKETS:] if ticket)

    def close(self) -> None:
        """Unmap the page."""
        self._places.release()
        self._map.close()


def page_from_environment() -> ProgressPage | None:
    """The page that the supervisor gave this process, if it did."""
    number = os.environ.pop(PROGRESS_FD, None)
    if number is None:
        return None
    with contextlib.suppress(OSError, ValueError):  # a descriptor that is none of a page
        page = ProgressPage(int(number))
        os.close(int(number))
        return page
    return None
