"""How a server's processes are ended in their order: carries out the stop policy on the crew."""

from __future__ import annotations

from collections.abc import Sequence

from workers.supervisor import slot as slots
from workers.supervisor import stop_policy
from workers.supervisor.crew import Crew
from workers.supervisor.member import Member
from workers.supervisor.slot import NS_PER_MS
from workers.supervisor.stop_policy import BROKER, WORKER


def go_down(crew: Crew, now_ns: int, deadline_ns: int) -> bool:
    """Do what the stop policy names. Returns whether every process is gone."""
    crew.listeners.close()  # or who connects now would wait for nobody
    present = [member for member in crew.members.values() if member.child]
    match stop_policy.next_rung([member.presence for member in present], now_ns, deadline_ns):
        case stop_policy.CLOSE_DOORS:
            _close_doors(crew, present, now_ns, deadline_ns)
        case stop_policy.DRAIN_BROKER:
            _drain(crew, [member for member in present if member.spec.kind == BROKER], now_ns)
        case stop_policy.DRAIN_EXTRA_WORKERS:
            _drain(crew, [member for member in present if member.spec.needs_devices], now_ns)
        case stop_policy.DRAIN_WORKERS:
            _drain(crew, [member for member in present if member.spec.kind == WORKER], now_ns)
        case stop_policy.LEAVE:
            for member in present:
                crew.tell_to_leave(member, now_ns)
        case stop_policy.KILL:
            for member in present:
                if not member.slot.snapshot().is_killed:
                    crew.kill(member, "the server's grace is over")
        case stop_policy.DONE:
            return True
    return False


def _drain(crew: Crew, members: Sequence[Member], now_ns: int) -> None:
    for member in members:
        if member.slot.state != slots.DRAINING:
            crew.terminate(member, now_ns)


def _close_doors(crew: Crew, present: Sequence[Member], now_ns: int, deadline_ns: int) -> None:
    grace_ms = stop_policy.doors_grace_ms((deadline_ns - now_ns) // NS_PER_MS)
    for member in present:
        if member.is_serving and (member.slot.state == slots.READY or member.leaves_when_drained):
            member.leaves_when_drained = False  # it need not leave its clients to others any more
            crew.close_doors(member, grace_ms, now_ns)
