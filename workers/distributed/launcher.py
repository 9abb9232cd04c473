"""Starts the agents of one machine and looks after them, on a thread of its own.

The thread is no daemon: a script that has started its agents may end, and they go on. Every agent
is spawned by this thread, because PR_SET_PDEATHSIG follows the thread that spawned.
"""

from __future__ import annotations

import base64
import os
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import zmq

from telemetry.log import get_logger
from workers.distributed.agent_link import open_dealer
from workers.distributed.launch_plan import (
    AgentsSettings,
    LaunchPlanError,
    LocalRank,
    agent_environment,
    describe,
    local_ranks,
    rank_table_ip,
    scheduler_environment,
)
from workers.distributed.launcher_session import (
    CHOOSE,
    ENDED,
    NS_PER_MS,
    SPAWN,
    LauncherSession,
)
from workers.prctl import keep_memory_private
from workers.supervisor.child import Child, ChildSpec, python_command
from workers.supervisor.json_lines import LineError
from workers.supervisor.start_error import exit_text

log = get_logger("SERVING")

#: Ports that are tried for the meeting of the ranks, from `agent_start_port` on.
_PORTS_TRIED = 8

#: Rank of MindSpore's scheduler, which is none.
_SCHEDULER = -1

#: An agent that is gone without a word.
_DEATH_TEXT = "Fail to start agents because of death of one agent"

#: Messages that may wait for a worker that is not there; each claim says what the last one said.
_QUEUED_MAX = 4

#: A message that is sent last has this long to get out.
_GOODBYE_MS = 500


class Launcher:
    """The agents of one machine, from the first start to the end of the last group."""

    def __init__(self, settings: AgentsSettings) -> None:
        """`start` begins."""
        #: Done when the agents of the first group serve, with the text that describes them.
        self.started: Future[str] = Future()
        self._settings = settings
        self._session = LauncherSession(time.monotonic_ns())
        self._local: tuple[LocalRank, ...] = ()
        self._local_ip = ""
        self._children: dict[int, Child] = {}
        self._ready: set[int] = set()
        self._errors: dict[int, str] = {}
        self._groups = 0
        #: A file for Ascend's ranks; empty if there is none.
        self._rank_table = ""
        self._stop_reason = ""
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = zmq.Poller()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mindbus-agents")

    def start(self) -> None:
        """Begin to join the group. A process that holds a key leaves no core file."""
        if self._settings.dec_key is not None:
            keep_memory_private()
        self._thread.start()

    def request_stop(self, reason: str) -> None:
        """End the agents and tell the worker; returns at once. Signal handlers may call it."""
        self._stop_reason = reason
        os.eventfd_write(self._wake_fd, 1)

    def wait(self) -> None:
        """Wait until every agent has ended."""
        self._ended.wait()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        context = zmq.Context()
        try:
            dealer = open_dealer(context, self._settings.address, _QUEUED_MAX)
            self._serve(dealer)
            self._fail(self._session.end_reason)
        except Exception as error:  # the shell's top: no agent may be left behind
            log.exception("launcher of agents failed")
            self._fail(f"launcher of agents failed: {error}")
        finally:
            self._kill()
            context.destroy(linger=_GOODBYE_MS)
            if self._rank_table:
                Path(self._rank_table).unlink(missing_ok=True)
            self._ended.set()

    def _fail(self, reason: str) -> None:
        if self.started.done():
            log.warning("agents end", reason=reason)
        else:
            self.started.set_exception(LaunchPlanError(reason))

    def _serve(self, dealer: zmq.Socket[bytes]) -> None:
        session = self._session
        self._poller.register(dealer, zmq.POLLIN)
        self._poller.register(self._wake_fd, zmq.POLLIN)
        while session.state != ENDED:
            wait_ns = session.next_timer_ns() - time.monotonic_ns()
            ready = dict(self._poller.poll(max(0, -(-wait_ns // NS_PER_MS))))
            now_ns = time.monotonic_ns()
            if dealer in ready:
                frames = dealer.recv_multipart(copy=False)
                session.receive([frame.buffer for frame in frames], now_ns)
            for rank, child in list(self._children.items()):
                if child.channel_fd in ready:
                    self._hear(rank, child)
                if child.pidfd in ready:
                    self._exited(rank, child)
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
            if self._stop_reason:
                for local in self._local[:1]:
                    session.agent_ended(local.rank, self._stop_reason, now_ns)
                session.end(self._stop_reason)
            session.handle_timer(now_ns)
            self._follow_orders()
            self._flush(dealer)

    def _follow_orders(self) -> None:
        session = self._session
        while session.orders:
            order = session.orders.pop(0)
            if order == CHOOSE:
                self._choose()
            elif order == SPAWN:
                self._spawn()
            else:
                self._kill()

    def _flush(self, dealer: zmq.Socket[bytes]) -> None:
        for message in self._session.outbox:
            try:
                dealer.send_multipart(message, zmq.DONTWAIT)
            except zmq.Again:
                break  # nobody is there: a claim is sent again, a loss is news to nobody
        self._session.outbox.clear()

    # ------------------------------------------------------------ orders

    def _choose(self) -> None:
        """Find out which ranks are this machine's, and claim them."""
        settings, places = self._settings, self._session.plan.places
        try:
            if settings.agent_ip is None or settings.rank_start is None:
                table_ip = self._local_ip = _local_ip({p.ip for p in places}, settings.start_port)
            else:
                table_ip = rank_table_ip(settings.rank_start, places)
                self._local_ip = settings.agent_ip
                if not _free_ports(settings.agent_ip, settings.start_port):
                    raise LaunchPlanError(
                        f"Check ip 'agent_ip' valid failed, agent_ip: {settings.agent_ip}"
                    )
            self._local = local_ranks(settings, places, table_ip)
            scheduler = self._scheduler_address()
        except LaunchPlanError as error:
            self._session.end(str(error))
            return
        ranks = tuple(local.rank for local in self._local)
        self._session.claim(ranks, scheduler, time.monotonic_ns())

    @property
    def _has_scheduler(self) -> bool:
        """Whether this launcher has to start MindSpore's scheduler."""
        settings = self._settings
        is_needed = settings.backend == "mindspore" and settings.device_target != "Ascend"
        return is_needed and any(local.rank == 0 for local in self._local)

    def _scheduler_address(self) -> str:
        if not self._has_scheduler:
            return ""
        ports = _free_ports(self._local_ip, self._settings.start_port)
        if not ports:
            first = self._settings.start_port
            raise LaunchPlanError(
                f"no port of {self._local_ip} is free from {first} to {first + _PORTS_TRIED - 1}"
            )
        return f"{self._local_ip}:{ports[0]}"

    def _spawn(self) -> None:
        """Start every agent of this machine, and the scheduler before the first rank."""
        self._groups += 1
        self._ready.clear()
        self._errors.clear()
        plan, scheduler = self._session.plan, self._session.scheduler
        if self._settings.device_target == "Ascend":
            self._write_rank_table(plan.rank_table)
        if self._has_scheduler:
            environment = scheduler_environment(len(plan.places), scheduler)
            self._spawn_child(_SCHEDULER, {"role": "scheduler"}, environment)
        for local in self._local:
            environment = agent_environment(
                self._settings, local, len(plan.places), scheduler, self._rank_table
            )
            self._spawn_child(local.rank, self._agent_document(local), environment)

    def _write_rank_table(self, text: str) -> None:
        """Put the worker's rank table where Ascend's ranks read it."""
        if not self._rank_table:
            handle, self._rank_table = tempfile.mkstemp(prefix="rank_table_", suffix=".json")
            os.close(handle)
        Path(self._rank_table).write_text(text)

    def _agent_document(self, local: LocalRank) -> dict[str, Any]:
        settings = self._settings
        key = settings.dec_key
        return {
            "role": "agent",
            "rank": local.rank,
            "device_id": local.device_id,
            "device_target": settings.device_target,
            "backend": settings.backend,
            "files": local.files,
            "dec_key": None if key is None else base64.b64encode(key).decode(),
            "dec_mode": settings.dec_mode,
            "epoch": self._session.plan.epoch,
            "address": settings.address,
        }

    def _spawn_child(
        self, rank: int, document: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        slot = "scheduler" if rank == _SCHEDULER else f"rank{rank}"
        command = python_command("-m", "workers.distributed")
        environment = {**self._settings.libraries, **environment}
        spec = ChildSpec(slot, "agent", command, document, environment=environment)
        child = self._children[rank] = Child(spec, self._groups)
        self._poller.register(child.pidfd, zmq.POLLIN)
        self._poller.register(child.channel_fd, zmq.POLLIN)
        log.info("agent started", slot=slot, pid=child.pid, epoch=self._session.plan.epoch)

    def _kill(self) -> None:
        """End every agent. They may be inside of a collective operation, so nothing is asked."""
        for child in self._children.values():
            child.kill()
        for child in self._children.values():
            self._forget(child)
        self._children.clear()

    def _forget(self, child: Child) -> int:
        for fd in (child.pidfd, child.channel_fd):
            if fd in dict(self._poller.sockets):
                self._poller.unregister(fd)
        return child.reap()

    # ------------------------------------------------------------ what agents do

    def _hear(self, rank: int, child: Child) -> None:
        try:
            said = child.receive()
        except LineError as error:
            said = [{"state": "failed", "error": str(error)}]
        if said is None:
            self._poller.unregister(child.channel_fd)
            return
        for report in said:
            if report.get("state") == "ready":
                self._ready.add(rank)
                self._note_ready()
            elif report.get("state") == "failed":
                self._errors[rank] = str(report.get("error"))

    def _note_ready(self) -> None:
        if len(self._ready) < len(self._local):
            return
        text = describe(self._settings, self._local, self._local_ip)
        log.info("agents serve", ranks=[local.rank for local in self._local])
        if not self.started.done():
            self.started.set_result(text)

    def _exited(self, rank: int, child: Child) -> None:
        if self._children.get(rank) is not child:
            return
        self._hear_last(rank, child)
        del self._children[rank]
        ended = exit_text(self._forget(child))
        error = self._errors.get(rank)
        name = "scheduler" if rank == _SCHEDULER else f"rank {rank}"
        log.warning("agent ended", name=name, pid=child.pid, exit=ended, error=error)
        self._session.agent_ended(max(rank, 0), error or f"{name} {ended}", time.monotonic_ns())
        if not self.started.done():
            self._session.end(error or f"{_DEATH_TEXT} ({name}: {ended})")

    def _hear_last(self, rank: int, child: Child) -> None:
        try:
            for report in child.receive_last():
                if report.get("state") == "failed":
                    self._errors[rank] = str(report.get("error"))
        except LineError as error:
            self._errors[rank] = str(error)


def _local_ip(ips: set[str], port: int) -> str:
    """The ip of the rank table that belongs to this machine. Raises: LaunchPlanError."""
    for ip in sorted(ips):
        if _free_ports(ip, port):
            return ip
    raise LaunchPlanError(
        f"Get local machine ip failed, rank table ips: {sorted(ips)}, bind port {port}"
    )


def _free_ports(ip: str, first: int) -> list[int]:
    """Ports of an address of this machine that nobody listens on; none for a foreign address."""
    free = []
    for port in range(first, first + _PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ip, port))
            except OSError:
                continue
            free.append(port)
    return free
