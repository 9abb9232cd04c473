"""The life of one slot."""

import random

import pytest

from workers.device_errors import BUSY, FAULT
from workers.supervisor import slot as slots
from workers.supervisor.slot import Slot, SlotSnapshot

SECOND_NS = 1_000_000_000


class FixedChance(random.Random):
    """Draws what it was told, so that a jitter can be compared."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self._value = value

    def uniform(self, a: float, b: float) -> float:
        """The told value, whatever the bounds."""
        assert a <= self._value <= b
        return self._value


def new_slot(jitter: float = 0.5) -> Slot:
    return Slot("add/1/device0", FixedChance(jitter), stable_ms=10_000)


def drive(slot: Slot, *steps: tuple[str, int]) -> Slot:
    for event, now_ns in steps:
        slot.apply(event, now_ns)
    return slot


def test_the_table_is_the_only_way_from_state_to_state() -> None:
    paths = {
        slots.VACANT: [],
        slots.STARTING: [slots.SPAWNED],
        slots.READY: [slots.SPAWNED, slots.REPORTED],
        slots.DRAINING: [slots.SPAWNED, slots.TERMINATED],
        slots.BACKOFF: [slots.SPAWNED, slots.EXITED],
        slots.FAILED: [slots.SPAWNED, slots.EXITED, slots.GAVE_UP],
        slots.DEVICE_FAULT: [slots.SPAWNED, slots.EXITED, slots.FAULTED],
    }
    events = (
        slots.SPAWNED,
        slots.REPORTED,
        slots.SIGNED_OFF,
        slots.TERMINATED,
        slots.EXITED,
        slots.GAVE_UP,
        slots.FAULTED,
        slots.RESET,
    )
    assert set(paths) == set(slots.STATES)
    for state, path in paths.items():
        for event in events:
            slot = drive(new_slot(), *((step, 0) for step in path))
            assert slot.state == state
            expected = slots.TRANSITIONS.get((state, event))
            if expected is None:
                with pytest.raises(slots.InvalidTransitionError, match=f"{event} in {state}"):
                    slot.apply(event, 1)
                assert slot.state == state
            else:
                slot.apply(event, 1)
                assert slot.state == expected


def test_each_spawn_is_a_new_generation() -> None:
    slot = new_slot()
    assert slot.generation == 0
    drive(slot, (slots.SPAWNED, 1), (slots.EXITED, 2), (slots.SPAWNED, 3))
    assert slot.generation == 2


def test_a_death_of_a_ready_process_is_remembered_with_its_jitter() -> None:
    slot = drive(new_slot(0.25), (slots.SPAWNED, 1), (slots.REPORTED, 5), (slots.EXITED, 7))
    assert slot.snapshot() == SlotSnapshot(
        "add/1/device0", slots.BACKOFF, 1, since_ns=7, restarts_ns=(7,), failures=1, jitter=0.25
    )


def test_a_drain_that_we_ordered_counts_no_death_and_leaves_a_wanted_vacant_slot() -> None:
    slot = drive(
        new_slot(),
        (slots.SPAWNED, 1),
        (slots.REPORTED, 2),
        (slots.TERMINATED, 3),
        (slots.EXITED, 4),
    )
    assert slot.snapshot() == SlotSnapshot("add/1/device0", slots.VACANT, 1, since_ns=4)
    assert not slot.is_gone


def test_a_process_that_signs_off_by_itself_is_not_wanted_again() -> None:
    slot = drive(
        new_slot(),
        (slots.SPAWNED, 1),
        (slots.REPORTED, 2),
        (slots.SIGNED_OFF, 3),
        (slots.EXITED, 4),
    )
    assert slot.state == slots.VACANT
    assert slot.is_gone


def test_a_process_that_confirms_our_drain_stays_wanted() -> None:
    slot = drive(
        new_slot(),
        (slots.SPAWNED, 1),
        (slots.REPORTED, 2),
        (slots.TERMINATED, 3),
        (slots.SIGNED_OFF, 4),
        (slots.EXITED, 5),
    )
    assert slot.is_wanted


def test_failures_in_a_row_grow_until_a_stable_run_ends_them() -> None:
    slot = new_slot()
    failures = []
    now_ns = 0
    for run_ns in (0, 1 * SECOND_NS, 10 * SECOND_NS, 9 * SECOND_NS):
        drive(slot, (slots.SPAWNED, now_ns), (slots.REPORTED, now_ns))
        now_ns += run_ns
        slot.apply(slots.EXITED, now_ns)
        failures.append(slot.snapshot().failures)
    assert failures == [1, 2, 1, 2]


def test_a_boot_failure_counts_as_the_second_in_a_row() -> None:
    slot = drive(new_slot(), (slots.SPAWNED, 0), (slots.EXITED, 60 * SECOND_NS))
    assert slot.snapshot().failures == 2


def test_a_kill_mark_lasts_as_long_as_the_state() -> None:
    slot = drive(new_slot(), (slots.SPAWNED, 0), (slots.TERMINATED, 1))
    slot.mark_killed()
    assert slot.snapshot().is_killed
    slot.apply(slots.SIGNED_OFF, 2)
    assert slot.snapshot().is_killed
    slot.apply(slots.EXITED, 3)
    assert not slot.snapshot().is_killed


def test_a_slot_that_takes_over_from_another_goes_on_with_its_generations() -> None:
    slot = slots.Slot("a~", random.Random(1), generation=4)
    assert slot.generation == 4
    slot.apply(slots.SPAWNED, 0)
    assert slot.generation == 5


def test_a_retired_slot_can_be_wanted_again() -> None:
    slot = drive(new_slot(), (slots.SPAWNED, 0), (slots.SIGNED_OFF, 1), (slots.EXITED, 2))
    assert slot.is_gone
    slot.want()
    assert not slot.is_gone
    assert slot.snapshot().is_wanted


def test_a_state_entered_again_keeps_its_beginning() -> None:
    slot = drive(new_slot(), (slots.SPAWNED, 0), (slots.TERMINATED, 5), (slots.TERMINATED, 9))
    assert slot.since_ns == 5


def test_the_memory_of_deaths_is_bounded() -> None:
    slot = new_slot()
    for now_ns in range(slots.RESTARTS_REMEMBERED_MAX + 10):
        drive(slot, (slots.SPAWNED, now_ns), (slots.EXITED, now_ns))
    assert len(slot.snapshot().restarts_ns) == slots.RESTARTS_REMEMBERED_MAX


def test_who_finds_its_device_busy_has_not_died() -> None:
    slot = new_slot()
    for number in range(1, 4):
        drive(slot, (slots.SPAWNED, number))
        slot.note_device(BUSY)
        drive(slot, (slots.EXITED, 10 * number))
        seen = slot.snapshot()
        assert (seen.device_tries, seen.device_since_ns) == (number, 10)
        assert (seen.restarts_ns, seen.failures, seen.has_device_fault) == ((), 0, False)
        assert slot.has_busy_device
    drive(slot, (slots.SPAWNED, 50), (slots.REPORTED, 51))
    assert slot.snapshot().device_tries == 0


def test_a_death_of_another_cause_begins_the_count_of_tries_anew() -> None:
    slot = new_slot()
    for device in (BUSY, None, BUSY):
        drive(slot, (slots.SPAWNED, 0))
        slot.note_device(device)
        drive(slot, (slots.EXITED, 7))
    assert (slot.snapshot().device_tries, len(slot.snapshot().restarts_ns)) == (1, 1)


def test_a_device_that_cannot_be_used_is_told_apart_from_one_that_is_busy() -> None:
    slot = new_slot()
    drive(slot, (slots.SPAWNED, 0))
    slot.note_device(FAULT)
    drive(slot, (slots.EXITED, 1))
    assert slot.snapshot().has_device_fault
    assert not slot.has_busy_device
    drive(slot, (slots.FAULTED, 2))
    assert slot.is_gone
    drive(slot, (slots.RESET, 3))
    assert (slot.snapshot().has_device_fault, slot.snapshot().device_tries) == (False, 0)
