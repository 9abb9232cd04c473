"""The processes of a server: spawned, heard, restarted and ended. No thread and no lock of its own.

What to do follows from the pure policies: `restart_policy` while the server runs, `stop_policy`
while it goes down (`going_down.py`). The crew registers pidfds (a death is known at once) and
channels with the selector of its supervisor, and tells it what became of the slots.
"""

from __future__ import annotations

import os
import random
import selectors
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from telemetry.live_settings import LiveSettings
from telemetry.log import get_logger
from workers.supervisor import restart_policy
from workers.supervisor import slot as slots
from workers.supervisor.child import ChannelError, Child, ChildSpec
from workers.supervisor.current_spec import current_spec
from workers.supervisor.door_table import DoorTable, Settled
from workers.supervisor.json_lines import LineError
from workers.supervisor.listeners import Listeners
from workers.supervisor.loss_reporter import LossReporter
from workers.supervisor.member import Member
from workers.supervisor.restart_policy import Fault, GiveUp, Kill, RestartLimits, Spawn
from workers.supervisor.start_error import exit_text, spawn_failure_text
from workers.supervisor.stop_policy import BROKER, GATEWAY, WORKER
from workers.supervisor.worker_log import WorkerLogs

log = get_logger("SERVING")

#: After SIGKILL the kernel may need a moment; a process in uninterruptible sleep is left behind.
KILL_WAIT_MS = 2_000

#: The id of the drain command; the door table counts its own from 1.
DRAIN_ID = 0


class CrewObserver(Protocol):
    """Who is told what became of the crew."""

    def slot_ready(self, member: Member) -> None:
        """A process serves."""

    def slot_failing(self, member: Member) -> None:
        """A process died, or said that it cannot serve; its slot is still in its old state."""

    def door_settled(self, settled: Settled) -> None:
        """A door is open at every gateway, or could not be opened."""

    def doors_changed(self) -> None:
        """A gateway came or went."""


class Crew:
    """Every slot of one server. All calls come from the thread that waits on the selector."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        losses: LossReporter,
        limits: RestartLimits,
        chance: random.Random,
        observer: CrewObserver,
    ) -> None:
        self.members: dict[str, Member] = {}
        self.doors = DoorTable()
        self.listeners = Listeners()
        #: How many processes ended, by kind, servable and `exit_reason.REASONS`.
        self.ends: Counter[tuple[str, str, str]] = Counter()
        #: Slots that a roll has emptied for another one: their services are waited for.
        self.expected: set[str] = set()
        self._selector = selector
        self._losses = losses
        self._logs = WorkerLogs()
        self._limits = limits
        self._chance = chance
        self._observer = observer
        #: Commands that every gateway, also one that starts later, must have been given.
        self._standing_commands: dict[str, Mapping[str, Any]] = {}
        #: What of logs and traces was changed since the start.
        self.settings = LiveSettings()

    def add(self, specs: Sequence[ChildSpec], generation: int = 0) -> None:
        """Have more slots; the policy fills them. REQUIRES: their names are new.

        generation: of the processes that those in these slots take the place of.
        """
        for spec in specs:
            assert spec.slot not in self.members, spec.slot
            self.members[spec.slot] = Member(spec, self._chance, generation)

    def device_workers(self, spec: ChildSpec) -> list[Member]:
        """The slots of the workers of a service that have its models."""
        return [
            member
            for member in self.of_kind(WORKER)
            if (member.spec.servable, member.spec.version) == (spec.servable, spec.version)
            and not member.spec.needs_devices
        ]

    def of_kind(self, kind: str) -> list[Member]:
        """The slots of one kind."""
        return [member for member in self.members.values() if member.spec.kind == kind]

    def producers_addresses(self) -> list[str]:
        """Where direct clients reach the broker now; empty while it is away."""
        kind = BROKER if self.of_kind(BROKER) else GATEWAY
        return [address for member in self.of_kind(kind) for address in member.producers]

    def command_gateways(self, command: Mapping[str, Any]) -> None:
        """Give a command to every gateway of now and later; the latest of a name counts."""
        self._standing_commands[command["command"]] = command
        for member in self.of_kind(GATEWAY):
            if member.slot.state == slots.READY:
                self._send(member, command)

    def tell_all(self, command: Mapping[str, Any]) -> None:
        """Give a command to every gateway of now and later, and to every other process of now."""
        self.command_gateways(command)
        for member in self.members.values():
            if member.spec.kind != GATEWAY:
                self._send(member, command)

    def next_timer_ns(self) -> int | None:
        """When `follow_policy` is due even if nothing happens."""
        return restart_policy.next_timer_ns(self.snapshots().values(), self._limits)

    def snapshots(self) -> dict[str, slots.SlotSnapshot]:
        """What policies see of the slots, by name."""
        return {name: member.slot.snapshot() for name, member in self.members.items()}

    # ------------------------------------------------------------ while the server runs

    def follow_policy(self, now_ns: int) -> None:
        """Do what the restart policy names, until it names nothing more."""
        while action := self._next_action(now_ns):
            member = self.members[action.slot]
            match action:
                case Spawn():
                    self._spawn(member, now_ns)
                case Kill():
                    self.kill(member, f"it took too long, {member.slot.state}")
                case GiveUp():
                    member.slot.apply(slots.GAVE_UP, now_ns)
                    log.error("slot given up", slot=action.slot, last_exit=member.last_exit)
                    self.retire_if_last(member)
                case Fault():
                    member.slot.apply(slots.FAULTED, now_ns)
                    log.error("device fault", slot=action.slot, error=member.error)
                    self._observer.slot_failing(member)
                    self.retire_if_last(member)

    def _next_action(self, now_ns: int) -> restart_policy.Action | None:
        return restart_policy.next_action([*self.snapshots().values()], now_ns, self._limits)

    def _spawn(self, member: Member, now_ns: int) -> None:
        slot = member.slot
        slot.apply(slots.SPAWNED, now_ns)
        member.error = None
        output_fd = self._logs.open(member.spec.log_file, is_first=slot.generation == 1)
        try:
            spec = current_spec(member.spec, self.members.values(), self.settings.log_level)
            child = Child(spec, slot.generation, output_fd)
        except OSError as error:
            member.error = spawn_failure_text(member.spec, error)
            self._note_exit(member, member.error)
            return
        finally:
            if output_fd is not None:
                os.close(output_fd)
        member.child = child
        read = selectors.EVENT_READ
        self._selector.register(child.pidfd, read, partial(self._exited, member, child))
        self._selector.register(child.channel_fd, read, partial(self._hear, member, child))
        log.info("child started", slot=slot.name, pid=child.pid, generation=slot.generation)

    def terminate(self, member: Member, now_ns: int) -> None:
        """Tell a process to drain and go. REQUIRES: it is here."""
        assert member.child is not None, member.slot.name
        member.slot.apply(slots.TERMINATED, now_ns)
        member.child.terminate()

    def kill(self, member: Member, reason: str, is_blameless: bool = True) -> None:
        """Kill a process. REQUIRES: it is here. is_blameless: not for what it was doing."""
        assert member.child is not None, member.slot.name
        log.warning("child killed", slot=member.slot.name, pid=member.child.pid, reason=reason)
        member.kill_reason = reason
        member.is_blameless = is_blameless
        member.slot.mark_killed()
        member.child.kill()

    def kill_all(self) -> None:
        """Kill every process group there is."""
        for member in self.members.values():
            if member.child:
                member.child.kill()

    # ------------------------------------------------------------ what children say

    def _hear(self, member: Member, child: Child) -> None:
        if member.child is not child:
            return
        try:
            said = child.receive()
        except LineError as error:
            log.error("child speaks nonsense", slot=member.slot.name, error=str(error))
            member.error = str(error)
            self._selector.unregister(child.channel_fd)
            child.kill()
            return
        if said is None:
            self._selector.unregister(child.channel_fd)
            return
        for report in said:
            self._take_report(member, report)

    def _take_report(self, member: Member, report: dict[str, Any]) -> None:
        now_ns = time.monotonic_ns()
        if "id" in report:
            self._take_reply(member, report)
            return
        match report.get("state") or report.get("event"):
            case "started":
                member.note_producers(report)
                self.doors.gateway_started(member.slot.name)
                self.flush_doors()
            case "ready":
                member.report = report
                member.device = report.get("device")
                member.note_producers(report)
                self._note_ready(member, now_ns)
            case "numbers":
                member.numbers = report.get("numbers")
            case "draining":
                member.slot.apply(slots.SIGNED_OFF, now_ns)
            case "failed":
                member.error = str(report.get("error"))
                member.slot.note_device(report.get("device"))
                if member.slot.generation > 1:
                    log.error("child failed", **member.facts(), error=member.error)
                self._observer.slot_failing(member)

    def _take_reply(self, member: Member, reply: dict[str, Any]) -> None:
        if reply["id"] == DRAIN_ID:
            member.is_serving = False
            if member.leaves_when_drained:
                self.tell_to_leave(member, time.monotonic_ns())
            return
        if "fd" in reply:
            self.listeners.keep(self.doors.kind_asked(reply), reply["fd"])
        self.doors.receive_reply(reply)
        self.flush_doors()

    def _note_ready(self, member: Member, now_ns: int) -> None:
        member.slot.apply(slots.REPORTED, now_ns)
        if member.slot.state == slots.READY:
            log.info("child ready", **member.facts())
            self._observer.slot_ready(member)

    # ------------------------------------------------------------ doors

    def flush_doors(self) -> None:
        """Carry out what the door table asks for."""
        doors = self.doors
        while doors.outbox:
            gateway, command = doors.outbox.pop(0)
            fd = self.listeners.of_command(command["command"])
            self._send(self.members[gateway], command, fd)
        while doors.broken:
            gateway, error = doors.broken.pop(0)
            log.error("door cannot be opened again", slot=gateway, error=error)
            member = self.members[gateway]
            member.error = error
            if member.child:
                member.child.kill()
        while doors.settled:
            self._observer.door_settled(doors.settled.pop(0))
        for member in self.of_kind(GATEWAY):
            if member.slot.state == slots.STARTING and doors.is_complete(member.slot.name):
                self._note_gateway_ready(member)

    def _note_gateway_ready(self, member: Member) -> None:
        member.is_serving = True
        for command in self._standing_commands.values():
            self._send(member, command)
        self._note_ready(member, time.monotonic_ns())
        self._observer.doors_changed()

    def _send(self, member: Member, command: Mapping[str, Any], fd: int | None = None) -> None:
        if member.child is None:
            return
        try:
            member.child.send(command, fd)
        except ChannelError as error:
            log.error("child takes no commands", slot=member.slot.name, error=str(error))
            member.child.kill()

    # ------------------------------------------------------------ deaths

    def _exited(self, member: Member, child: Child) -> None:
        if member.child is not child:
            return
        try:
            for report in child.receive_last():
                self._take_report(member, report)
        except LineError as error:
            member.error = str(error)
        self._selector.unregister(child.pidfd)
        if child.channel_fd in self._selector.get_map():
            self._selector.unregister(child.channel_fd)
        started = None if child.page is None else child.page.started()
        returncode = child.reap()
        text = exit_text(returncode)
        if member.kill_reason is not None:
            text = f"{text} ({member.kill_reason})"
        is_blameless = member.is_blameless
        self.ends[member.spec.kind, member.spec.servable, member.exit_reason(returncode)] += 1
        member.forget_process()
        # Who waits for a first start is told of its failure; nobody is told of a later death.
        is_news = member.slot.state == slots.READY or (
            member.slot.state == slots.STARTING and child.generation > 1
        )
        (log.warning if is_news else log.info)(
            "child exited",
            slot=member.slot.name,
            pid=child.pid,
            generation=child.generation,
            exit=text,
        )
        is_drained = returncode == restart_policy.EXIT_DRAINED
        if member.spec.kind == WORKER and not (is_drained and member.slot.state == slots.DRAINING):
            self._losses.report(member.slot.name, child.generation, text, started, is_blameless)
        self._note_exit(member, text)

    def _note_exit(self, member: Member, text: str) -> None:
        now_ns = time.monotonic_ns()
        member.last_exit = text
        member.exits.append((now_ns, member.slot.generation, text))
        self._observer.slot_failing(member)
        member.slot.apply(slots.EXITED, now_ns)
        self.retire_if_last(member)
        if member.spec.kind == GATEWAY:
            self.doors.gateway_lost(member.slot.name)
            self.flush_doors()
            self._observer.doors_changed()

    def retire_if_last(self, member: Member) -> None:
        """Tell the broker when the last device worker of a service is gone for good.

        Its extra workers go, too: they can do nothing alone.
        """
        spec = member.spec
        peers = self.device_workers(spec)
        if spec.kind != WORKER or spec.needs_devices:
            return
        if not all(peer.slot.is_gone and peer.slot.name not in self.expected for peer in peers):
            return
        reason = f"slot {spec.slot} is {member.slot.state}, last exit: {member.last_exit}"
        self._losses.retire(f"{spec.servable}/{spec.version}", reason)
        for other in self.of_kind(WORKER):
            if (other.spec.servable, other.spec.version) == (spec.servable, spec.version):
                other.slot.retire()
                if other.child is not None and other.slot.state != slots.DRAINING:
                    self.terminate(other, time.monotonic_ns())

    # ------------------------------------------------------------ going down

    def close_doors(
        self, member: Member, grace_ms: int, now_ns: int, leave: Mapping[str, Any] | None = None
    ) -> None:
        """Tell a gateway to finish what is in flight and take nothing new. REQUIRES: it serves.

        leave: how it leaves its clients to other gateways first, see `gateway_process`.
        """
        member.slot.apply(slots.TERMINATED, now_ns)
        command = {"id": DRAIN_ID, "command": "drain", "grace_ms": grace_ms, "leave": leave}
        self._send(member, command)

    def tell_to_leave(self, member: Member, now_ns: int) -> None:
        """Tell a process that serves nobody any more to go. Idempotent."""
        if member.is_told_to_leave or member.child is None:
            return
        member.is_told_to_leave = True
        if member.spec.kind == GATEWAY:
            member.child.leave()
        if member.spec.kind == BROKER or member.slot.state == slots.STARTING:
            member.child.terminate()
        member.slot.apply(slots.TERMINATED, now_ns)
