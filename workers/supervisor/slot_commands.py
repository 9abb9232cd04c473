"""What an operator may do to one slot: drain it, kill its process, fill it again."""

from __future__ import annotations

from collections.abc import Callable

from telemetry.log import get_logger
from workers.supervisor import slot as slots
from workers.supervisor.crew import Crew
from workers.supervisor.member import Member
from workers.supervisor.roll_plan import twin
from workers.supervisor.stop_policy import WORKER

log = get_logger("SERVING")


class SlotCommandError(Exception):
    """What was asked for cannot be done to this slot; the text says why."""


def drain(crew: Crew, name: object, now_ns: int) -> None:
    """Have the worker finish what it holds and leave; its slot stays empty until a reset."""
    member = _member(crew, name)
    if member.spec.kind != WORKER:
        raise SlotCommandError(f"slot {name} is a {member.spec.kind}, not a worker")
    if member.child is None:
        raise SlotCommandError(f"slot {name} has no process, it is {member.slot.state}")
    others = [
        other
        for other in crew.device_workers(member.spec)
        if other is not member and other.slot.is_wanted and other.slot.state == slots.READY
    ]
    if not member.spec.needs_devices and not others:
        service = f"{member.spec.servable}/{member.spec.version}"
        raise SlotCommandError(
            f"slot {name} is the last worker of {service}: `mindbus restart` replaces it, "
            "`mindbus stop` ends the server"
        )
    member.slot.retire()
    if member.slot.state != slots.DRAINING:
        crew.terminate(member, now_ns)
    log.info("slot drains by order", slot=name)


def kill(crew: Crew, name: object, _now_ns: int) -> None:
    """Kill the process of any slot, as `kill -9` would; another one takes its place."""
    member = _member(crew, name)
    if member.child is None:
        raise SlotCommandError(f"slot {name} has no process, it is {member.slot.state}")
    crew.kill(member, "by order")


def reset(crew: Crew, name: object, now_ns: int) -> None:
    """Fill a slot again that was given up, drained, or signed off."""
    member = _member(crew, name)
    if member.is_dismissed:
        raise SlotCommandError(f"slot {name} belonged to a roll that failed, it is going")
    if member.slot.name in crew.expected:
        raise SlotCommandError(f"slot {name} is left by a roll: another one takes its place")
    if member.slot.state in slots.GIVEN_UP:
        member.slot.apply(slots.RESET, now_ns)
    elif member.slot.is_wanted:
        raise SlotCommandError(
            f"slot {name} is {member.slot.state}: only a slot that was given up or drained is reset"
        )
    member.slot.want()
    log.info("slot reset by order", slot=name)


#: By the name that comes over the control socket.
SLOT_COMMANDS: dict[str, Callable[[Crew, object, int], None]] = {
    "drain": drain,
    "kill": kill,
    "reset": reset,
}


def _member(crew: Crew, name: object) -> Member:
    member = None
    if isinstance(name, str):
        # A surge has taken the worker to the other place of its device: the device is meant.
        member = crew.members.get(name) or crew.members.get(twin(name))
    if member is None:
        raise SlotCommandError(f"slot {name!r} is not one of {', '.join(crew.members)}")
    return member
