"""Which slot to touch next."""

from dataclasses import replace

import pytest

from workers.supervisor.restart_policy import (
    Fault,
    GiveUp,
    Kill,
    RestartLimits,
    Spawn,
    backoff_ns,
    next_action,
    next_timer_ns,
)
from workers.supervisor.slot import BACKOFF, DRAINING, FAILED, READY, STARTING, VACANT, SlotSnapshot

MS = 1_000_000
SECOND = 1_000 * MS
LIMITS = RestartLimits()


def in_backoff(name: str = "a", *, since_ns: int = 0, failures: int = 1) -> SlotSnapshot:
    return SlotSnapshot(name, BACKOFF, 1, since_ns, (since_ns,), failures)


def test_nothing_to_do_when_every_slot_is_ready() -> None:
    slots = [SlotSnapshot("a", READY, 1, 0), SlotSnapshot("b", READY, 1, 0)]
    assert next_action(slots, 100 * SECOND, LIMITS) is None
    assert next_timer_ns(slots, LIMITS) is None


def test_a_vacant_slot_is_filled_at_once() -> None:
    assert next_action([SlotSnapshot("a", VACANT, 0, 0)], 0, LIMITS) == Spawn("a")


def test_a_vacant_slot_that_is_not_wanted_stays_vacant() -> None:
    slots = [SlotSnapshot("a", VACANT, 1, 0, is_wanted=False)]
    assert next_action(slots, 0, LIMITS) is None


def test_the_first_death_is_answered_at_once() -> None:
    assert next_action([in_backoff(since_ns=7)], 7, LIMITS) == Spawn("a")


def test_a_repeated_death_waits_for_its_backoff() -> None:
    slots = [in_backoff(since_ns=5 * SECOND, failures=2)]
    due_ns = 6 * SECOND
    assert next_timer_ns(slots, LIMITS) == due_ns
    assert next_action(slots, due_ns - 1, LIMITS) is None
    assert next_action(slots, due_ns, LIMITS) == Spawn("a")


def test_the_same_snapshots_give_the_same_action() -> None:
    slots = [in_backoff("a"), in_backoff("b")]
    assert next_action(slots, 0, LIMITS) == next_action(slots, 0, LIMITS) == Spawn("a")


@pytest.mark.shows("F6")
@pytest.mark.parametrize(
    ("failures", "pause_ms"),
    [
        (0, 0),
        (1, 0),
        (2, 1_000),
        (3, 2_000),
        (4, 4_000),
        (7, 32_000),
        (8, 60_000),
        (9, 60_000),
        (10_000, 60_000),
    ],
)
def test_backoff_doubles_up_to_its_maximum(failures: int, pause_ms: int) -> None:
    assert backoff_ns(failures, 0.0, LIMITS) == pause_ms * MS


def test_jitter_spreads_the_pause_by_a_fifth_to_either_side() -> None:
    assert backoff_ns(3, -1.0, LIMITS) == 1_600 * MS
    assert backoff_ns(3, 1.0, LIMITS) == 2_400 * MS
    assert backoff_ns(50, 1.0, LIMITS) == 72_000 * MS


@pytest.mark.shows("F6")
def test_the_sixth_death_within_a_minute_gives_the_slot_up() -> None:
    deaths = tuple(second * SECOND for second in (10, 20, 30, 40, 50))
    five = SlotSnapshot("a", BACKOFF, 5, 50 * SECOND, deaths, failures=1)
    six = SlotSnapshot("a", BACKOFF, 6, 60 * SECOND, (*deaths, 60 * SECOND), failures=1)
    assert next_action([five], 50 * SECOND, LIMITS) == Spawn("a")
    assert next_action([six], 60 * SECOND, LIMITS) == GiveUp("a")


def test_deaths_older_than_the_period_do_not_count() -> None:
    deaths = tuple(second * SECOND for second in (0, 20, 30, 40, 50, 60))
    slots = [SlotSnapshot("a", BACKOFF, 6, 60 * SECOND, deaths, failures=1)]
    assert next_action(slots, 60 * SECOND, LIMITS) == Spawn("a")


def test_a_failed_slot_is_left_alone() -> None:
    slots = [SlotSnapshot("a", FAILED, 6, 0, (0,) * 6, failures=7)]
    assert next_action(slots, 1_000 * SECOND, LIMITS) is None
    assert next_timer_ns(slots, LIMITS) is None


def test_who_overstays_its_drain_is_killed_once() -> None:
    draining = SlotSnapshot("a", DRAINING, 1, 5 * SECOND)
    assert next_timer_ns([draining], LIMITS) == 15 * SECOND
    assert next_action([draining], 15 * SECOND - 1, LIMITS) is None
    assert next_action([draining], 15 * SECOND, LIMITS) == Kill("a")
    killed = SlotSnapshot("a", DRAINING, 1, 5 * SECOND, is_killed=True)
    assert next_action([killed], 15 * SECOND, LIMITS) is None
    assert next_timer_ns([killed], LIMITS) is None


def test_a_start_has_no_limit_unless_one_is_set() -> None:
    slots = [SlotSnapshot("a", STARTING, 1, 0)]
    limits = RestartLimits(start_limit_ms=30_000)
    assert next_action(slots, 10**6 * SECOND, LIMITS) is None
    assert next_timer_ns(slots, LIMITS) is None
    assert next_action(slots, 30 * SECOND - 1, limits) is None
    assert next_action(slots, 30 * SECOND, limits) == Kill("a")


def test_what_is_due_starts_before_anybody_is_killed_or_given_up() -> None:
    doomed = SlotSnapshot("doomed", BACKOFF, 6, 60 * SECOND, (60 * SECOND,) * 6, failures=6)
    late = SlotSnapshot("late", DRAINING, 1, 0)
    due = in_backoff("due", since_ns=60 * SECOND)
    now_ns = 60 * SECOND
    assert next_action([doomed, late, due], now_ns, LIMITS) == Spawn("due")
    assert next_action([doomed, late], now_ns, LIMITS) == Kill("late")
    assert next_action([doomed], now_ns, LIMITS) == GiveUp("doomed")


def busy(tries: int, since_ns: int, first_ns: int = 0) -> SlotSnapshot:
    return SlotSnapshot("a", BACKOFF, 3, since_ns, device_tries=tries, device_since_ns=first_ns)


@pytest.mark.shows("R8")
@pytest.mark.parametrize(
    ("tries", "pause_ms"), [(1, 250), (2, 500), (3, 1_000), (4, 2_000), (5, 4_000), (40, 4_000)]
)
def test_a_busy_device_is_tried_again_with_growing_pauses(tries: int, pause_ms: int) -> None:
    slot = busy(tries, SECOND)
    due_ns = SECOND + pause_ms * MS
    assert next_timer_ns([slot], LIMITS) == due_ns
    assert next_action([slot], due_ns - 1, LIMITS) is None
    assert next_action([slot], due_ns, LIMITS) == Spawn("a")


@pytest.mark.shows("R8")
def test_the_last_try_of_a_busy_device_begins_when_its_limit_is_reached() -> None:
    limit_ns = 30 * SECOND
    slot = busy(9, limit_ns - SECOND)  # the pause alone would be four seconds
    assert next_timer_ns([slot], LIMITS) == limit_ns
    assert next_action([slot], limit_ns - 1, LIMITS) is None
    assert next_action([slot], limit_ns, LIMITS) == Spawn("a")


def test_a_device_that_stays_busy_is_a_fault_of_this_slot_only() -> None:
    other = SlotSnapshot("b", VACANT, 0, 0)
    late = busy(9, 30 * SECOND)
    assert next_action([busy(9, 30 * SECOND - 1), other], 30 * SECOND - 1, LIMITS) == Spawn("b")
    assert next_action([late, other], 30 * SECOND, LIMITS) == Fault("a")


def test_a_device_that_cannot_be_opened_is_a_fault_at_once() -> None:
    slot = replace(busy(1, 0), has_device_fault=True)
    assert next_action([slot], 0, LIMITS) == Fault("a")
