"""Carries out rolls on the crew, one at a time, and tells how they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from telemetry.log import get_logger
from workers.servable.loader import resolve_version
from workers.supervisor import slot as slots
from workers.supervisor.child import ChildSpec
from workers.supervisor.crew import Crew
from workers.supervisor.loss_reporter import LossReporter
from workers.supervisor.member import Member
from workers.supervisor.roll import (
    Begin,
    Candidate,
    Drain,
    Forget,
    Replacement,
    Roll,
    RollError,
    RollRequest,
    Withdraw,
    plan_roll,
)
from workers.supervisor.stop_policy import WORKER
from workers.supervisor.worker_log import log_file_name

log = get_logger("SERVING")


class RollRunner:
    """The roll that runs, or the last one. All calls come from the supervisor's thread."""

    def __init__(self, crew: Crew, losses: LossReporter) -> None:
        self._crew = crew
        self._losses = losses
        self._roll: Roll | None = None
        #: Why the roll failed, in words.
        self._failure: str | None = None
        #: What to start in the new slots.
        self._specs: dict[str, ChildSpec] = {}
        #: The servable that the roll takes to another version; None for a restart.
        self._servable: str | None = None
        #: Servables whose reload stopped half-way: two of their versions run.
        self._half_way: set[str] = set()
        #: What the broker was told.
        self._shares: dict[str, tuple[tuple[int, int], ...]] = {}
        #: A device worker that is to drain once the extra workers that need it have.
        self._last: Member | None = None

    # ------------------------------------------------------------ asked for

    def ask(self, asked: RollRequest) -> list[dict[str, Any]]:
        """Begin to replace workers; returns the plan. Raises: RollError."""
        if self._roll is not None and not self._roll.is_over:
            raise RollError(f"another roll is under way and waits for slot {self._roll.waits_for}")
        members = self._members_of(asked.servable)
        version = None
        if asked.version is not None:
            version, members = self._reload_of(members, asked.version)
        candidates = [_candidate(member) for member in members]
        planned = plan_roll(candidates, asked.mode, asked.min_ready, version)
        for step in planned:
            if step.new != step.old and step.new in self._crew.members:
                raise RollError(f"slot {step.new} is there already")
        if not asked.is_dry_run:
            self._roll = Roll(planned, asked.settle_ms)
            self._failure = None
            self._servable = asked.servable if version is not None else None
            self._specs = {
                step.new: _successor_spec(member.spec, step.new, version)
                for step, member in zip(planned, members, strict=True)
            }
            log.info("roll begun", slots=len(planned))
        return [_as_document(step) for step in planned]

    def _members_of(self, servable: str | None) -> list[Member]:
        members = [
            member
            for member in self._crew.of_kind(WORKER)
            if servable is None or member.spec.servable == servable
            if not member.is_dismissed
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
        return members

    def _reload_of(self, members: Sequence[Member], asked: int) -> tuple[int, list[Member]]:
        """The version that a reload goes to, and the workers of the one that it comes from."""
        spec = members[0].spec
        running = {member.spec.version for member in members}
        has_models = any(member.report.get("models") for member in members)
        directory = spec.document["servable_directory"]
        try:
            version = resolve_version(directory, spec.servable, asked, has_models)
        except RuntimeError as error:
            raise RollError(str(error)) from None
        if version not in running:
            return version, [m for m in members if m.spec.version == max(running)]
        others = [m for m in members if m.spec.version != version]
        if others and spec.servable in self._half_way:
            return version, others  # it goes on, or back
        raise RollError(f"version {version} of {spec.servable} runs already")

    # ------------------------------------------------------------ carried out

    def follow(self, now_ns: int) -> bool:
        """Do what the roll names next. Returns whether it did something."""
        for name, member in list(self._crew.members.items()):
            if member.is_dismissed and member.child is None:
                del self._crew.members[name]
        roll = self._roll
        self._share()
        self._drain_last(now_ns)
        if roll is None or roll.is_over:
            return False
        action = roll.next_action(self._crew.snapshots(), now_ns)
        match action:
            case Begin():
                self._begin_slot(action)
            case Drain():
                self._drain(action, now_ns)
            case Forget():
                member = self._crew.members.pop(action.slot)
                self._crew.retire_if_last(member)
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
        spec = self._specs[action.new]
        if spec.needs_devices:
            spec = replace(spec, document={**spec.document, "models": self._models_of(spec)})
        self._crew.add([spec], old.slot.generation)

    def _models_of(self, spec: ChildSpec) -> Any:
        """What the device workers have loaded that an extra worker will call."""
        loaded = [member.report.get("models") for member in self._crew.device_workers(spec)]
        return next((models for models in loaded if models is not None), {})

    # ------------------------------------------------------------ shares

    def _share(self) -> None:
        """While two versions run, each gets version 0 in proportion to its workers."""
        for servable in {*self._half_way, self._servable} - {None}:
            self._share_servable(str(servable))

    def _share_servable(self, servable: str) -> None:
        ready: dict[int, int] = {}
        for member in self._crew.of_kind(WORKER):
            spec = member.spec
            if spec.servable == servable and not spec.needs_devices:
                is_ready = member.slot.state == slots.READY
                ready[spec.version] = ready.get(spec.version, 0) + is_ready
        counts = tuple(sorted(item for item in ready.items() if item[1]))
        shares = counts if len(counts) > 1 else ()
        if shares != self._shares.get(servable, ()):
            self._shares[servable] = shares
            self._losses.share(servable, shares)

    def broker_started(self) -> None:
        """A new broker knows of no shares."""
        for servable, shares in self._shares.items():
            if shares:
                self._losses.share(servable, shares)

    def _drain(self, action: Drain, now_ns: int) -> None:
        member = self._crew.members[action.slot]
        if action.is_final:
            member.slot.retire()
            if member.child is not None and self._extra_workers_without(member):
                self._last = member
                self._drain_last(now_ns)
                return
        self._terminate(member, now_ns)

    def _terminate(self, member: Member, now_ns: int) -> None:
        if member.child is not None and member.slot.state != slots.DRAINING:
            self._crew.terminate(member, now_ns)

    def _extra_workers_without(self, member: Member) -> list[Member]:
        """Extra workers that still run and would have no device worker without this one."""
        spec = member.spec
        peers = self._crew.device_workers(spec)
        if spec.needs_devices or any(
            peer is not member and peer.slot.state == slots.READY for peer in peers
        ):
            return []
        return [
            other
            for other in self._crew.of_kind(WORKER)
            if other.spec.needs_devices and other.child is not None
            if (other.spec.servable, other.spec.version) == (spec.servable, spec.version)
        ]

    def _drain_last(self, now_ns: int) -> None:
        """Drain the last device worker of a version, after the extra workers that need it."""
        member = self._last
        if member is None:
            return
        waiting = self._extra_workers_without(member)
        for other in waiting:
            other.slot.retire()
            self._terminate(other, now_ns)
        if not waiting or member.child is None:
            self._last = None
            self._terminate(member, now_ns)

    def _withdraw(self, action: Withdraw, now_ns: int) -> None:
        member = self._crew.members[action.new]
        member.slot.retire()
        member.is_dismissed = True
        self._terminate(member, now_ns)
        if action.restored is not None:
            self._crew.members[action.restored].slot.want()

    def _note_end(self, roll: Roll) -> None:
        if not roll.is_over or self._failure is not None:
            return
        failure = roll.failure
        if self._servable is not None:
            keep = self._half_way.discard if failure is None else self._half_way.add
            keep(self._servable)
        if failure is None:
            log.info("roll done", slots=len(roll.replacements))
            return
        member = self._crew.members.get(failure.slot)
        cause = "it is gone"
        if member is not None:
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


def _successor_spec(spec: ChildSpec, slot: str, version: int | None) -> ChildSpec:
    """The same worker in another slot, perhaps of another version."""
    document = {**spec.document, "worker_id": slot}
    if version is None:
        return replace(spec, slot=slot, document=document)
    document |= {"version": version, "version_asked": version}
    log_file = spec.log_file
    if log_file is not None:
        process = slot.rpartition("/")[2]
        log_file = log_file.with_name(log_file_name(spec.servable, process, version))
    return replace(spec, slot=slot, document=document, version=version, log_file=log_file)


def _candidate(member: Member) -> Candidate:
    # What it reported last: while it starts again it has no device.
    target = (member.report.get("device") or {}).get("target")
    service = f"{member.spec.servable}/{member.spec.version}"
    if member.spec.needs_devices:
        service = f"extra workers of {service}"
    slot = member.slot
    return Candidate(slot.name, service, slot.state, slot.generation, target)


def _as_document(step: Replacement) -> dict[str, Any]:
    return {"old": step.old, "new": step.new, "mode": step.mode, "state": step.state}
