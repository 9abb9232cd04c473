"""A roll: every process of some slots is replaced by a new one, one at a time. A pure machine.

    surge      WAITING ─► STARTING ─► SETTLING ─► DRAINING ─► DONE      the new one first
    in place   WAITING ─► DRAINING ─► STARTING ─► SETTLING ─► DONE      the old one first
               each of them ─► FAILED

Rules
1. The next replacement begins only while every slot that takes part is READY, or empty because
   nobody wants it (extra workers go with the last device worker of their version). A crash in the
   middle pauses the roll by itself, until the slot has come back.
2. SETTLING: the new process must stay READY for `settle_ms`, so that one that crashes in its first
   seconds is met while the others still run what they ran before.
3. The first failure ends the roll. What has been replaced stays; a surge leaves the old process,
   and in place the old one is started again where the new one has a slot of its own.
4. In a restart, a process that was restarted since it was asked for is new already, and a slot that
   nobody wants any more stays empty.

The roll names actions; its shell carries them out, and shows it the slots again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

#: Behind a slot's name: the second place on the same device, which a surge uses in turn.
TWIN_MARK = "~"

#: Workers of a service that stay READY at any moment of a roll.
MIN_READY_DEFAULT = 1

#: How long a new process has to stay READY before the next one is touched.
SETTLE_MS_DEFAULT = 2_000


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
    """

    old: str
    new: str
    mode: str
    generation: int
    state: str = WAITING
    is_reload: bool = False

    def __post_init__(self) -> None:
        assert self.mode in MODES, self
        assert self.mode == IN_PLACE or self.old != self.new, self


def _is_gone(seen: SlotSnapshot) -> bool:
    """Nobody wants a process here: somebody drained it, or what it needs has gone."""
    return seen.state in (slots.VACANT, slots.BACKOFF) and not seen.is_wanted


def _is_settled(seen: SlotSnapshot) -> bool:
    return seen.state == slots.READY or _is_gone(seen)


class RollError(Exception):
    """A roll that cannot be made; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class RollRequest:
    """What a roll is asked to be. servable: None = every one. mode: None = see `plan_roll`.

    version: of a reload; 0 = the newest that is there. None = the workers keep theirs.
    min_ready: workers of each service that stay READY at any moment. is_dry_run: plan only.
    """

    servable: str | None = None
    version: int | None = None
    mode: str | None = None
    min_ready: int = MIN_READY_DEFAULT
    settle_ms: int = SETTLE_MS_DEFAULT
    is_dry_run: bool = False


def read_roll(command: Mapping[str, Any]) -> RollRequest:
    """Check what came over the control socket. Raises RollError naming the key and the value."""
    servable, mode = command.get("servable"), command.get("mode")
    is_reload = command.get("command") == "reload"
    if is_reload and servable is None:
        raise RollError("a reload needs a servable")
    if servable is not None and not isinstance(servable, str):
        raise RollError(f"servable {servable!r} is not a text")
    if mode is not None and mode not in MODES:
        raise RollError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    return RollRequest(
        servable,
        _count(command, "version", 0) if is_reload else None,
        mode,
        _count(command, "min_ready", MIN_READY_DEFAULT),
        _count(command, "settle_ms", SETTLE_MS_DEFAULT),
        command.get("is_dry_run") is True,
    )


def _count(command: Mapping[str, Any], key: str, default: int) -> int:
    value = command.get(key, default)
    if type(value) is not int or value < 0:
        raise RollError(f"{key} {value!r} is not an integer >= 0")
    return value


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that may be replaced. target: kind of the device that it really has."""

    slot: str
    service: str
    state: str
    generation: int
    target: str | None


def plan_roll(
    candidates: Sequence[Candidate],
    mode: str | None,
    min_ready: int,
    version: int | None = None,
) -> list[Replacement]:
    """One replacement per worker, in their order. version: to which they go, None = they stay.

    mode: None = surge where processes can share a device, which is the CPU; on others in place, for
    two processes may not fit on it. min_ready: workers of a service that stay READY at any moment.
    Raises: RollError.
    """
    ready: dict[str, int] = {}
    for candidate in candidates:
        if candidate.state == slots.FAILED:
            raise RollError(
                f"slot {candidate.slot} is FAILED: nothing can be rolled before it runs"
            )
        ready[candidate.service] = ready.get(candidate.service, 0) + 1
    replacements = []
    for candidate in candidates:
        chosen = mode or (SURGE if candidate.target == "CPU" else IN_PLACE)
        left = ready[candidate.service] - 1
        if chosen == IN_PLACE and left < min_ready:
            raise RollError(
                f"{IN_PLACE} leaves {left} workers of {candidate.service} while {candidate.slot} "
                f"is replaced, fewer than min_ready {min_ready}: take --mode {SURGE}, or a "
                "smaller --min-ready"
            )
        if version is not None:
            new = slot_of_version(candidate.slot, version)
        else:
            new = candidate.slot if chosen == IN_PLACE else twin(candidate.slot)
        replacements.append(
            Replacement(
                candidate.slot,
                new,
                chosen,
                candidate.generation,
                is_reload=version is not None,
            )
        )
    return replacements


def slot_of_version(slot: str, version: int) -> str:
    """The same place of another version: `add/1/device0` and 2 give `add/2/device0`."""
    servable, _, place = slot.rsplit("/", 2)
    return f"{servable}/{version}/{place.removesuffix(TWIN_MARK)}"


def twin(slot: str) -> str:
    """The other place of a slot, for a process beside the one that it has."""
    return slot.removesuffix(TWIN_MARK) if slot.endswith(TWIN_MARK) else slot + TWIN_MARK


class Roll:
    """Replacements in their order. `next_action` until it names nothing; idle while one is awaited.

    REQUIRES: at least one replacement; every `old` is a slot that exists.
    """

    def __init__(self, replacements: Sequence[Replacement], settle_ms: int) -> None:
        assert replacements
        self.replacements = tuple(replacements)
        self.failure: RollFailure | None = None
        self._settle_ns = settle_ms * NS_PER_MS
        self._at = 0

    @property
    def is_over(self) -> bool:
        """Nothing is left to do, or the roll has failed."""
        return self.failure is not None or self._at == len(self.replacements)

    @property
    def waits_for(self) -> str | None:
        """The slot whose next state the roll waits for."""
        if self.is_over:
            return None
        current = self.replacements[self._at]
        return current.old if current.state in (WAITING, DRAINING) else current.new

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
        if current.state != SETTLING or current.new not in seen:
            return None
        return seen[current.new].since_ns + self._settle_ns

    # ------------------------------------------------------------ one step

    def _step(
        self, current: Replacement, seen: Mapping[str, SlotSnapshot], now_ns: int
    ) -> Action | None:
        match current.state:
            case "WAITING":
                return self._begin(current, seen)
            case "STARTING":
                return self._await_ready(current, seen)
            case "SETTLING":
                return self._settle(current, seen, now_ns)
            case _:
                return self._await_gone(current, seen)

    def _begin(self, current: Replacement, seen: Mapping[str, SlotSnapshot]) -> Action | None:
        for other in self._slots_now():
            if other not in seen or seen[other].state == slots.FAILED:
                self._fail(current, other)
                return None
        old = seen[current.old]
        if current.is_reload:
            current.generation = old.generation  # a crash meanwhile brought the old version back
        elif old.generation > current.generation or _is_gone(old):
            current.new = current.old
            self._finish(current)
            return None
        if any(not _is_settled(seen[other]) for other in self._slots_now()):
            return None
        if current.mode == SURGE or _is_gone(seen[current.old]):
            current.state = STARTING
            return Begin(current.old, current.new)
        current.state = DRAINING
        return Drain(current.old, is_final=current.old != current.new)

    def _await_ready(self, current: Replacement, seen: Mapping[str, SlotSnapshot]) -> Action | None:
        new = seen[current.new]
        if new.generation > current.generation + 1:
            return self._give_up(current)  # the first one died, this is its successor already
        if new.state == slots.READY:
            current.state = SETTLING
            return None
        return None if new.state in (slots.VACANT, slots.STARTING) else self._give_up(current)

    def _settle(
        self, current: Replacement, seen: Mapping[str, SlotSnapshot], now_ns: int
    ) -> Action | None:
        new = seen[current.new]
        if new.state != slots.READY or new.generation > current.generation + 1:
            return self._give_up(current)
        if now_ns < new.since_ns + self._settle_ns:
            return None
        if current.mode == SURGE:
            current.state = DRAINING
            return Drain(current.old, is_final=True)
        self._finish(current)
        return Forget(current.old) if current.old != current.new else None

    def _await_gone(self, current: Replacement, seen: Mapping[str, SlotSnapshot]) -> Action | None:
        old = seen[current.old]
        if current.old == current.new:
            if _is_gone(old):  # somebody drained it for good while it went
                self._finish(current)
            elif old.generation > current.generation:
                current.state = STARTING
            return None
        if old.state not in (slots.VACANT, slots.BACKOFF, slots.FAILED):
            return None
        if current.mode == SURGE:
            self._finish(current)
            return Forget(current.old)
        current.state = STARTING
        return Begin(current.old, current.new)

    def _slots_now(self) -> list[str]:
        """The slots that take part, by the names that they have by now."""
        return [step.new if step.state == DONE else step.old for step in self.replacements]

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
