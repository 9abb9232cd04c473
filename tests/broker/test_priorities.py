"""Three levels of what waits: shares, order, and nobody who waits for ever."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from broker.core import Core
from broker.invariants import check
from broker.priorities import HIGH, LOW, NORMAL, SHARES, level_of
from protocol import head as heads
from tests.broker.helpers import answers, broker_with_worker, cancel, dispatched, reply, request

FLAGS = {HIGH: heads.FLAG_HIGH, NORMAL: 0, LOW: heads.FLAG_LOW}


def ask(core: Core, number: int, level: int, budget_ms: int = 0) -> None:
    """One request whose body is its level and number."""
    body = b"%d %d" % (level, number)
    core.receive_from_client(
        b"c", request(number, body=body, flags=FLAGS[level], budget_ms=budget_ms), 0
    )


def served(core: Core, count: int) -> list[tuple[int, int]]:
    """(level, number) of the next dispatches, while the worker answers one after the other."""
    seen = []
    for _ in range(count):
        ((_, ticket, body),) = dispatched(core)
        level, number = map(int, body.split())
        seen.append((level, number))
        core.receive_from_worker(b"w1", reply(ticket), 0)
        check(core)
    return seen


def busy_core() -> Core:
    """A core whose one token is taken."""
    core = broker_with_worker()
    ask(core, 0, NORMAL)
    return core


def test_without_levels_the_order_is_that_of_arrival() -> None:
    core = busy_core()
    for number in range(1, 50):
        ask(core, number, NORMAL)
    assert [number for _, number in served(core, 50)] == list(range(50))


def test_high_goes_before_normal_and_normal_before_low() -> None:
    core = busy_core()
    for number, level in enumerate((LOW, NORMAL, HIGH), 1):
        ask(core, number, level)
    assert served(core, 4) == [(NORMAL, 0), (HIGH, 3), (NORMAL, 2), (LOW, 1)]


def test_while_all_wait_each_level_gets_its_share_in_its_order() -> None:
    core = busy_core()
    rounds = 10
    for number in range(1, 1 + rounds * 16):
        for level in (LOW, NORMAL, HIGH):
            ask(core, 3 * number + level, level)
    served(core, 1)
    seen = served(core, rounds * sum(SHARES))
    counts = Counter(level for level, _ in seen)
    for level in (HIGH, NORMAL, LOW):
        assert abs(counts[level] - rounds * SHARES[level]) <= 1
        numbers = [number for each, number in seen if each == level]
        assert numbers == sorted(numbers)


def test_a_low_request_is_served_although_urgent_ones_never_end() -> None:
    core = busy_core()
    ask(core, 1, LOW)
    number = 2
    for _ in range(20):
        ask(core, number, HIGH)
        number += 1
    position = 0
    while True:
        ((level, _),) = served(core, 1)
        if level == LOW:
            break
        ask(core, number, HIGH)
        number += 1
        position += 1
    assert position <= sum(SHARES)


@pytest.mark.parametrize(("sparse", "others"), [(LOW, NORMAL), (LOW, HIGH), (NORMAL, HIGH)])
def test_a_level_that_comes_and_goes_gets_no_more_than_one_that_stays(
    sparse: int, others: int
) -> None:
    core = busy_core()
    for number in range(1, 401):
        ask(core, number, others)
    ask(core, 1_000, sparse)
    served(core, 1)
    counts: Counter[int] = Counter()
    for number in range(1_001, 1_301):
        ((level, _),) = served(core, 1)
        counts[level] += 1
        if level == sparse:
            ask(core, number, sparse)
    assert counts[sparse] * SHARES[others] <= counts[others] * SHARES[sparse] + SHARES[others]
    assert counts[sparse] > 0


def test_who_comes_back_from_a_lost_worker_stands_first_in_its_level() -> None:
    core = broker_with_worker(credit=2)
    ask(core, 1, LOW)
    ask(core, 2, NORMAL)
    for number, level in ((3, HIGH), (4, LOW), (5, NORMAL)):
        ask(core, number, level)
    worker = core.registration.workers[b"w1"]
    core.worker_lost(worker, 0, "it died", frozenset())
    service = worker.service
    (lane,) = service.lanes
    waiting = [tuple(map(int, each.frames[0].split())) for each in lane.backlog]
    assert waiting == [(HIGH, 3), (NORMAL, 2), (NORMAL, 5), (LOW, 1), (LOW, 4)]
    check(core)


def test_cancelled_and_expired_requests_of_every_level_leave_nothing_behind() -> None:
    core = busy_core()
    dice = random.Random(5)
    for number in range(1, 2_001):
        ask(core, number, dice.choice((HIGH, NORMAL, LOW)), dice.choice((0, 10)))
    for number in range(1, 2_001):
        if dice.random() < 0.9:
            core.receive_from_client(b"c", cancel(number), 0)
    (lane,) = next(iter(core.registration.services.values())).lanes
    levels = lane.backlog._levels
    assert levels is not None
    assert sum(map(len, levels.lines)) <= 3 * (2 * lane.backlog.count + 64)
    core.handle_timer(1_000_000_000)
    answers(core)
    while lane.backlog.count:
        worker = core.registration.workers[b"w1"]
        core.receive_from_worker(b"w1", reply(next(iter(worker.in_flight))), 0)
    assert lane.backlog._levels is None
    check(core)


def test_both_flags_together_are_refused() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", request(1, flags=heads.FLAGS_PRIORITY), 0)
    assert answers(core) == [(b"c", 1, "malformed")]
    assert level_of(request(1)[0]) == NORMAL
