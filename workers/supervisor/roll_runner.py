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
from workers.supervisor.roll import SURGE, Begin, Drain, Forget, Replacement, Roll, Withdraw
from workers.supervisor.roll_plan import (
    PROMOTE,
    RELOAD,
    RESTART,
    Candidate,
    RollError,
    RollRequest,
    plan_roll,
    twin,
)
from workers.supervisor.stop_policy import BROKER, GATEWAY, WORKER, doors_grace_ms
from workers.supervisor.version_shares import Change, VersionShares
from workers.supervisor.worker_log import log_file_name

log = get_logger("SERVING")

#: How long a connection that is kept alive may make one more request at a gateway that goes.
IDLE_MS = 2_000


class RollRunner:
    """The roll that runs, or the last one. All calls come from the supervisor's thread."""

    def __init__(self, crew: Crew, losses: LossReporter, drain_limit_ms: int) -> None:
        """drain_limit_ms: after which a process that drains is killed."""
        self._drain_limit_ms = drain_limit_ms
        self.versions = VersionShares(crew, losses)
        self._crew = crew
        self._roll: Roll | None = None
        self._asked = RollRequest()
        #: What a canary had of version 0 before it was to be promoted or rolled back.
        self._percent_before: int | None = None
        #: The roll is the first one that takes its servable to the other version.
        self._is_first_change = False
        #: Why the roll failed, in words.
        self._failure: str | None = None
        #: What to start in the new slots.
        self._specs: dict[str, ChildSpec] = {}
        #: A device worker that is to drain once the extra workers that need it have.
        self._last: Member | None = None

    # ------------------------------------------------------------ asked for

    def ask(self, asked: RollRequest) -> list[dict[str, Any]]:
        """Begin to replace workers; returns the plan. Raises: RollError."""
        if self._roll is not None and not self._roll.is_over:
            raise RollError(f"another roll is under way and waits for slot {self._roll.waits_for}")
        there = self._members_of(asked)
        version, members = None, there
        if asked.command != RESTART:
            version, members = self._way_to(asked, there)
        is_canary = asked.canary_percent is not None
        is_reload = version is not None
        staying = [
            _candidate(member, is_reload) for member in there if is_canary or member not in members
        ]
        planned = plan_roll(
            [_candidate(member, is_reload) for member in members],
            asked.mode,
            asked.min_ready,
            version,
            [each for each in staying if each.slot != members[0].spec.slot],
            is_canary,
        )
        for step in planned:
            if is_reload:
                step.new = self._place_of(step.new)
            elif step.new != step.old and step.new in self._crew.members:
                raise RollError(f"slot {step.new} is there already")
        if not asked.is_dry_run:
            if version is not None:
                self._begin_change(asked, members[0].spec.version, version)
            self._specs = {
                step.new: _successor_spec(member.spec, step.new, version)
                for step, member in zip(planned, members, strict=True)
            }
            groups = {each.slot: each.group for each in staying}
            self._roll = Roll(planned, asked.settle_ms, asked.min_ready, groups)
            self._asked, self._failure = asked, None
            log.info("roll begun", command=asked.command, slots=len(planned))
        return [_as_document(step) for step in planned]

    def _place_of(self, slot: str) -> str:
        """The slot, or its twin if the worker is there: after a surge it is."""
        other = self._crew.members.get(twin(slot))
        is_there = slot in self._crew.members or other is None or other.is_dismissed
        return slot if is_there else twin(slot)

    def cancel(self) -> None:
        """Begin no further replacement. Raises: RollError."""
        if self._roll is None or self._roll.is_over:
            raise RollError("no roll is under way")
        self._roll.cancel()
        log.info("roll cancelled by order")

    def _members_of(self, asked: RollRequest) -> list[Member]:
        servable = asked.servable
        if asked.kind != WORKER:
            self._check_infrastructure(asked.kind, asked.mode)
        members = [
            member
            for member in self._crew.of_kind(asked.kind)
            if servable is None or member.spec.servable == servable
            if not member.is_dismissed
            if not member.slot.is_gone or member.slot.state in slots.GIVEN_UP
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

    def _check_infrastructure(self, kind: str, mode: str | None) -> None:
        """Raises RollError where gateways or broker cannot be replaced one by one."""
        if kind == BROKER and mode == SURGE:
            raise RollError(f"a broker cannot be there twice: mode {SURGE} is for the others")
        if not self._crew.of_kind(BROKER):
            raise RollError(
                f"the {kind} cannot be restarted in mode embedded: the broker is inside of the "
                "gateway, and what waits there would be lost; serve with --mode standalone"
            )

    # ------------------------------------------------------------ to another version

    def _way_to(self, asked: RollRequest, members: Sequence[Member]) -> tuple[int, list[Member]]:
        """The version that a roll goes to, and the workers that it replaces."""
        servable = str(asked.servable)
        change = self.versions.of(servable)
        if asked.command != RELOAD:
            if change is None:
                raise RollError(f"servable {servable} is not between two versions")
            version = change.new if asked.command == PROMOTE else change.old
        else:
            version = self._version_of(asked, members)
            if change is not None and version not in (change.old, change.new):
                raise RollError(
                    f"servable {servable} is between versions {change.old} and {change.new}: "
                    "`mindbus promote` or `mindbus rollback` it first"
                )
        running = {member.spec.version for member in members}
        if change is not None:
            between = (change.old, change.new)
            leaving = [
                m for m in members if m.spec.version in between and m.spec.version != version
            ]
        elif version in running:
            raise RollError(f"version {version} of {servable} runs already")
        else:
            leaving = [m for m in members if m.spec.version == max(running)]
        if asked.canary_percent is not None:
            if change is not None:
                raise RollError(f"servable {servable} has a canary already, version {change.new}")
            leaving = [m for m in leaving if not m.spec.needs_devices][:1]
        if not leaving:
            raise RollError(f"version {version} of {servable} runs already")
        return version, leaving

    def _version_of(self, asked: RollRequest, members: Sequence[Member]) -> int:
        spec = members[0].spec
        has_models = any(member.report.get("models") for member in members)
        directory = spec.document["servable_directory"]
        try:
            return resolve_version(directory, spec.servable, asked.version, has_models)
        except RuntimeError as error:
            raise RollError(str(error)) from None

    def _begin_change(self, asked: RollRequest, left: int, version: int) -> None:
        servable = str(asked.servable)
        change = self.versions.of(servable)
        self._is_first_change = change is None
        if change is None:
            self.versions.begin(servable, Change(left, version, asked.canary_percent))
        else:
            self._percent_before = change.percent
            self.versions.set_percent(servable, 0 if version == change.old else None)

    def _end_change(self, roll: Roll) -> None:
        """The roll is over: one version is left, or the two go on beside each other."""
        if self._asked.command == RESTART:
            return
        servable = str(self._asked.servable)
        has_begun = any(step.state == "DONE" for step in roll.replacements)
        if self._is_first_change and not has_begun:
            self.versions.end_when_gone(servable)
        elif roll.is_complete and self._asked.canary_percent is None:
            self.versions.end(servable)
        elif not has_begun:
            self.versions.set_percent(servable, self._percent_before)

    # ------------------------------------------------------------ carried out

    def follow(self, now_ns: int) -> bool:
        """Do what the roll names next. Returns whether it did something."""
        for name, member in list(self._crew.members.items()):
            if member.is_dismissed and member.child is None:
                del self._crew.members[name]
        roll = self._roll
        self.versions.follow()
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
                self._crew.expected.discard(action.slot)
                # Before the broker hears that nobody serves this version: what waits for a label
                # has another one then.
                self._note_end(roll)
                self.versions.follow()
                self._crew.retire_if_last(member)
            case Withdraw():
                self._note_end(roll)  # before what failed is taken away
                self._withdraw(action, now_ns)
        self._note_end(roll)
        self.versions.follow()
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

    def _drain(self, action: Drain, now_ns: int) -> None:
        member = self._crew.members[action.slot]
        if action.is_final:
            self._crew.expected.add(action.slot)
            member.slot.retire()
            if member.child is not None and self._extra_workers_without(member):
                self._last = member
                self._drain_last(now_ns)
                return
        self._terminate(member, now_ns)

    def _terminate(self, member: Member, now_ns: int) -> None:
        if member.child is None or member.slot.state == slots.DRAINING:
            return
        if member.spec.kind == GATEWAY and member.slot.state == slots.READY:
            member.leaves_when_drained = True
            member.slot.allow_drain(IDLE_MS)
            leave = {"idle_ms": IDLE_MS}
            grace_ms = doors_grace_ms(self._drain_limit_ms)
            self._crew.close_doors(member, grace_ms, now_ns, leave)
        else:
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
            self._crew.expected.discard(action.restored)
            self._crew.members[action.restored].slot.want()

    def _note_end(self, roll: Roll) -> None:
        if not roll.is_over or self._failure is not None:
            return
        self._end_change(roll)
        failure = roll.failure
        if failure is not None:
            member = self._crew.members.get(failure.slot)
            cause = "it is gone"
            if member is not None:
                cause = member.error or member.last_exit or f"it is {member.slot.state}"
            self._failure = f"slot {failure.slot} failed, phase {failure.phase}: {cause}"
            log.error("roll failed", slot=failure.slot, phase=failure.phase, cause=cause)
        elif not roll.is_complete:
            done = sum(step.state == "DONE" for step in roll.replacements)
            self._failure = f"cancelled, {done} of {len(roll.replacements)} are replaced"
            log.warning("roll ended before its time", replaced=done, of=len(roll.replacements))
        else:
            log.info("roll done", slots=len(roll.replacements))

    # ------------------------------------------------------------ shown

    def status(self) -> dict[str, Any] | None:
        """Plain values; None if there has been no roll."""
        roll = self._roll
        if roll is None:
            return None
        return {
            "command": self._asked.command,
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


def _candidate(member: Member, is_reload: bool) -> Candidate:
    kind, slot = member.spec.kind, member.slot
    if kind != WORKER:
        # Gateways share their addresses; of a broker there is one.
        target = "CPU" if kind == GATEWAY else None
        return Candidate(slot.name, kind, slot.state, slot.generation, target)
    # What it reported last: while it starts again it has no device.
    target = (member.report.get("device") or {}).get("target")
    spec = member.spec
    # On the way to another version, workers of both stand in for each other.
    group = spec.servable if is_reload else f"{spec.servable}/{spec.version}"
    if spec.needs_devices:
        group = f"extra workers of {group}"
    return Candidate(slot.name, group, slot.state, slot.generation, target)


def _as_document(step: Replacement) -> dict[str, Any]:
    return {"old": step.old, "new": step.new, "mode": step.mode, "state": step.state}
