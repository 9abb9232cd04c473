"""A roll: every process of some slots is replaced by a new one, one at a time. A pure machine.

    surge      WAITING ─► STARTING ─► SETTLING ─► DRAINING ─► DONE      the new one first
    in place   WAITING ─► DRAINING ─► STARTING ─► SETTLING ─► DONE      the old one first
    a canary by surge stays beside the old one:   … ─► SETTLING ─► DONE
    where the new one is there already:  WAITING ─► DRAINING ─► DONE
               each of them ─► FAILED, or WAITING ─► CANCELLED

Rules
1. The next replacement begins only while every slot that takes part is READY, or empty because
   nobody wants it (extra workers go with the last device worker of their version), or down and on
   its way to another version, which may be the cure. Any other crash in the middle pauses the roll
   by itself, until the slot has come back.
2. SETTLING: the new process must stay READY for `settle_ms`, so that one that crashes in its first
   seconds is met while the others still run what they ran before.
3. The first failure ends the roll. What has been replaced stays; a surge leaves the old process,
   and in place the old one is started again where the new one has a slot of its own.
4. No process is drained as long as fewer than `min_ready` of its group would be left READY.
5. Who cancels a roll lets its step come to an end: a successor beside the old process is withdrawn,
   one in its place is waited for.
6. In a restart, a process that was restarted since it was asked for is new already, and a slot that
   nobody wants any more stays empty.

The roll names actions; its shell carries them out, and shows it the slots again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workers.supervisor import slot as slots
from workers.supervisor.slot import NS_PER_MS, SlotSnapshot

SURGE = "surge"
IN_PLACE = "in-place"
MODES = (SURGE, IN_PLACE)

WAITING = "WAITING"
STARTING = "STARTING"
SETTLING = "SETTLING"
DRAINING = "DRAINING"
DONE = "DONE"
FAILED = "FAILED"
CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Begin:
    """Have slot `new`, whose first process is the successor of the one in slot `old`."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell the process of this slot to go. is_final: no other one comes after it."""

    slot: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class Forget:
    """The slot is empty and wanted no more."""

    slot: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The successor in slot `new` failed: end it. restored: the old slot shall be filled again."""

    new: str
    restored: str | None


Action = Begin | Drain | Forget | Withdraw


@dataclass(frozen=True, slots=True)
class RollFailure:
    """Where a roll ended. phase: the replacement's state when it failed."""

    slot: str
    phase: str


@dataclass(slots=True)
class Replacement:
    """One step of a roll. new: equal to `old` where the slot keeps its place.

    generation: of the process that is to be replaced. is_reload: the new one has another version.
    group: what it serves; those of one group stand in for each other. is_canary: by surge, the old
    process stays. has_settled: only the old process is still needed, for want of others.
    device_tries: processes of the new slot that found their device busy.
    """

    old: str
    new: str
    mode: str
    generation: int
    state: str = WAITING
    is_reload: bool = False
    group: str = ""
    is_canary: bool = False
    has_settled: bool = False
    device_tries: int = 0

    def __post_init__(self) -> None:
        assert self.mode in MODES, self
        assert self.mode == IN_PLACE or self.old != self.new, self


def _is_gone(seen: SlotSnapshot) -> bool:
    """Nobody wants a process here: somebody drained it, or what it needs has gone."""
    return seen.state in (slots.VACANT, slots.BACKOFF) and not seen.is_wanted


def _is_settled(seen: SlotSnapshot, step: Replacement) -> bool:
    """It runs, or nobody wants it, or it keeps dying and is about to leave for another version."""
    leaves = step.is_reload and step.state != DONE
    is_down = seen.state in (slots.BACKOFF, *slots.GIVEN_UP)
    return seen.state == slots.READY or _is_gone(seen) or (leaves and is_down)


class Roll:
    """Replacements in their order. `next_action` until it names nothing; idle while one is awaited.

    REQUIRES: at least one replacement; every `old` is a slot that exists.
    """

    def __init__(
        self,
        replacements: Sequence[Replacement],
        settle_ms: int,
        min_ready: int = 0,
        staying: Mapping[str, str] | None = None,
    ) -> None:
        """staying: group by slot, of slots that are not replaced and count for `min_ready`."""
        assert replacements
        self.replacements = tuple(replacements)
        self.failure: RollFailure | None = None
        self.is_cancelled = False
        self._settle_ns = settle_ms * NS_PER_MS
        self._min_ready = min_ready
        self._staying = dict(staying or {})
        self._at = 0

    @property
    def is_over(self) -> bool:
        """Nothing is left to do, or the roll has failed."""
        return self.failure is not None or self._at == len(self.replacements)

    @property
    def is_complete(self) -> bool:
        """Every replacement is made."""
        return all(step.state == DONE for step in self.replacements)

    @property
    def waits_for(self) -> str | None:
        """The slot whose next state the roll waits for."""
        if self.is_over:
            return None
        current = self.replacements[self._at]
        return current.old if current.state in (WAITING, DRAINING) else current.new

    def cancel(self) -> None:
        """Begin no further step, and take the present one back if that costs nothing."""
        self.is_cancelled = True

    def next_action(self, seen: Mapping[str, SlotSnapshot], now_ns: int) -> Action | None:
        """What to do now, or None. seen: the slots as they are."""
        while not self.is_over:
            current = self.replacements[self._at]
            before = current.state
            action = self._step(current, seen, now_ns)
            if action is not None or current.state == before:
                return action
        return None

    def next_timer_ns(self, seen: Mapping[str, SlotSnapshot]) -> int | None:
        """When `next_action` has to be asked again even if no slot changes."""
        if self.is_over:
            return None
        current = self.replacements[self._at]
        if current.state != SETTLING or current.has_settled or current.new not in seen:
            return None
        return seen[current.new].since_ns + self._settle_ns

    # ------------------------------------------------------------ one step

    def _step(
        self, current: Replacement, seen: Mapping[str, SlotSnapshot], now_ns: int
    ) -> Action | None:
        if self.is_cancelled and (action := self._take_back(current)) is not None:
            return action
        match current.state:
            case "WAITING":
                return self._begin(current, seen)
            case "STARTING":
                return self._await_ready(current, seen)
            case "SETTLING":
                return self._settle(current, seen, now_ns)
            case "DRAINING":
                return self._await_gone(current, seen)
            case _:
                return None

    def _take_back(self, current: Replacement) -> Action | None:
        """End the roll here, if nothing is missing by it. A process that drains is waited for."""
        if current.state == WAITING:
            self._cancel_rest()
        elif current.state in (STARTING, SETTLING) and current.mode == SURGE:
            self._cancel_rest()
            return Withdraw(current.new, None)
        return None

    def _cancel_rest(self) -> None:
        for step in self.replacements[self._at :]:
            step.state = CANCELLED
        self._at = len(self.replacements)

    def _begin(self, current: Replacement, seen: Mapping[str, SlotSnapshot]) -> Action | None:
        for step, other in self._slots_now():
            if other not in seen or (seen[other].state in slots.GIVEN_UP and not _may_fail(step)):
                self._fail(current, other)
                return None
        old = seen[current.old]
        if current.is_reload:
            current.generation = old.generation  # a crash meanwhile brought the old version back
        elif old.generation > current.generation or _is_gone(old):
            current.new = current.old
            self._finish(current)
            return None
        if any(not _is_settled(seen[other], step) for step, other in self._slots_now()):
            return None
        if current.new != current.old and current.new in seen:
            return self._leave_to(current, seen)
        if current.mode == SURGE or _is_gone(old) or old.state in slots.GIVEN_UP:
            current.state = STARTING
            return Begin(current.old, current.new)
        return self._drain(current, seen, is_final=current.old != current.new)

    def _leave_to(self, current: Replacement, seen: Mapping[str, SlotSnapshot]) -> Action | None:
        """The new process is there already: only the old one has to go."""
        new = seen[current.new]
        if new.state in slots.GIVEN_UP:
            self._fail(current, current.new)
            return None
        if new.state != slots.READY:
            return None
        current.mode = SURGE
        return self._drain(current, seen, is_final=True)

    def _drain(
        self, current: Replacement, seen: Mapping[str, SlotSnapshot], is_final: bool
    ) -> Action | None:
        """Drain the old process as soon as enough others of its group are READY."""
        names = {current.new} if current.new in seen else set()
        names |= {other for step, other in self._slots_now() if step.group == current.group}
        names |= {slot for slot, group in self._staying.items() if group == current.group}
        names.discard(current.old)
        ready = sum(name in seen and seen[name].state == slots.READY for name in names)
        if ready < self._min_ready and seen[current.old].state == slots.READY:
            return None
        current.state = DRAINING
        return Drain(current.old, is_final)

    def _await_ready(self, current: Replacement, seen: Mapping[str, SlotSnapshot]) -> Action | None:
        new = seen[current.new]
        if new.device_tries > current.device_tries:
            # It found its device busy and is going to try again: that is no death.
            current.generation += new.device_tries - current.device_tries
            current.device_tries = new.device_tries
        if new.generation > current.generation + 1:
            return self._give_up(current)  # the first one died, this is its successor already
        if new.state == slots.READY:
            current.state = SETTLING
            return None
        is_busy = new.state == slots.BACKOFF and new.device_tries and not new.has_device_fault
        is_coming = new.state in (slots.VACANT, slots.STARTING) or is_busy
        return None if is_coming else self._give_up(current)

    def _settle(
        self, current: Replacement, seen: Mapping[str, SlotSnapshot], now_ns: int
    ) -> Action | None:
        new = seen[current.new]
        if new.state != slots.READY or new.generation > current.generation + 1:
            return self._give_up(current)
        if now_ns < new.since_ns + self._settle_ns:
            return None
        current.has_settled = True
        if current.mode == IN_PLACE:
            self._finish(current)
            return Forget(current.old) if current.old != current.new else None
        if current.is_canary:
            self._finish(current)
            return None
        return self._drain(current, seen, is_final=True)

    def _await_gone(self, current: Replacement, seen: Mapping[str, SlotSnapshot]) -> Action | None:
        old = seen[current.old]
        if current.old == current.new:
            if _is_gone(old):  # somebody drained it for good while it went
                self._finish(current)
            elif old.generation > current.generation:
                current.state = STARTING
            return None
        if old.state not in (slots.VACANT, slots.BACKOFF, *slots.GIVEN_UP):
            return None
        if current.mode == SURGE:
            self._finish(current)
            return Forget(current.old)
        current.state = STARTING
        return Begin(current.old, current.new)

    def _slots_now(self) -> list[tuple[Replacement, str]]:
        """The slots that take part, by the names that they have by now."""
        return [(step, step.new if step.state == DONE else step.old) for step in self.replacements]

    # ------------------------------------------------------------ endings

    def _finish(self, current: Replacement) -> None:
        current.state = DONE
        self._at += 1

    def _fail(self, current: Replacement, slot: str) -> None:
        self.failure = RollFailure(slot, current.state)
        current.state = FAILED

    def _give_up(self, current: Replacement) -> Action | None:
        self._fail(current, current.new)
        if current.old == current.new:
            return None  # its slot goes on by the restart policy
        return Withdraw(current.new, current.old if current.mode == IN_PLACE else None)


def _may_fail(step: Replacement) -> bool:
    """It goes to another version: that it is FAILED is no reason to stay."""
    return step.is_reload and step.state != DONE
