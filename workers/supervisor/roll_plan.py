"""What a roll is asked to be, and which steps it has: a restart, a reload, a canary. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.supervisor import slot as slots
from workers.supervisor.roll import IN_PLACE, MODES, SURGE, Replacement
from workers.supervisor.stop_policy import BROKER, KINDS, WORKER

#: Behind a slot's name: the second place on the same device, which a surge uses in turn.
TWIN_MARK = "~"

#: Workers of a service that stay READY at any moment of a roll.
MIN_READY_DEFAULT = 1

#: How long a new process has to stay READY before the next one is touched.
SETTLE_MS_DEFAULT = 2_000

#: A canary gets at least 1 and at most 99 of 100 requests for version 0.
CANARY_PERCENT_MAX = 99

RESTART = "restart"
RELOAD = "reload"
PROMOTE = "promote"
ROLLBACK = "rollback"

#: The commands that begin a roll. All but the first take one servable to another version.
ROLL_COMMANDS = (RESTART, RELOAD, PROMOTE, ROLLBACK)


class RollError(Exception):
    """A roll that cannot be made; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class RollRequest:
    """What a roll is asked to be. servable: None = every one. mode: None = see `plan_roll`.

    kind: of the processes that a restart replaces: WORKER, GATEWAY or BROKER.
    version: of a reload; 0 = the newest that is there. canary_percent: of a reload that replaces
    one worker and lets the other version have so much of version 0; None = all are replaced.
    min_ready: workers of each service that stay READY at any moment. is_dry_run: plan only.
    """

    command: str = RESTART
    kind: str = WORKER
    servable: str | None = None
    version: int = 0
    canary_percent: int | None = None
    mode: str | None = None
    min_ready: int = MIN_READY_DEFAULT
    settle_ms: int = SETTLE_MS_DEFAULT
    is_dry_run: bool = False


def read_roll(command: Mapping[str, Any]) -> RollRequest:
    """Check what came over the control socket. Raises RollError naming the key and the value."""
    name = str(command.get("command"))
    servable, mode = command.get("servable"), command.get("mode")
    if name != RESTART and servable is None:
        raise RollError(f"a {name} needs a servable")
    if servable is not None and not isinstance(servable, str):
        raise RollError(f"servable {servable!r} is not a text")
    if mode is not None and mode not in MODES:
        raise RollError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    kind = command.get("kind", WORKER)
    if kind not in KINDS:
        raise RollError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    if kind != WORKER and (servable is not None or name != RESTART):
        raise RollError(f"a {kind} belongs to no servable")
    percent = command.get("canary_percent")
    if percent is not None and (type(percent) is not int or not 1 <= percent <= CANARY_PERCENT_MAX):
        raise RollError(f"canary_percent {percent!r} is not an integer in 1..{CANARY_PERCENT_MAX}")
    return RollRequest(
        name,
        kind,
        servable,
        _count(command, "version", 0) if name == RELOAD else 0,
        percent if name == RELOAD else None,
        mode,
        0 if kind == BROKER else _count(command, "min_ready", MIN_READY_DEFAULT),
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
    """A worker that may be replaced, or that stays.

    group: what it serves; those of one group stand in for each other. target: kind of the device
    that it has, or had last.
    """

    slot: str
    group: str
    state: str
    generation: int
    target: str | None


def plan_roll(
    candidates: Sequence[Candidate],
    mode: str | None,
    min_ready: int,
    version: int | None = None,
    staying: Collection[Candidate] = (),
    is_canary: bool = False,
) -> list[Replacement]:
    """One replacement per worker, in their order. version: to which they go, None = they stay.

    mode: None = surge where processes can share a device, which is the CPU; on others in place, for
    two processes may not fit on it. min_ready: workers of a group that stay READY at any moment.
    staying: those of the same groups that are not replaced. is_canary: the old worker stays, too.
    Raises: RollError.
    """
    ready: dict[str, int] = {}
    for candidate in candidates:
        # Who goes to another version may be FAILED: the way out of that is what is asked for.
        if candidate.state in slots.GIVEN_UP and version is None:
            raise RollError(
                f"slot {candidate.slot} is {candidate.state}: nothing can be rolled before it runs"
            )
    for worker in (*candidates, *staying):
        ready[worker.group] = ready.get(worker.group, 0) + (worker.state not in slots.GIVEN_UP)
    replacements = []
    for candidate in candidates:
        chosen = mode or (SURGE if candidate.target == "CPU" else IN_PLACE)
        left = ready[candidate.group] - (candidate.state not in slots.GIVEN_UP)
        if chosen == IN_PLACE and left < min_ready:
            raise RollError(
                f"{IN_PLACE} leaves {left} workers of {candidate.group} while {candidate.slot} "
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
                group=candidate.group,
                is_canary=is_canary,
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
