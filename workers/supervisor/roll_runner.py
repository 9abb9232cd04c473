"""Carries out rolls on the crew, one at a time, and tells how they go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from telemetry.log import get_logger
from workers.supervisor import slot as slots
from workers.supervisor.crew import Crew
from workers.supervisor.member import Member
from workers.supervisor.roll import (
    Begin,
    Candidate,
    Drain,
    Forget,
    Replacement,
    RestartRequest,
    Roll,
    RollError,
    Withdraw,
    plan_restart,
)
from workers.supervisor.stop_policy import WORKER

log = get_logger("SERVING")


class RollRunner:
    """The roll that runs, or the last one. All calls come from the supervisor's thread."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._roll: Roll | None = None
        #: Why the roll failed, in words.
        self._failure: str | None = None
        #: Slots that nobody wants: they go once their process has gone.
        self._dismissed: set[str] = set()

    # ------------------------------------------------------------ asked for

    def restart(self, asked: RestartRequest) -> list[dict[str, Any]]:
        """Begin to replace workers; returns the plan. Raises: RollError."""
        servable = asked.servable
        members = [
            member
            for member in self._crew.of_kind(WORKER)
            if servable is None or member.spec.servable == servable
            if not member.slot.is_gone or member.slot.state == slots.FAILED
        ]
        if not members:
            raise RollError(
                "no worker is there" if servable is None else f"no worker serves {servable!r}"
            )
        for member in members:
            if member.spec.is_distributed:
                raise RollError(
                    f"worker {member.spec.slot} is that of a group of ranks, which cannot be there "
                    "twice: kill it, and the group is started again"
                )
        candidates = [_candidate(member) for member in members]
        planned = plan_restart(candidates, asked.mode, asked.min_ready)
        if not asked.is_dry_run:
            self._begin(Roll(planned, asked.settle_ms))
        return [_as_document(step) for step in planned]

    def _begin(self, roll: Roll) -> None:
        if self._roll is not None and not self._roll.is_over:
            raise RollError(f"another roll is under way and waits for slot {self._roll.waits_for}")
        self._roll = roll
        self._failure = None
        log.info("roll begun", slots=len(roll.replacements))

    # ------------------------------------------------------------ carried out

    def follow(self, now_ns: int) -> bool:
        """Do what the roll names next. Returns whether it did something."""
        for name in list(self._dismissed):
            if self._crew.members[name].child is None:
                self._dismissed.remove(name)
                del self._crew.members[name]
        roll = self._roll
        if roll is None or roll.is_over:
            return False
        action = roll.next_action(self._crew.snapshots(), now_ns)
        match action:
            case Begin():
                self._begin_slot(action)
            case Drain():
                self._drain(action, now_ns)
            case Forget():
                del self._crew.members[action.slot]
            case Withdraw():
                self._note_end(roll)  # before what failed is taken away
                self._withdraw(action, now_ns)
        self._note_end(roll)
        return action is not None

    def next_timer_ns(self) -> int | None:
        """When `follow` is due even if nothing happens."""
        return None if self._roll is None else self._roll.next_timer_ns(self._crew.snapshots())

    def _begin_slot(self, action: Begin) -> None:
        old = self._crew.members[action.old]
        document = {**old.spec.document, "worker_id": action.new}
        spec = replace(old.spec, slot=action.new, document=document)
        self._crew.add([spec], old.slot.generation)

    def _drain(self, action: Drain, now_ns: int) -> None:
        member = self._crew.members[action.slot]
        if action.is_final:
            member.slot.retire()
        if member.child is not None and member.slot.state != slots.DRAINING:
            self._crew.terminate(member, now_ns)

    def _withdraw(self, action: Withdraw, now_ns: int) -> None:
        self._drain(Drain(action.new, is_final=True), now_ns)
        self._dismissed.add(action.new)
        if action.restored is not None:
            self._crew.members[action.restored].slot.want()

    def _note_end(self, roll: Roll) -> None:
        if not roll.is_over or self._failure is not None:
            return
        failure = roll.failure
        if failure is None:
            log.info("roll done", slots=len(roll.replacements))
            return
        member = self._crew.members[failure.slot]
        cause = member.error or member.last_exit or f"it is {member.slot.state}"
        self._failure = f"slot {failure.slot} failed, phase {failure.phase}: {cause}"
        log.error("roll failed", slot=failure.slot, phase=failure.phase, cause=cause)

    # ------------------------------------------------------------ shown

    def status(self) -> dict[str, Any] | None:
        """Plain values; None if there has been no roll."""
        roll = self._roll
        if roll is None:
            return None
        return {
            "is_over": roll.is_over,
            "failure": self._failure,
            "waits_for": roll.waits_for,
            "replacements": [_as_document(step) for step in roll.replacements],
        }


def _candidate(member: Member) -> Candidate:
    target = (member.device or {}).get("target")
    service = f"{member.spec.servable}/{member.spec.version}"
    if member.spec.needs_devices:
        service = f"extra workers of {service}"
    slot = member.slot
    return Candidate(slot.name, service, slot.state, slot.generation, target)


def _as_document(step: Replacement) -> dict[str, Any]:
    return {"old": step.old, "new": step.new, "mode": step.mode, "state": step.state}
