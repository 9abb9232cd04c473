"""The server as an object: a supervisor thread in this process, everything else in children."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from mindbus.config import EMBEDDED, GRACE_MS_DEFAULT, STANDALONE
from mindbus.infrastructure import infrastructure_specs
from mindbus.mindspore_check import library_environment
from mindbus.servables import ServableLaunch, check_servable, worker_document, worker_slot
from protocol import limits
from telemetry.log import get_logger
from workers.backends.mindspore_discovery import ASCEND_ROOT
from workers.prctl import keep_memory_private
from workers.supervisor.child import REPORT_FD, ChildSpec, python_command
from workers.supervisor.door_table import DOOR_NAMES, GRPC, REST, Door
from workers.supervisor.hang_policy import HangLimits
from workers.supervisor.restart_policy import RestartLimits
from workers.supervisor.run_directory import (
    PRODUCERS,
    WORKERS,
    RunDirectory,
    RunDirectoryError,
    default_run_directory,
    ipc_address,
)
from workers.supervisor.start_error import StartError
from workers.supervisor.stop_policy import WORKER
from workers.supervisor.supervisor import Supervisor
from workers.supervisor.worker_log import log_file_name

__all__ = ["ServableLaunch", "Server", "ServerSettings", "StartError", "Tls"]

T = TypeVar("T")

log = get_logger("SERVING")


@dataclass(frozen=True)
class Tls:
    """Files of a door with TLS; `verify_client` needs `custom_ca`."""

    certificate: str
    private_key: str
    custom_ca: str | None = None
    verify_client: bool = False


@dataclass(frozen=True)
class Commands:
    """How each kind of child is started."""

    worker: tuple[str, ...] = python_command("-m", "workers")
    gateway: tuple[str, ...] = python_command("-m", "mindbus.gateway_process")
    broker: tuple[str, ...] = python_command("-m", "mindbus.broker_process")


def _own_run_directory() -> Path:
    return default_run_directory(os.environ, os.getuid())


@dataclass(frozen=True)
class ServerSettings:
    """What holds for a server as a whole.

    producers_addresses: beside the run directory's own. worker_log_directory: a file for each
    worker's standard output and error; a relative path begins where the process is when it starts
    its servables; None = workers write where this process writes. has_access_log: None = as
    MINDBUS_ACCESS_LOG says. ascend_root: where CANN is looked for. model_control: whether clients
    of the doors may have other versions loaded. settings_control: whether they may change log and
    trace settings.
    """

    run_directory: Path = field(default_factory=_own_run_directory)
    mode: str = EMBEDDED
    gateways: int = 1
    requests_max: int = limits.REQUESTS_MAX_DEFAULT
    ready_ms: int = limits.READY_MS
    model_control: bool = False
    settings_control: bool = False
    producers_addresses: tuple[str, ...] = ()
    grace_ms: int = GRACE_MS_DEFAULT
    restarts: RestartLimits = field(default_factory=RestartLimits)
    worker_log_directory: Path | None = None
    has_access_log: bool | None = None
    npu_smi: str | None = None
    rest_compression: bool = False
    ascend_root: Path = ASCEND_ROOT
    commands: Commands = field(default_factory=Commands)
    hang: HangLimits = field(default_factory=HangLimits)


class Server:
    """One serving system on this machine. Methods may be called from any thread.

    Nothing runs before the first `start_servables` or `open_…`. From then on a thread that is no
    daemon supervises, so a script may end and the server goes on, until `stop` or a signal that
    `install_signal_handlers` was asked to take.
    """

    def __init__(self, settings: ServerSettings | None = None) -> None:
        self.settings = settings or ServerSettings()
        self._lock = threading.RLock()
        self._supervisor: Supervisor | None = None
        #: The first start of gateway and broker.
        self._infrastructure: Future[dict[str, Mapping[str, Any]]] = Future()
        self._requests_max = self.settings.requests_max
        self._has_servables = False
        #: Number of the latest signal, once one came, and how many came.
        self._signalled: int | None = None
        self._signals = 0

    # ------------------------------------------------------------ starting

    def start_servables(self, launches: Sequence[ServableLaunch]) -> None:
        """Start the workers of each launch; return when they and the gateway are READY.

        One per device, and when these have loaded the models, the extra workers.

        Raises: StartError. What was wrong with a parameter leaves the server as it was; if a
        worker fails, everything has been stopped.
        """
        if not launches:
            raise StartError("no servable to start")
        if any(launch.dec_key is not None for launch in launches):
            # It stays here, for workers that take another's place.
            keep_memory_private()
        for launch in launches:
            check_servable(launch)
        specs = [spec for launch in launches for spec in self._worker_specs(launch)]
        names = [spec.slot for spec in specs]
        for name in names:
            if names.count(name) > 1:
                raise StartError(f"worker {name} is asked for twice")
        with self._lock:
            if self._has_servables:
                raise StartError("Serving Error: Master gRPC server is already running")
            supervisor = self._ensure_running()
            self._has_servables = True
            started = supervisor.add(specs)
        self._result(self._infrastructure)
        reports = self._result(started)
        extra = [spec for launch in launches for spec in self._extra_worker_specs(launch, reports)]
        if extra:
            self._result(supervisor.add(extra))

    def open_grpc(
        self,
        address: str,
        max_msg_mb_size: int = limits.MESSAGE_MB_DEFAULT,
        tls: Tls | None = None,
    ) -> str:
        """Open the gRPC door and say so on stdout. Returns the bound address.

        address: `host:port` (port 0: any free one) or `unix:<path>`. Raises: StartError.
        """
        return self._open_door(GRPC, address, max_msg_mb_size, tls)

    def open_rest(
        self,
        address: str,
        max_msg_mb_size: int = limits.MESSAGE_MB_DEFAULT,
        tls: Tls | None = None,
    ) -> str:
        """Open the REST door and say so on stdout. Returns the bound address.

        address: `host:port` (port 0: any free one). Raises: StartError.
        """
        return self._open_door(REST, address, max_msg_mb_size, tls)

    def _open_door(self, kind: str, address: str, max_msg_mb_size: int, tls: Tls | None) -> str:
        files = None if tls is None else vars(tls)
        with self._lock:
            door = Door(kind, address, max_msg_mb_size, files)
            opened = self._ensure_running().open_door(door)
        bound = self._result(opened)
        with contextlib.suppress(OSError):  # nobody reads it any more: serving goes on
            print(
                f"Serving: Serving {DOOR_NAMES[kind]} server start success, listening on {bound}",
                flush=True,
            )
        return bound

    def set_limits(self, requests_max: int) -> None:
        """Change how many requests the server holds at once. Takes effect at once in the embedded
        mode; the broker of the standalone mode reads it when it starts.
        """
        assert requests_max >= 1, requests_max
        with self._lock:
            self._requests_max = requests_max
            if self._supervisor is None:
                return
            changed = self._supervisor.command_gateways(
                {"id": -1, "command": "limits", "requests_max": requests_max}
            )
        changed.result()

    # ------------------------------------------------------------ running

    @property
    def is_running(self) -> bool:
        """Whether a supervisor runs and has not ended."""
        return self._supervisor is not None and not self._supervisor.wait(0)

    @property
    def failure(self) -> StartError | None:
        """Why the server went down by itself, if it did."""
        return self._supervisor.failure if self._supervisor else None

    @property
    def forced_by(self) -> int | None:
        """Number of the second signal, which ended the server without a drain, if one came."""
        return self._signalled if self._signals > 1 else None

    def status(self) -> dict[str, Any]:
        """What is true now, as plain values. Raises StartError if nothing runs.

        {pid, mode, state, run_directory, producers: [address], doors: [{kind, address}], slots:
        [{slot, kind, servable, version, device, state, pid, generation, restarts, last_exit,
        error, since_s}]}
        """
        if self._supervisor is None:
            raise StartError("the server has not been started")
        return self._supervisor.status().result()

    def stop(self, grace_ms: int | None = None) -> None:
        """Close the doors, finish what runs within the grace, end every process; return then."""
        self.request_stop(grace_ms)
        self.wait()

    def request_stop(self, grace_ms: int | None = None) -> None:
        """Begin to stop and return at once. A second request can only shorten the grace."""
        if self._supervisor is not None:
            self._supervisor.stop(self.settings.grace_ms if grace_ms is None else grace_ms)

    def wait(self) -> int:
        """Wait until the server has gone down. Returns its exit code: 0 unless it failed."""
        if self._supervisor is None:
            return 0
        self._supervisor.wait()
        return self._supervisor.exit_code

    def install_signal_handlers(self) -> None:
        """Take SIGTERM, SIGINT and SIGHUP: the first drains, the second kills. Main thread only.

        SIGHUP comes when the terminal is closed, and stays ignored where it is (`nohup`).
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._signalled = number
        self.request_stop(0 if self._signals > 1 else None)

    # ------------------------------------------------------------ inside

    def _result(self, future: Future[T]) -> T:
        """The outcome of a job; if it is that the server failed, everything is gone by then."""
        try:
            return future.result()
        except StartError:
            if self._supervisor is not None and self._supervisor.failure is not None:
                self._supervisor.wait()
            raise

    def _ensure_running(self) -> Supervisor:
        if self._supervisor is not None:
            return self._supervisor
        if self.settings.gateways > 1 and self.settings.mode != STANDALONE:
            raise StartError(f"{self.settings.gateways} gateways need mode {STANDALONE}")
        try:
            directory = RunDirectory.open(self.settings.run_directory)
        except RunDirectoryError as error:
            raise StartError(str(error)) from None
        chance = random.Random()  # noqa: S311 - spreads restarts, keeps no secret
        mode, restarts, hang = self.settings.mode, self.settings.restarts, self.settings.hang
        supervisor = Supervisor(directory, mode, restarts, chance, hang)
        supervisor.start()
        self._supervisor = supervisor
        self._infrastructure = supervisor.add(
            infrastructure_specs(self.settings, directory, self._requests_max)
        )
        if self._signals:
            # It came while there was nothing to stop yet.
            self.request_stop()
        return supervisor

    @cached_property
    def _libraries(self) -> dict[str, str]:
        """What MindSpore's workers need in their environment; found once."""
        return library_environment(os.environ, self.settings.ascend_root)

    def _worker_specs(self, launch: ServableLaunch) -> list[ChildSpec]:
        """The workers that load the models of a launch."""
        if launch.device_ids:
            return [self._worker_spec(launch, device=device) for device in launch.device_ids]
        return [self._worker_spec(launch, extra=extra) for extra in range(launch.extra_workers)]

    def _extra_worker_specs(
        self, launch: ServableLaunch, reports: Mapping[str, Mapping[str, Any]]
    ) -> list[ChildSpec]:
        """The workers that run Python stages beside the device workers of a launch.

        reports: what these said, by slot.
        """
        if not launch.device_ids or not launch.extra_workers:
            return []
        report = reports[worker_slot(launch, launch.resolved_version(), launch.device_ids[0], None)]
        if not report.get("python_methods"):
            log.warning(
                "There is no need to startup additional worker processes, all stages are models, "
                f"servable: {launch.servable_name}"
            )
            return []
        models = report["models"]
        return [
            self._worker_spec(launch, extra=extra, models=models)
            for extra in range(launch.extra_workers)
        ]

    def _worker_spec(
        self,
        launch: ServableLaunch,
        device: int | None = None,
        extra: int | None = None,
        models: Mapping[str, Any] | None = None,
    ) -> ChildSpec:
        version = launch.resolved_version()
        run_directory = self.settings.run_directory.absolute()
        document = worker_document(
            launch, version, device, extra, ipc_address(run_directory, WORKERS)
        )
        if models is not None:
            document |= {
                "models": models,
                "producers_address": ipc_address(run_directory, PRODUCERS),
                "dec_key": None,
            }
        directory = self.settings.worker_log_directory
        process = document["worker_id"].rpartition("/")[2]
        log_version = version if launch.group is None else None  # as MindSpore Serving names it
        log_name = log_file_name(launch.servable_name, process, log_version)
        environment = dict(self._libraries) if launch.backend == "mindspore" else {}
        if device is not None:
            environment["SERVING_DEVICE_ID"] = str(device)
        return ChildSpec(
            document["worker_id"],
            WORKER,
            self.settings.commands.worker,
            document,
            REPORT_FD,
            environment,
            servable=launch.servable_name,
            version=version,
            device=device,
            extra=extra,
            needs_devices=models is not None,
            has_page=True,
            log_file=None if directory is None else directory.absolute() / log_name,
            is_distributed=launch.group is not None,
        )
