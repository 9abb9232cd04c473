"""The book: how many requests ended, with which code and after how long, and what workers count.

Theory of operation. A request is entered once, when it ends (`enter`, the only line on the hot
path), into the page of the service that had it last. Of each method and code a page has one list of
plain integers: how many ended within each bound, and the sum of their times; so one increment
counts a request and places it. Nothing else is made before somebody asks (`describe`).

Workers say in each heartbeat what they have counted since their start; the page keeps the latest
word of each, and the sums of those that are gone.

Rule: a page outlives its service and its workers, so no number ever gets smaller.
Rule: a client cannot make an entry of a new name: a method has one once a worker has offered it,
others are entered together, without a name. So are refusals of services that are not known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any

from protocol import head as heads
from protocol import limits, status
from protocol.control import Histogram, Numbers
from protocol.head import FIXED_BYTES, SERVICE_SIZE_OFFSET, WAITED_US_MAX

if TYPE_CHECKING:
    from broker.service import Request

#: Upper bounds of the times of requests, in nanoseconds: 0.5 ms to 60 s, three or four in a decade;
#: from what a small model takes to what a client waits for.
BOUNDS_NS = (
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000,
    250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000,
    30_000_000_000, 60_000_000_000,
)  # fmt: skip

NS_PER_MS = 1_000_000

CALL_PREFIX = heads.CALL_PREFIX.encode()

#: A code has one byte in the head.
CODES = 256


def _empty() -> list[int]:
    """A bucket for each bound, one for what is longer, and the sum of the times."""
    return [0] * (len(BOUNDS_NS) + 2)


class MethodBook:
    """The ended requests of one method of one service."""

    __slots__ = ("codes", "instances", "last_ns", "undispatched", "waits")

    def __init__(self) -> None:
        #: by gRPC number: times from the arrival to the end
        self.codes: list[list[int] | None] = [None] * CODES
        #: times from the arrival to the last dispatch, of those that waited
        self.waits = _empty()
        #: those that ended before they were dispatched
        self.undispatched = 0
        #: of requests that succeeded
        self.instances = 0
        #: when one succeeded last
        self.last_ns = 0

    @property
    def ended(self) -> int:
        """How many requests were entered."""
        return sum(sum(cell[:-1]) for cell in self.codes if cell)

    def counts(self, now_ns: int) -> dict[str, int]:
        """Totals; times in ns, from the arrival to the end.

        fail: whoever said so. quiet_ms: since one succeeded last, if one did.
        """
        succeeded = self.codes[status.OK] or _empty()
        failed = [
            cell
            for code, cell in enumerate(self.codes)
            if cell is not None and code not in (status.OK, status.CANCELLED)
        ]
        return {
            "success": sum(succeeded[:-1]),
            "success_ns": succeeded[-1],
            "queue_ns": self.waits[-1],
            "instances": self.instances,
            "fail": sum(sum(cell[:-1]) for cell in failed),
            "fail_ns": sum(cell[-1] for cell in failed),
            "quiet_ms": (now_ns - self.last_ns) // NS_PER_MS if self.last_ns else 0,
        }

    def queue_waits(self) -> list[int]:
        """The times that all that were dispatched waited; most of them did not."""
        at_once = self.ended - self.undispatched - sum(self.waits[:-1])
        return [self.waits[0] + at_once, *self.waits[1:]]


class Page:
    """The numbers of one service. It is kept when the service is not."""

    __slots__ = ("_latest", "_past", "is_open", "methods", "unnamed")

    def __init__(self) -> None:
        #: a service enters its requests here
        self.is_open = True
        self.methods: dict[bytes, MethodBook] = {}
        #: methods that no worker has offered
        self.unnamed = MethodBook()
        #: worker id -> generation, and what this process said last
        self._latest: dict[str, tuple[int, Numbers]] = {}
        #: what processes that others replaced had counted
        self._past: dict[tuple[str, tuple[tuple[str, str], ...]], Histogram] = {}

    def offer(self, methods: frozenset[bytes]) -> None:
        """A worker offers these methods: each has entries of its own from now on."""
        for method in methods:
            self.methods.setdefault(method, MethodBook())

    def counts(self, now_ns: int) -> dict[str, dict[str, int]]:
        """The counts of each method that clients may ask for."""
        return {
            name.decode(errors="backslashreplace"): book.counts(now_ns)
            for name, book in self.methods.items()
            if not name.startswith(CALL_PREFIX)
        }

    def hear(self, worker_id: str, generation: int, numbers: Numbers) -> None:
        """What a worker has counted since its start; it replaces what it said before.

        What processes before it counted stays counted. A worker that registers again, after it was
        taken for dead or with another broker, goes on with its own numbers.
        """
        latest = self._latest.get(worker_id)
        if latest is not None and latest[0] != generation:
            self._keep(worker_id)
        elif latest is None and len(self._latest) >= limits.WORKER_SERIES_MAX:
            self._keep(next(iter(self._latest)))
        self._latest[worker_id] = generation, numbers

    def _keep(self, worker_id: str) -> None:
        for histogram in self._latest.pop(worker_id)[1]:
            _add(self._past, histogram)

    @property
    def ended(self) -> int:
        """How many requests were entered."""
        return sum(book.ended for book in (self.unnamed, *self.methods.values()))

    @property
    def answered(self) -> int:
        """How many of them with OK."""
        cells = [book.codes[status.OK] for book in (self.unnamed, *self.methods.values())]
        return sum(sum(cell[:-1]) for cell in cells if cell)

    def worker_numbers(self) -> list[Histogram]:
        """The sums over all workers, those of the past too."""
        sums = dict(self._past)
        for _, numbers in self._latest.values():
            for histogram in numbers:
                _add(sums, histogram)
        return list(sums.values())


def _add(
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], Histogram], histogram: Histogram
) -> None:
    key = histogram.name, histogram.labels
    before = sums.get(key)
    if before is not None and before.bounds == histogram.bounds:
        counts = tuple(map(sum, zip(before.counts, histogram.counts, strict=True)))
        sums[key] = before._replace(counts=counts, total=before.total + histogram.total)
    elif before is not None or len(sums) < limits.WORKER_SERIES_MAX:
        sums[key] = histogram


class Book:
    """The pages of all services that ever had a worker, and the refusals."""

    def __init__(self) -> None:
        self._pages: dict[bytes, Page] = {}
        #: requests of pages that are forgotten: all, and those that were answered
        self._forgotten = 0
        self._forgotten_answered = 0
        #: (service key, reason) of requests that were not accepted; key b"" if it is not known
        self.refusals: Counter[tuple[bytes, str]] = Counter()

    def page(self, key: bytes) -> Page:
        """The page of a service `servable/version`, which begins."""
        page = self._pages.get(key)
        if page is None:
            self._make_room()
            page = self._pages[key] = Page()
        page.is_open = True
        return page

    def close(self, key: bytes) -> None:
        """A service is no more; its page is kept, until there are too many."""
        self._pages[key].is_open = False

    def _make_room(self) -> None:
        if len(self._pages) >= limits.PAGES_MAX:
            oldest = next((key for key, page in self._pages.items() if not page.is_open), None)
            if oldest is not None:
                page = self._pages.pop(oldest)
                self._forgotten += page.ended
                self._forgotten_answered += page.answered

    def describe(self) -> dict[str, Any]:
        """Plain values for STATS: see docs/PROTOCOL.md §5."""
        requests, waits, workers = [], [], []
        for packed, page in self._pages.items():
            key = packed.decode()
            methods = {b"": page.unnamed, **page.methods}
            for method, book in methods.items():
                name = method.decode()
                codes = enumerate(book.codes)
                ended = [[key, name, _name(code), cell] for code, cell in codes if cell]
                requests += ended
                if ended:
                    waits.append([key, name, book.queue_waits()])
            workers += [
                [key, h.name, h.labels, h.bounds, h.counts, h.total] for h in page.worker_numbers()
            ]
        return {
            "bounds_ns": BOUNDS_NS,
            "requests": requests,
            "waits": waits,
            "refusals": [[key.decode(), *rest, n] for (key, *rest), n in self.refusals.items()],
            "workers": workers,
        }

    def ended(self) -> int:
        """How many requests were entered."""
        return self._forgotten + sum(page.ended for page in self._pages.values())

    def answered(self) -> int:
        """How many of them with OK."""
        return self._forgotten_answered + sum(page.answered for page in self._pages.values())


def enter(request: Request, code: int, now_ns: int, instances: int = 0) -> int:
    """Count a request that ends now with a gRPC number. Hot: every request comes here once.

    instances: how many of them were computed.
    Returns: for how many microseconds it waited, as a head can say it.
    """
    head = request.head
    page = request.service.page
    book = page.methods.get(head[FIXED_BYTES + head[SERVICE_SIZE_OFFSET] :])
    if book is None:
        book = page.unnamed
    cell = book.codes[code]
    if cell is None:
        cell = book.codes[code] = _empty()
    took_ns = now_ns - request.since_ns
    cell[bisect_left(BOUNDS_NS, took_ns)] += 1
    cell[-1] += took_ns
    if code == status.OK:
        book.instances += instances
        book.last_ns = now_ns
    waited_ns = request.dispatched_ns - request.since_ns
    if waited_ns:
        book.waits[bisect_left(BOUNDS_NS, waited_ns)] += 1
        book.waits[-1] += waited_ns
        return min(waited_ns // 1_000, WAITED_US_MAX)
    if not request.ticket:
        book.undispatched += 1
    return 0


def _name(code: int) -> str:
    return status.GRPC_NAMES.get(code, str(code))
