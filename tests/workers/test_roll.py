"""Rolling replacement: one process at a time, never fewer than there should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from workers.supervisor import slot as slots
from workers.supervisor.roll import (
    CANCELLED,
    DONE,
    FAILED,
    IN_PLACE,
    SETTLING,
    STARTING,
    SURGE,
    WAITING,
    Action,
    Begin,
    Drain,
    Forget,
    Replacement,
    Roll,
    RollFailure,
    Withdraw,
)
from workers.supervisor.roll_plan import Candidate, RollError, plan_roll, twin
from workers.supervisor.slot import SlotSnapshot

MS = 1_000_000


class Place:
    """The slots of a roll; does what the roll names, at once and well."""

    def __init__(self, *names: str, settle_ms: int = 0) -> None:
        self.seen = {name: SlotSnapshot(name, slots.READY, 1, 0) for name in names}
        self.settle_ms = settle_ms
        self.done: list[Action] = []
        self.now_ms = 0

    def roll(self, *steps: tuple[str, str, str]) -> Roll:
        made = [
            Replacement(old, new, mode, 1, is_reload="/1" in old and "/2" in new)
            for old, new, mode in steps
        ]
        return Roll(made, self.settle_ms)

    def set(self, name: str, state: str, generation: int | None = None) -> None:
        before = self.seen.get(name) or SlotSnapshot(name, slots.VACANT, 1, 0)
        self.seen[name] = replace(
            before,
            state=state,
            since_ns=self.now_ms * MS,
            generation=before.generation if generation is None else generation,
        )

    def ask(self, roll: Roll) -> Action | None:
        action = roll.next_action(self.seen, self.now_ms * MS)
        if action is not None:
            self.done.append(action)
        if isinstance(action, Begin):
            self.set(action.new, slots.STARTING, self.seen[action.old].generation + 1)
        elif isinstance(action, Drain):
            self.set(action.slot, slots.DRAINING)
        elif isinstance(action, Forget):
            del self.seen[action.slot]
        return action


def states(roll: Roll) -> list[str]:
    return [step.state for step in roll.replacements]


def test_a_surge_starts_the_new_process_before_it_drains_the_old_one() -> None:
    place = Place("a")
    roll = place.roll(("a", "a~", SURGE))
    assert place.ask(roll) == Begin("a", "a~")
    assert (place.ask(roll), roll.waits_for) == (None, "a~")
    place.set("a~", slots.READY)
    assert place.ask(roll) == Drain("a", is_final=True)
    assert (place.ask(roll), roll.waits_for) == (None, "a")
    place.set("a", slots.VACANT)
    assert place.ask(roll) == Forget("a")
    assert place.ask(roll) is None
    assert (roll.is_over, roll.failure, states(roll)) == (True, None, [DONE])
    assert list(place.seen) == ["a~"]


def test_in_place_drains_the_old_process_before_its_slot_is_filled_again() -> None:
    place = Place("a", "b")
    roll = place.roll(("a", "a", IN_PLACE))
    assert place.ask(roll) == Drain("a", is_final=False)
    assert place.ask(roll) is None
    place.set("a", slots.VACANT)
    assert place.ask(roll) is None
    place.set("a", slots.STARTING, 2)
    assert (place.ask(roll), states(roll)) == (None, [STARTING])
    place.set("a", slots.READY)
    assert place.ask(roll) is None
    assert (roll.is_over, states(roll)) == (True, [DONE])


def test_in_place_with_another_slot_begins_it_when_the_old_one_is_empty() -> None:
    place = Place("a/1", "b")
    roll = place.roll(("a/1", "a/2", IN_PLACE))
    assert place.ask(roll) == Drain("a/1", is_final=True)
    assert place.ask(roll) is None
    place.set("a/1", slots.VACANT)
    assert place.ask(roll) == Begin("a/1", "a/2")
    place.set("a/2", slots.READY)
    assert place.ask(roll) == Forget("a/1")
    assert roll.next_action(place.seen, 0) is None
    assert roll.is_over


@pytest.mark.parametrize("mode", [SURGE, IN_PLACE])
def test_the_next_one_waits_until_the_one_before_is_done(mode: str) -> None:
    place = Place("a", "b")
    names = ("a~", "b~") if mode == SURGE else ("a", "b")
    roll = place.roll(("a", names[0], mode), ("b", names[1], mode))
    place.ask(roll)
    for _ in range(3):
        assert place.ask(roll) is None
    assert states(roll)[1] == WAITING


def test_a_new_process_must_stay_ready_before_the_next_one_is_touched() -> None:
    place = Place("a", "b", settle_ms=100)
    roll = place.roll(("a", "a~", SURGE), ("b", "b~", SURGE))
    place.ask(roll)
    place.now_ms = 10
    place.set("a~", slots.READY)
    assert place.ask(roll) is None
    assert (states(roll)[0], roll.next_timer_ns(place.seen)) == (SETTLING, 110 * MS)
    place.now_ms = 109
    assert place.ask(roll) is None
    place.now_ms = 110
    assert place.ask(roll) == Drain("a", is_final=True)


def test_a_crash_elsewhere_pauses_the_roll_until_the_slot_is_back() -> None:
    place = Place("a", "b")
    roll = place.roll(("a", "a~", SURGE), ("b", "b~", SURGE))
    place.set("b", slots.BACKOFF)
    assert place.ask(roll) is None
    place.set("b", slots.STARTING, 2)
    assert place.ask(roll) is None
    place.set("b", slots.READY)
    assert place.ask(roll) == Begin("a", "a~")


def test_a_process_that_was_restarted_meanwhile_is_not_replaced_again() -> None:
    place = Place("a", "b")
    roll = place.roll(("a", "a~", SURGE), ("b", "b~", SURGE))
    place.set("a", slots.READY, 2)
    assert place.ask(roll) == Begin("b", "b~")
    assert states(roll) == [DONE, STARTING]


@pytest.mark.parametrize("state", [slots.BACKOFF, slots.FAILED, slots.DRAINING])
def test_a_surge_whose_new_process_cannot_start_leaves_the_old_one(state: str) -> None:
    place = Place("a", "b")
    roll = place.roll(("a", "a~", SURGE), ("b", "b~", SURGE))
    place.ask(roll)
    place.set("a~", state)
    assert place.ask(roll) == Withdraw("a~", None)
    assert place.ask(roll) is None
    assert roll.failure == RollFailure("a~", STARTING)
    assert (roll.is_over, states(roll)) == (True, [FAILED, WAITING])
    assert place.seen["a"].state == slots.READY


def test_a_new_process_that_dies_in_its_first_seconds_ends_the_roll() -> None:
    place = Place("a", "b", settle_ms=100)
    roll = place.roll(("a", "a~", SURGE), ("b", "b~", SURGE))
    place.ask(roll)
    place.set("a~", slots.READY)
    place.ask(roll)
    place.set("a~", slots.STARTING, 3)
    assert place.ask(roll) == Withdraw("a~", None)
    assert roll.failure == RollFailure("a~", SETTLING)


def test_a_death_that_was_mended_before_anybody_looked_is_a_death_all_the_same() -> None:
    for phase in (STARTING, SETTLING):
        place = Place("a", settle_ms=100)
        roll = place.roll(("a", "a~", SURGE))
        place.ask(roll)
        if phase == SETTLING:
            place.set("a~", slots.READY)
            place.ask(roll)
        place.set("a~", slots.READY, 3)
        assert place.ask(roll) == Withdraw("a~", None)
        assert roll.failure == RollFailure("a~", phase)


def test_in_place_the_old_slot_is_filled_again_when_the_new_one_fails() -> None:
    place = Place("a/1", "b/1")
    roll = place.roll(("a/1", "a/2", IN_PLACE), ("b/1", "b/2", IN_PLACE))
    place.ask(roll)
    place.set("a/1", slots.VACANT)
    place.ask(roll)
    place.set("a/2", slots.BACKOFF)
    assert place.ask(roll) == Withdraw("a/2", "a/1")
    assert roll.failure == RollFailure("a/2", STARTING)


def test_in_place_a_slot_that_fails_goes_on_by_the_restart_policy() -> None:
    place = Place("a", "b")
    roll = place.roll(("a", "a", IN_PLACE), ("b", "b", IN_PLACE))
    place.ask(roll)
    place.set("a", slots.STARTING, 2)
    place.ask(roll)
    place.set("a", slots.BACKOFF)
    assert place.ask(roll) is None
    assert roll.failure == RollFailure("a", STARTING)


def test_a_slot_that_is_given_up_ends_the_roll() -> None:
    place = Place("a", "b")
    roll = place.roll(("a", "a~", SURGE), ("b", "b~", SURGE))
    place.set("b", slots.FAILED)
    assert place.ask(roll) is None
    assert roll.failure == RollFailure("b", WAITING)


def test_in_a_reload_a_worker_that_crashed_meanwhile_is_replaced_all_the_same() -> None:
    place = Place("a/1", "b/1")
    roll = place.roll(("a/1", "a/2", SURGE))
    place.set("a/1", slots.READY, 2)
    assert place.ask(roll) == Begin("a/1", "a/2")
    assert place.seen["a/2"].generation == 3
    place.set("a/2", slots.READY)
    assert place.ask(roll) == Drain("a/1", is_final=True)


@pytest.mark.parametrize("mode", [SURGE, IN_PLACE])
@pytest.mark.parametrize("state", [slots.VACANT, slots.BACKOFF])
def test_in_a_restart_a_slot_that_nobody_wants_stays_empty(mode: str, state: str) -> None:
    place = Place("a", "b")
    names = ("a~", "b~") if mode == SURGE else ("a", "b")
    roll = place.roll(("a", names[0], mode), ("b", names[1], mode))
    place.seen["a"] = replace(place.seen["a"], state=state, is_wanted=False)
    action = place.ask(roll)
    assert action == (Begin("b", "b~") if mode == SURGE else Drain("b", is_final=False))
    assert states(roll)[0] == DONE


def test_a_slot_that_is_drained_for_good_while_it_goes_does_not_hold_the_roll_up() -> None:
    place = Place("a", "b")
    roll = place.roll(("a", "a", IN_PLACE))
    place.ask(roll)
    place.seen["a"] = replace(place.seen["a"], state=slots.VACANT, is_wanted=False)
    assert place.ask(roll) is None
    assert (roll.is_over, roll.failure) == (True, None)


def test_an_old_process_that_came_back_by_itself_is_not_forgotten_while_it_lives() -> None:
    place = Place("a/1")
    roll = place.roll(("a/1", "a/2", SURGE))
    place.ask(roll)
    place.set("a/2", slots.READY)
    place.ask(roll)
    place.set("a/1", slots.STARTING, 2)
    assert place.ask(roll) is None
    place.set("a/1", slots.VACANT)
    assert place.ask(roll) == Forget("a/1")


def test_extra_workers_that_went_with_their_version_are_begun_anew() -> None:
    place = Place("a/1/device0", "a/1/extra0")
    roll = place.roll(("a/1/device0", "a/2/device0", SURGE), ("a/1/extra0", "a/2/extra0", SURGE))
    place.ask(roll)
    place.set("a/2/device0", slots.READY)
    place.ask(roll)
    place.set("a/1/device0", slots.VACANT)
    place.set("a/1/extra0", slots.DRAINING)
    assert place.ask(roll) == Forget("a/1/device0")
    assert place.ask(roll) is None
    gone = replace(place.seen["a/1/extra0"], state=slots.VACANT, is_wanted=False)
    place.seen["a/1/extra0"] = gone
    assert place.ask(roll) == Begin("a/1/extra0", "a/2/extra0")
    place.set("a/2/extra0", slots.READY)
    assert place.ask(roll) == Drain("a/1/extra0", is_final=True)
    place.seen["a/1/extra0"] = gone
    assert place.ask(roll) == Forget("a/1/extra0")
    assert roll.next_action(place.seen, 0) is None
    assert (roll.is_over, roll.failure) == (True, None)


def test_an_old_process_that_is_away_when_its_turn_to_go_comes_is_forgotten() -> None:
    place = Place("a")
    roll = place.roll(("a", "a~", SURGE))
    place.ask(roll)
    place.set("a", slots.BACKOFF)
    place.set("a~", slots.READY)
    assert place.ask(roll) == Drain("a", is_final=True)
    place.set("a", slots.BACKOFF)
    assert place.ask(roll) == Forget("a")
    assert roll.next_action(place.seen, 0) is None
    assert roll.is_over


def test_twenty_rounds_never_have_more_than_one_slot_away() -> None:
    place = Place("a", "b", "c")
    names = ["a", "b", "c"]
    for number in range(20):
        mode = SURGE if number % 2 else IN_PLACE
        roll = Roll(
            [
                Replacement(n, twin(n) if mode == SURGE else n, mode, place.seen[n].generation)
                for n in names
            ],
            0,
        )
        while not roll.is_over:
            place.ask(roll)
            ready = [name for name, seen in place.seen.items() if seen.state == slots.READY]
            assert len(ready) >= (3 if mode == SURGE else 2)
            _go_on(place.seen, place)
        names = [step.new for step in roll.replacements]
    assert {place.seen[name].generation for name in names} == {21}


def _go_on(seen: Mapping[str, SlotSnapshot], place: Place) -> None:
    """Let every process come one state further."""
    for name, snapshot in list(seen.items()):
        if snapshot.state == slots.STARTING:
            place.set(name, slots.READY)
        elif snapshot.state == slots.DRAINING:
            place.set(name, slots.VACANT)
        elif snapshot.state == slots.VACANT and twin(name) not in seen:
            place.set(name, slots.STARTING, snapshot.generation + 1)


# ---------------------------------------------------------------- the plan


def worker(slot: str, target: str = "CPU", state: str = slots.READY) -> Candidate:
    return Candidate(slot, slot.rpartition("/")[0], state, 3, target)


def test_processes_that_can_share_a_device_are_surged_and_others_replaced_in_place() -> None:
    planned = plan_roll(
        [
            worker("add/1/device0"),
            worker("net/1/device0", "Ascend"),
            worker("net/1/device1", "GPU"),
        ],
        None,
        1,
    )
    assert planned == [
        Replacement("add/1/device0", "add/1/device0~", SURGE, 3, group="add/1"),
        Replacement("net/1/device0", "net/1/device0", IN_PLACE, 3, group="net/1"),
        Replacement("net/1/device1", "net/1/device1", IN_PLACE, 3, group="net/1"),
    ]


def test_the_mode_that_is_asked_for_counts() -> None:
    (planned,) = plan_roll([worker("add/1/device0", "Ascend")], SURGE, 1)
    assert (planned.mode, planned.new) == (SURGE, "add/1/device0~")


def test_a_plan_that_leaves_too_few_workers_is_refused() -> None:
    with pytest.raises(RollError) as raised:
        plan_roll([worker("add/1/device0", "Ascend")], None, 1)
    assert str(raised.value) == (
        "in-place leaves 0 workers of add/1 while add/1/device0 is replaced, fewer than min_ready "
        "1: take --mode surge, or a smaller --min-ready"
    )
    assert plan_roll([worker("add/1/device0", "Ascend")], None, 0)


def test_a_plan_with_a_slot_that_was_given_up_is_refused() -> None:
    with pytest.raises(RollError, match="slot add/1/device1 is FAILED"):
        plan_roll([worker("add/1/device0"), worker("add/1/device1", state=slots.FAILED)], None, 1)


def test_another_version_has_slots_of_its_own_in_both_modes() -> None:
    for mode in (SURGE, IN_PLACE):
        (planned,) = plan_roll([worker("a/b/1/device0~")], mode, 0, version=12)
        assert planned == Replacement(
            "a/b/1/device0~", "a/b/12/device0", mode, 3, is_reload=True, group="a/b/1"
        )


def test_a_worker_that_stays_counts_for_who_is_replaced() -> None:
    leaving, staying = worker("a/1/device0", "Ascend"), worker("a/2/device1", "Ascend")
    group = replace(leaving, group="a"), replace(staying, group="a")
    (planned,) = plan_roll([group[0]], None, 1, version=2, staying=[group[1]])
    assert (planned.mode, planned.group) == (IN_PLACE, "a")
    with pytest.raises(RollError, match="in-place leaves 0 workers of a while"):
        plan_roll([group[0]], None, 1, version=2)


def test_who_was_given_up_may_go_to_another_version() -> None:
    assert plan_roll([worker("a/1/device0", state=slots.FAILED)], None, 1, version=2)


def test_a_canary_by_surge_leaves_the_old_process_where_it_is() -> None:
    place = Place("a/1", settle_ms=100)
    roll = place.roll(("a/1", "a/2", SURGE))
    roll.replacements[0].is_canary = True
    assert place.ask(roll) == Begin("a/1", "a/2")
    place.set("a/2", slots.READY)
    assert place.ask(roll) is None
    place.now_ms = 100
    assert place.ask(roll) is None
    assert (roll.is_over, roll.is_complete) == (True, True)
    assert place.seen["a/1"].state == place.seen["a/2"].state == slots.READY


def test_where_the_new_process_is_there_already_the_old_one_only_has_to_go() -> None:
    place = Place("a/1", "a/2")
    roll = place.roll(("a/1", "a/2", IN_PLACE))
    assert place.ask(roll) == Drain("a/1", is_final=True)
    place.set("a/1", slots.VACANT)
    assert place.ask(roll) == Forget("a/1")
    assert roll.is_complete


def test_a_new_process_that_is_there_and_not_ready_is_waited_for() -> None:
    place = Place("a/1", "a/2")
    place.set("a/2", slots.BACKOFF)
    roll = place.roll(("a/1", "a/2", SURGE))
    assert place.ask(roll) is None
    place.set("a/2", slots.FAILED)
    assert place.ask(roll) is None
    assert roll.failure == RollFailure("a/2", WAITING)


def test_a_worker_that_was_given_up_is_left_for_another_version() -> None:
    place = Place("a/1", "b/1")
    place.set("a/1", slots.FAILED)
    roll = place.roll(("a/1", "a/2", IN_PLACE), ("b/1", "b/2", SURGE))
    assert place.ask(roll) == Begin("a/1", "a/2")
    place.set("a/2", slots.READY)
    assert place.ask(roll) == Forget("a/1")
    assert place.ask(roll) == Begin("b/1", "b/2")


def test_nobody_is_drained_while_too_few_others_are_ready() -> None:
    place = Place("a", "b", "c")
    steps = [Replacement(name, name, IN_PLACE, 1, group="g") for name in ("a", "b")]
    roll = Roll(steps, 0, min_ready=2, staying={"c": "g"})
    place.set("c", slots.STARTING)
    assert place.ask(roll) is None, "only b would be left"
    place.set("c", slots.READY)
    assert place.ask(roll) == Drain("a", is_final=False)


def test_a_surge_that_has_settled_keeps_the_old_process_while_others_are_missing() -> None:
    place = Place("a", "b", settle_ms=100)
    steps = [
        Replacement("a", "a~", SURGE, 1, group="g"),
        Replacement("b", "b~", SURGE, 1, group="g"),
    ]
    roll = Roll(steps, 100, min_ready=2)
    assert place.ask(roll) == Begin("a", "a~")
    place.set("a~", slots.READY)
    place.set("b", slots.BACKOFF)
    place.now_ms = 100
    assert place.ask(roll) is None
    assert roll.next_timer_ns(place.seen) is None, "no clock is waited for, but b"
    place.set("b", slots.READY)
    assert place.ask(roll) == Drain("a", is_final=True)


def test_a_cancelled_roll_begins_no_further_step() -> None:
    place = Place("a", "b")
    roll = place.roll(("a", "a", IN_PLACE), ("b", "b", IN_PLACE))
    assert place.ask(roll) == Drain("a", is_final=False)
    roll.cancel()
    assert place.ask(roll) is None
    assert not roll.is_over, "what drains is waited for, and its successor"
    place.set("a", slots.STARTING, 2)
    place.set("a", slots.READY)
    assert place.ask(roll) is None
    assert (roll.is_over, roll.is_complete, roll.failure) == (True, False, None)
    assert states(roll) == [DONE, CANCELLED]


def test_a_cancelled_surge_takes_its_successor_back() -> None:
    for state in (slots.STARTING, slots.READY):
        place = Place("a", settle_ms=100)
        roll = place.roll(("a", "a~", SURGE))
        place.ask(roll)
        place.set("a~", state)
        place.ask(roll)
        roll.cancel()
        assert place.ask(roll) == Withdraw("a~", None)
        assert (roll.is_over, states(roll)) == (True, [CANCELLED])
        assert place.seen["a"].state == slots.READY


def test_a_slot_and_its_twin_take_turns() -> None:
    assert twin(twin("add/1/device0")) == "add/1/device0"


@pytest.mark.shows("F27")
def test_a_roll_waits_for_a_device_that_is_not_released_yet() -> None:
    place = Place("a", "b")
    roll = place.roll(("a", "a", IN_PLACE), ("b", "b", IN_PLACE))
    assert place.ask(roll) == Drain("a", is_final=False)
    for tries in range(1, 5):
        place.set("a", slots.STARTING, tries + 1)
        assert place.ask(roll) is None
        place.set("a", slots.BACKOFF)
        place.seen["a"] = replace(place.seen["a"], device_tries=tries)
        assert (place.ask(roll), roll.failure) == (None, None)
    place.seen["a"] = replace(place.seen["a"], device_tries=0)
    place.set("a", slots.STARTING, 6)
    place.set("a", slots.READY)
    assert place.ask(roll) == Drain("b", is_final=False)


@pytest.mark.shows("F27")
def test_a_device_fault_ends_a_roll_and_nobody_else_is_touched() -> None:
    place = Place("a", "b")
    roll = place.roll(("a", "a", IN_PLACE), ("b", "b", IN_PLACE))
    place.ask(roll)
    place.set("a", slots.STARTING, 2)
    assert place.ask(roll) is None
    place.set("a", slots.DEVICE_FAULT)
    assert place.ask(roll) is None
    assert roll.failure == RollFailure("a", STARTING)
    assert place.seen["b"].state == slots.READY


def test_a_worker_that_keeps_dying_does_not_keep_its_servable_from_another_version() -> None:
    for mode in (SURGE, IN_PLACE):
        place = Place("a/1")
        place.set("a/1", slots.BACKOFF)
        roll = place.roll(("a/1", "a/2", mode))
        if mode == IN_PLACE:
            assert place.ask(roll) == Drain("a/1", is_final=True)
            place.set("a/1", slots.BACKOFF)
        assert place.ask(roll) == Begin("a/1", "a/2")
