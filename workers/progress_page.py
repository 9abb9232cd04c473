"""What a worker is doing, on a page of memory that its supervisor reads.

A worker that hangs in C with the GIL held can say nothing any more, whatever thread would; but what
it wrote last is still there. Times are of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable
from typing import NamedTuple

PROGRESS_FD = "MINDBUS_PROGRESS_FD"

PAGE_BYTES = mmap.PAGESIZE

#: Places of the page, 8 bytes each, so that each is written and read at one stroke. The rest is a
#: ring of tickets.
_BEAT, _WORK_SINCE, _BUSY_UNTIL, _TICKETS = range(4)

#: Tickets that the page remembers. A worker holds no more requests than this at once, or what it
#: had started could be forgotten.
STARTED_MAX = PAGE_BYTES // 8 - _TICKETS


class Progress(NamedTuple):
    """One look at a page; 0 where nothing was written.

    beat_ns: when the bus thread last came round. work_since_ns: since when the oldest work that
    runs has been running, 0 = idle. busy_until_ns: until when the worker asks for patience.
    """

    beat_ns: int
    work_since_ns: int
    busy_until_ns: int


class ProgressPage:
    """One page, mapped by the worker and by its supervisor."""

    def __init__(self, fd: int) -> None:
        """fd: of a memory file of PAGE_BYTES; stays the caller's."""
        self._map = mmap.mmap(fd, PAGE_BYTES)
        self._places = memoryview(self._map).cast("Q")
        #: where in the ring the next ticket goes; the worker's
        self._next = 0

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
            self._places[_TICKETS + self._next] = ticket
            self._next = (self._next + 1) % STARTED_MAX

    def busy_until(self, until_ns: int) -> None:
        """Something long begins, such as a compilation; 0 = it is over."""
        self._places[_BUSY_UNTIL] = until_ns

    # ------------------------------------------------------------ the supervisor

    def read(self) -> Progress:
        """What the page says."""
        places = self._places
        return Progress(places[_BEAT], places[_WORK_SINCE], places[_BUSY_UNTIL])

    def started(self) -> tuple[int, ...]:
        """The tickets that were started last, also such that are answered by now."""
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
