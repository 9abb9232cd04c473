"""The supervisor: the one thread that looks after a server's processes.

It waits on its crew (deaths and reports), on the control socket of the CLI, and on an eventfd by
which other threads hand in jobs; each job answers through a future. Every child is spawned by
this thread, because PR_SET_PDEATHSIG follows the thread that spawned.
"""

from __future__ import annotations

import os
import random
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from telemetry.live_settings import LiveSettingError
from telemetry.log import get_logger
from workers.supervisor import slot as slots
from workers.supervisor import stop_policy
from workers.supervisor.child import ChildSpec
from workers.supervisor.control_listener import ControlListener
from workers.supervisor.crew import KILL_WAIT_MS, Crew
from workers.supervisor.door_table import ALREADY_RUNNING_TEXTS, Door, DoorTable, Settled
from workers.supervisor.going_down import go_down
from workers.supervisor.hang_policy import HangLimits
from workers.supervisor.loss_reporter import LossReporter
from workers.supervisor.member import NS_PER_S, Member
from workers.supervisor.restart_policy import EXIT_WATCHDOG, RestartLimits
from workers.supervisor.roll_plan import ROLL_COMMANDS, RollError, read_roll
from workers.supervisor.roll_runner import RollRunner
from workers.supervisor.run_directory import RunDirectory
from workers.supervisor.settings_command import change_settings, settings_status
from workers.supervisor.slot import NS_PER_MS
from workers.supervisor.slot_commands import SLOT_COMMANDS, SlotCommandError
from workers.supervisor.start_error import SIGNAL_TEXT, StartError, start_failure_text
from workers.supervisor.watch import Watch

log = get_logger("SERVING")

T = TypeVar("T")

HANG_LIMITS = HangLimits()

#: The longest grace of a stop: a day.
GRACE_MS_MAX = 86_400_000

#: Nothing is in flight while a server starts: who does not go in this time is killed.
ABORT_GRACE_MS = 2_000

EXIT_OK = 0
EXIT_FAILED = 1


@dataclass
class _Start:
    """The first start of some slots: all become READY, or the server goes down."""

    slots: frozenset[str]
    waiting: set[str]
    #: What each slot's process reported.
    reports: dict[str, Mapping[str, Any]]
    future: Future[dict[str, Mapping[str, Any]]]


class Supervisor:
    """The processes of one server. Public methods may be called from any thread."""

    def __init__(
        self,
        directory: RunDirectory,
        mode: str,
        limits: RestartLimits,
        chance: random.Random,
        hang: HangLimits = HANG_LIMITS,
    ) -> None:
        """mode: for the status."""
        self.exit_code = EXIT_OK
        #: Why the server went down by itself; None before, and after an ordered stop.
        self.failure: StartError | None = None
        self._directory = directory
        self._mode = mode
        self._drain_limit_ms = limits.drain_limit_ms
        self._selector = selectors.DefaultSelector()
        self._losses = LossReporter(directory.workers_address)
        self._crew = Crew(self._selector, self._losses, limits, chance, self)
        self._crew.doors = DoorTable()
        self._rolls = RollRunner(self._crew, self._losses, limits.drain_limit_ms)
        self._watch = Watch(hang)
        self._listener: ControlListener | None = None
        self._starts: list[_Start] = []
        self._door_futures: dict[str, Future[str]] = {}
        self._stop_deadline_ns: int | None = None
        self._is_done = False
        # Reentrant: a signal handler may hand in a job while its own thread is doing so.
        self._lock = threading.RLock()
        self._jobs: deque[Callable[[], None]] = deque()
        self._is_closed = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mindbus-supervisor")

    # ------------------------------------------------------------ from other threads

    def start(self) -> None:
        """Begin to supervise; the thread keeps the program alive until `stop`."""
        self._thread.start()

    def add(self, specs: Sequence[ChildSpec]) -> Future[dict[str, Mapping[str, Any]]]:
        """Fill new slots. The future is done when all are READY: what each of them reported.

        StartError: one of them failed; the server has gone down by then.
        """
        future: Future[dict[str, Mapping[str, Any]]] = Future()
        return self._hand_in(future, lambda: self._add(specs, future))

    def open_door(self, door: Door) -> Future[str]:
        """Open a door. The future gives its bound address, or StartError with the reason."""
        future: Future[str] = Future()
        return self._hand_in(future, lambda: self._open_door(door, future))

    def command_gateways(self, command: Mapping[str, Any]) -> Future[None]:
        """Give a command to every gateway of now and later; the latest of a name counts."""
        future: Future[None] = Future()

        def job() -> None:
            self._crew.command_gateways(command)
            future.set_result(None)

        return self._hand_in(future, job)

    def status(self) -> Future[dict[str, Any]]:
        """What is true now: plain values."""
        future: Future[dict[str, Any]] = Future()
        return self._hand_in(future, lambda: future.set_result(self._status()))

    def stop(self, grace_ms: int) -> None:
        """Go down within the grace; returns at once. A second call can only shorten it."""
        self._hand_in(Future[None](), lambda: self._begin_stop(grace_ms, EXIT_OK, None))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every process is gone. Returns whether that is so."""
        return self._finished.wait(timeout_s)

    def _hand_in(self, future: Future[T], job: Callable[[], None]) -> Future[T]:
        with self._lock:
            if self._is_closed:
                future.set_exception(self.failure or StartError("the server has stopped"))
                return future
            self._jobs.append(job)
            os.eventfd_write(self._wake_fd, 1)
        return future

    # ------------------------------------------------------------ the loop

    def _run(self) -> None:
        try:
            self._selector.register(self._wake_fd, selectors.EVENT_READ, self._take_jobs)
            self._listener = ControlListener(
                self._directory.control_path, self._selector, self._answer
            )
            self.doors_changed()
            while not self._is_done:
                self._turn()
        except Exception:
            # The top of the shell: whatever was wrong here, no process may be left behind.
            log.exception("supervisor failed")
            self.exit_code = EXIT_WATCHDOG
            self.failure = StartError("the supervisor failed; its log says why")
            self._crew.kill_all()
        finally:
            self._close()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._timeout_s(time.monotonic_ns())):
            key.data()
        now_ns = time.monotonic_ns()
        if self._stop_deadline_ns is None:
            self._crew.follow_policy(now_ns)
            while self._rolls.follow(now_ns):
                self._crew.follow_policy(now_ns)
            for member, reason in self._watch.look(self._crew.members.values(), now_ns):
                self._crew.kill(member, reason, is_blameless=False)
            self._stop_if_gone()
        if self._stop_deadline_ns is not None:
            self._is_done = go_down(self._crew, now_ns, self._stop_deadline_ns)
            if now_ns >= self._stop_deadline_ns + KILL_WAIT_MS * NS_PER_MS and not self._is_done:
                log.error("children survive SIGKILL")
                self.exit_code = EXIT_FAILED
                self._is_done = True

    def _timeout_s(self, now_ns: int) -> float | None:
        timer_ns = self._stop_deadline_ns
        if timer_ns is None:
            timers_ns = (
                self._crew.next_timer_ns(),
                self._rolls.next_timer_ns(),
                self._watch.next_timer_ns(self._crew.members.values()),
            )
            timer_ns = min((each for each in timers_ns if each is not None), default=None)
        elif timer_ns <= now_ns:
            timer_ns += KILL_WAIT_MS * NS_PER_MS
        return None if timer_ns is None else max(0.0, (timer_ns - now_ns) / NS_PER_S)

    def _take_jobs(self) -> None:
        os.eventfd_read(self._wake_fd)
        while self._jobs:
            self._jobs.popleft()()

    def _stop_if_gone(self) -> None:
        """A server all of whose workers, gateways or brokers are gone for good serves nobody."""
        for kind in stop_policy.KINDS:
            members = [m for m in self._crew.of_kind(kind) if not m.spec.needs_devices]
            if not members or not all(member.slot.is_gone for member in members):
                continue
            has_failed = any(member.slot.state in slots.GIVEN_UP for member in members)
            log.warning(
                "Serving server begin to exit: all worker processes that occupy devices have exited"
                if kind == stop_policy.WORKER
                else f"Serving server begin to exit: no {kind} is left"
            )
            text = f"every {kind} is gone ({members[0].slot.name}: {members[0].last_exit})"
            self._begin_stop(
                self._drain_limit_ms,
                EXIT_FAILED if has_failed else EXIT_OK,
                StartError(text) if has_failed else None,
            )
            return

    # ------------------------------------------------------------ jobs

    def _add(
        self, specs: Sequence[ChildSpec], future: Future[dict[str, Mapping[str, Any]]]
    ) -> None:
        taken = [spec.slot for spec in specs if spec.slot in self._crew.members]
        if taken:
            future.set_exception(StartError(f"slot {taken[0]} is there already"))
        elif self._stop_deadline_ns is not None:
            future.set_exception(self.failure or StartError(SIGNAL_TEXT))
        else:
            names = [spec.slot for spec in specs]
            self._starts.append(_Start(frozenset(names), set(names), {}, future))
            self._crew.add(specs)

    def _open_door(self, door: Door, future: Future[str]) -> None:
        if self._stop_deadline_ns is not None:
            future.set_exception(self.failure or StartError("the server is going down"))
            return
        if door.kind in self._crew.doors:
            future.set_exception(StartError(ALREADY_RUNNING_TEXTS[door.kind]))
            return
        self._door_futures[door.kind] = future
        self._crew.doors.add(door)
        self._crew.flush_doors()

    def _begin_stop(self, grace_ms: int, exit_code: int, failure: StartError | None) -> None:
        deadline_ns = time.monotonic_ns() + grace_ms * NS_PER_MS
        if self._stop_deadline_ns is not None:
            self._stop_deadline_ns = min(self._stop_deadline_ns, deadline_ns)
            return
        self._stop_deadline_ns = deadline_ns
        self.exit_code = exit_code
        self.failure = failure
        log.info("server goes down", grace_ms=grace_ms, exit_code=exit_code)

    # ------------------------------------------------------------ what the crew tells

    def slot_ready(self, member: Member) -> None:
        """A process serves: perhaps it was the last one that a start waited for."""
        if member.spec.kind == stop_policy.BROKER:
            self.doors_changed()
        if self._stop_deadline_ns is not None:
            return
        for start in list(self._starts):
            if member.slot.name in start.waiting:
                start.waiting.remove(member.slot.name)
                start.reports[member.slot.name] = member.report
            if not start.waiting:
                self._starts.remove(start)
                start.future.set_result(start.reports)

    def slot_failing(self, member: Member) -> None:
        """A process failed; if it belongs to a first start, that start is over for all.

        Unless its device is busy: that may pass, and the slot tells when it is given up.
        """
        if member.slot.has_busy_device and member.slot.state not in slots.GIVEN_UP:
            return
        if any(member.slot.name in start.slots for start in self._starts):
            failure = StartError(start_failure_text(member.spec, member.error, member.last_exit))
            self._begin_stop(ABORT_GRACE_MS, EXIT_FAILED, failure)

    def door_settled(self, settled: Settled) -> None:
        """A door was opened, or could not be."""
        future = self._door_futures.pop(settled.kind)
        if settled.address is not None:
            future.set_result(settled.address)
        else:
            future.set_exception(StartError(settled.error))
        self.doors_changed()

    def doors_changed(self) -> None:
        """Keep `server.json` true: a door, a gateway or a broker came or went."""
        self._rolls.versions.tell_again()
        try:
            self._directory.write_server(
                {
                    "pid": os.getpid(),
                    "mode": self._mode,
                    "control": str(self._directory.control_path),
                    "producers": self._crew.producers_addresses(),
                    "workers": self._directory.workers_address,
                    "doors": self._crew.doors.addresses(),
                }
            )
        except OSError as error:
            # Who looks for the server finds an old file, or none; those who are connected serve on.
            log.error("server.json cannot be written", error=str(error))

    # ------------------------------------------------------------ the CLI's door

    def _answer(self, command: dict[str, Any]) -> Mapping[str, Any]:
        name = command.get("command")
        if name == "status":
            return {"ok": True, "status": self._status()}
        if name == "stop":
            grace_ms = command.get("grace_ms")
            if type(grace_ms) is not int or not 0 <= grace_ms <= GRACE_MS_MAX:
                text = f"grace_ms {grace_ms!r} is not an integer >= 0 and <= {GRACE_MS_MAX}"
                return {"ok": False, "error": text}
            self._begin_stop(grace_ms, EXIT_OK, None)
            return {"ok": True, "is_stopping": True}
        if name not in (*ROLL_COMMANDS, "cancel", "settings", *SLOT_COMMANDS):
            return {"ok": False, "error": f"command {name!r:.80} is unknown"}
        if self._starts or self._stop_deadline_ns is not None:
            return {"ok": False, "error": f"the server is {self._state()}"}
        try:
            if name in ROLL_COMMANDS:
                return {"ok": True, "plan": self._rolls.ask(read_roll(command))}
            if name == "cancel":
                self._rolls.cancel()
            elif name == "settings":
                change_settings(self._crew, command)
            else:
                SLOT_COMMANDS[name](self._crew, command.get("slot"), time.monotonic_ns())
        except (RollError, SlotCommandError, LiveSettingError) as error:
            return {"ok": False, "error": str(error)}
        return {"ok": True}

    def _state(self) -> str:
        if self._stop_deadline_ns is not None:
            return "stopping"
        return "starting" if self._starts else "serving"

    def _status(self) -> dict[str, Any]:
        now_ns = time.monotonic_ns()
        doors = self._crew.doors.addresses()
        return {
            "pid": os.getpid(),
            "mode": self._mode,
            "state": self._state(),
            "run_directory": str(self._directory.path),
            "producers": self._crew.producers_addresses(),
            "doors": [{"kind": kind, "address": address} for kind, address in doors.items()],
            "slots": [member.status(now_ns) for member in self._crew.members.values()],
            "ends": [[*key, count] for key, count in self._crew.ends.items()],
            "roll": self._rolls.status(),
            "changes": self._rolls.versions.status(),
            "settings": settings_status(self._crew),
        }

    def _close(self) -> None:
        with self._lock:
            self._is_closed = True
            while self._jobs:
                # Each job finds the server going down and settles its future by itself.
                self._jobs.popleft()()
        failure = self.failure or StartError(SIGNAL_TEXT)
        for start in self._starts:
            start.future.set_exception(failure)
        for future in self._door_futures.values():
            future.set_exception(failure)
        self._losses.close()
        self._crew.listeners.close()
        self._directory.close()
        if self._listener is not None:
            self._listener.close({"ok": True, "exit_code": self.exit_code})
        self._selector.close()
        os.close(self._wake_fd)
        self._finished.set()
