"""The book: each request that ends is entered once, under its service, method and code."""

from __future__ import annotations

from typing import Any

import pytest

from broker.admission import Settings
from broker.book import BOUNDS_NS, Page
from broker.core import Core
from protocol import control, limits
from protocol.control import Histogram
from tests.broker.helpers import MS, broker_with_worker, cancel, ready, reply, request


def entered(core: Core) -> list[tuple[str, str, str, int]]:
    """(service, method, code, how many), in order."""
    described = core.book.describe()["requests"]
    return sorted((key, method, code, sum(cell[:-1])) for key, method, code, cell in described)


def bucket(cell: list[int]) -> list[int | str]:
    """The upper bounds of the buckets that hold something, in ms."""
    bounds: list[Any] = [bound / MS for bound in BOUNDS_NS] + ["more"]
    return [bound for bound, count in zip(bounds, cell, strict=False) if count]


def beat(worker: bytes, core: Core, *numbers: Histogram) -> None:
    core.receive_from_worker(worker, control.pack(control.Heartbeat(numbers=numbers)), 0)


def test_a_request_is_entered_with_its_code_and_how_long_it_took() -> None:
    core = broker_with_worker(credit=2)
    core.receive_from_client(b"c", request(1) + request(2), 10 * MS)
    core.receive_from_worker(b"w1", reply(1), 13 * MS)
    core.receive_from_worker(b"w1", reply(2, status=13), 410 * MS)
    core.check_invariants()
    assert entered(core) == [("add/1", "m", "INTERNAL", 1), ("add/1", "m", "OK", 1)]
    cells = {code: cell for _, _, code, cell in core.book.describe()["requests"]}
    assert (bucket(cells["OK"]), cells["OK"][-1]) == ([5.0], 3 * MS)
    assert (bucket(cells["INTERNAL"]), cells["INTERNAL"][-1]) == ([500.0], 400 * MS)


def test_a_time_on_a_bound_is_within_it_and_one_above_all_has_a_bucket() -> None:
    core = broker_with_worker(credit=3)
    core.receive_from_client(b"c", request(1) + request(2) + request(3), 0)
    core.receive_from_worker(b"w1", reply(1), BOUNDS_NS[0])
    core.receive_from_worker(b"w1", reply(2), BOUNDS_NS[0] + 1)
    core.receive_from_worker(b"w1", reply(3), BOUNDS_NS[-1] + 1)
    ((_, _, _, cell),) = core.book.describe()["requests"]
    assert bucket(cell) == [0.5, 1.0, "more"]


def test_version_0_is_entered_under_the_version_that_answered() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", request(1, service=b"add/0"), 0)
    core.receive_from_worker(b"w1", reply(1), 1)
    assert entered(core) == [("add/1", "m", "OK", 1)]


def test_methods_that_no_worker_offers_have_no_names() -> None:
    core = broker_with_worker(credit=100)
    for number in range(100):
        core.receive_from_client(b"c", request(number, method=b"any%d" % number), 0)
        core.receive_from_worker(b"w1", reply(number + 1, status=5), 1)
    assert entered(core) == [("add/1", "", "NOT_FOUND", 100)]


def test_deadlines_cancellations_and_lost_clients_are_entered() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", request(1, budget_ms=5) + request(2) + request(3), 0)
    core.handle_timer(20 * MS)
    core.receive_from_client(b"c", cancel(2), 20 * MS)
    core.client_lost(b"c", 21 * MS)
    core.check_invariants()
    assert entered(core) == [("add/1", "m", "CANCELLED", 2), ("add/1", "m", "DEADLINE_EXCEEDED", 1)]


def test_waits_are_those_of_all_that_were_dispatched() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", request(1) + request(2) + request(3), 0)
    core.receive_from_worker(b"w1", reply(1), 7 * MS)  # now the second one is dispatched
    core.receive_from_worker(b"w1", reply(2), 8 * MS)
    core.receive_from_client(b"c", cancel(3), 9 * MS)
    core.receive_from_client(b"c", request(4) + request(5), 9 * MS)
    core.receive_from_client(b"c", cancel(5), 10 * MS)
    ((_, _, waits),) = core.book.describe()["waits"]
    # 1 at once, 2 after 7 ms, 3 after 8 ms (and cancelled then); 4 runs yet, 5 never left the queue
    assert (sum(waits[:-1]), bucket(waits), waits[-1]) == (3, [0.5, 10.0], 15 * MS)


def test_refusals_have_reason_and_service_if_it_is_known() -> None:
    core = broker_with_worker(requests_max=1)
    core.receive_from_client(b"c", request(1) + request(2), 0)
    core.receive_from_client(b"c", request(3, service=b"nobody/1"), 0)
    refusals = core.book.describe()["refusals"]
    assert sorted(refusals) == [["", "unknown_service", 1], ["add/1", "queue_full", 1]]


def test_numbers_of_a_service_outlive_it() -> None:
    core = broker_with_worker(service_grace_ms=10)
    core.receive_from_client(b"c", request(1), 0)
    core.receive_from_worker(b"w1", reply(1), 0)
    core.receive_from_worker(b"w1", control.pack(control.Disconnect("bye")), 0)
    core.handle_timer(1_000 * MS)
    assert not core.registration.services
    assert entered(core) == [("add/1", "m", "OK", 1)]
    core.receive_from_worker(b"w1", ready("slot1", generation=2), 2_000 * MS)
    core.receive_from_client(b"c", request(1), 2_000 * MS)
    core.receive_from_worker(b"w1", reply(2), 2_000 * MS)
    assert entered(core) == [("add/1", "m", "OK", 2)]


def test_a_book_forgets_the_oldest_service_that_is_gone_and_not_what_it_counted() -> None:
    core = broker_with_worker(service_grace_ms=10)
    core.receive_from_client(b"c", request(1), 0)
    core.receive_from_worker(b"w1", reply(1), 0)
    core.receive_from_worker(b"w1", control.pack(control.Disconnect("bye")), 0)
    core.handle_timer(1_000 * MS)
    book = core.book
    pages = [book.page(b"s/%d" % number) for number in range(1, limits.PAGES_MAX)]
    book.page(b"s/0")
    assert entered(core) == [], "add/1 was the oldest, and gone"
    assert (book.ended(), book.answered()) == (1, 1)
    book.page(b"more/1")
    assert book.page(b"s/1") is pages[0], "who serves is never forgotten"
    core.check_invariants()


# ---------------------------------------------------------------- what workers count

RUNS = Histogram("runs", (("model", "m"),), (10, 20), (1, 2, 3), 100)


def test_the_numbers_of_the_workers_of_a_service_are_added() -> None:
    core = Core(Settings())
    for name in ("a", "b"):
        core.receive_from_worker(name.encode(), ready(name), 0)
        beat(name.encode(), core, RUNS, Histogram("faults", (), (), (4,), 0))
    beat(b"a", core, RUNS._replace(counts=(2, 2, 3), total=105))  # its totals, not what is new
    workers = core.book.describe()["workers"]
    assert ["add/1", "runs", (("model", "m"),), (10, 20), (3, 4, 6), 205] in workers
    assert ["add/1", "faults", (), (), (4,), 0] in workers


def test_what_a_worker_counted_stays_when_its_successor_counts_from_the_start() -> None:
    core = broker_with_worker()
    beat(b"w1", core, RUNS)
    core.receive_from_worker(b"w1", control.pack(control.Disconnect("bye")), 0)
    assert core.book.describe()["workers"][0][4] == (1, 2, 3)
    core.receive_from_worker(b"w2", ready("slot1", generation=2), 0)
    beat(b"w2", core, RUNS)
    assert core.book.describe()["workers"][0][4] == (2, 4, 6)


def test_a_worker_that_registers_again_is_not_counted_twice() -> None:
    core = broker_with_worker()
    beat(b"w1", core, RUNS)
    core.receive_from_worker(b"w1", control.pack(control.Disconnect("taken for dead")), 0)
    core.receive_from_worker(b"again", ready("slot1", generation=1), 0)
    beat(b"again", core, RUNS)
    assert core.book.describe()["workers"][0][4] == (1, 2, 3)


def test_a_page_keeps_a_limited_number_of_series_and_workers() -> None:
    page = Page()
    for number in range(limits.WORKER_SERIES_MAX + 5):
        page.hear(f"w{number}", 1, (RUNS._replace(name=f"n{number}"), RUNS))
    histograms = {each.name: each for each in page.worker_numbers()}
    assert histograms["runs"].counts[0] == limits.WORKER_SERIES_MAX + 5
    assert len(histograms) <= limits.WORKER_SERIES_MAX + 1


@pytest.mark.parametrize(
    "series",
    [
        ["name"],
        7,
        ["name", [], [1], [1], 0],
        ["name", [], [], [-1], 0],
        ["name", [], [], [True], 0],
        [1, [], [], [1], 0],
        ["name", [["key"]], [], [1], 0],
        ["name", [["key", 1]], [], [1], 0],
        ["name", [], list(range(65)), [0] * 66, 0],
    ],
)
def test_numbers_that_are_none_break_the_protocol(series: Any) -> None:
    from protocol.native import pack_meta

    core = broker_with_worker()
    head, _ = control.pack(control.Heartbeat())
    core.receive_from_worker(b"w1", [head, pack_meta({"numbers": [series]})], 0)
    assert core.counters.malformed == 1
    assert not core.registration.workers
