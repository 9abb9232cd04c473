"""The server as an object: a supervisor thread in this process, everything else in children."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from mindbus.config import EMBEDDED, GRACE_MS_DEFAULT, STANDALONE
from mindbus.servables import ServableLaunch, check_servable
from protocol import limits
from workers.supervisor.child import CONTROL_FD, REPORT_FD, ChildSpec, python_command
from workers.supervisor.door_table import DOOR_NAMES, GRPC, REST, Door
from workers.supervisor.restart_policy import RestartLimits
from workers.supervisor.run_directory import RunDirectory, RunDirectoryError, default_run_directory
from workers.supervisor.start_error import StartError
from workers.supervisor.stop_policy import BROKER, GATEWAY, WORKER
from workers.supervisor.supervisor import Supervisor

__all__ = ["ServableLaunch", "Server", "ServerSettings", "StartError", "Tls"]

T = TypeVar("T")


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
    """What holds for a server as a whole. producers_addresses: beside the run directory's own."""

    run_directory: Path = field(default_factory=_own_run_directory)
    mode: str = EMBEDDED
    gateways: int = 1
    requests_max: int = limits.REQUESTS_MAX_DEFAULT
    producers_addresses: tuple[str, ...] = ()
    grace_ms: int = GRACE_MS_DEFAULT
    restarts: RestartLimits = field(default_factory=RestartLimits)
    commands: Commands = field(default_factory=Commands)


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
        self._infrastructure: Future[None] = Future()
        self._requests_max = self.settings.requests_max
        self._has_servables = False
        #: Number of the latest signal, once one came, and how many came.
        self._signalled: int | None = None
        self._signals = 0

    # ------------------------------------------------------------ starting

    def start_servables(self, launches: Sequence[ServableLaunch]) -> None:
        """Start one worker per device of each launch; return when they and the gateway are READY.

        Raises: StartError. What was wrong with a parameter leaves the server as it was; if a
        worker fails, everything has been stopped.
        """
        if not launches:
            raise StartError("no servable to start")
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
        for future in (self._infrastructure, started):
            self._result(future)

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
        supervisor = Supervisor(
            directory,
            self.settings.mode,
            self.settings.restarts,
            random.Random(),  # noqa: S311 - spreads restarts, keeps no secret
            is_shared=self.settings.gateways > 1,
        )
        supervisor.start()
        self._supervisor = supervisor
        self._infrastructure = supervisor.add(self._infrastructure_specs(directory))
        if self._signals:
            # It came while there was nothing to stop yet.
            self.request_stop()
        return supervisor

    def _infrastructure_specs(self, directory: RunDirectory) -> list[ChildSpec]:
        document = {
            "producers_addresses": [
                directory.producers_address,
                *self.settings.producers_addresses,
            ],
            "workers_address": directory.workers_address,
            "requests_max": self._requests_max,
        }
        commands = self.settings.commands
        if self.settings.mode == EMBEDDED:
            embedded = {**document, "mode": "embedded"}
            return [ChildSpec("gateway/0", GATEWAY, commands.gateway, embedded, CONTROL_FD)]
        remote = {**document, "mode": "remote"}
        broker = {**document, "grace_ms": self.settings.grace_ms}
        return [
            ChildSpec("broker/0", BROKER, commands.broker, broker, REPORT_FD),
            *(
                ChildSpec(f"gateway/{number}", GATEWAY, commands.gateway, remote, CONTROL_FD)
                for number in range(self.settings.gateways)
            ),
        ]

    def _worker_specs(self, launch: ServableLaunch) -> list[ChildSpec]:
        version = launch.resolved_version()
        run_directory = self.settings.run_directory.absolute()
        common: Mapping[str, Any] = {
            "servable_directory": str(Path(launch.servable_directory).absolute()),
            "servable_name": launch.servable_name,
            "version": version,
            "version_asked": launch.version,
            "device_target": launch.device_target,
            "backend": launch.backend,
            "workers_address": f"ipc://{run_directory / 'workers.ipc'}",
            "dec_key": None
            if launch.dec_key is None
            else base64.b64encode(launch.dec_key).decode(),
            "dec_mode": launch.dec_mode,
            "batch_sizes": None if launch.batch_sizes is None else list(launch.batch_sizes),
        }
        if launch.group is not None:
            slot = f"{launch.servable_name}/{version}/distributed"
            document = {
                **common,
                "device_id": 0,
                "worker_id": slot,
                "group": vars(launch.group),
            }
            command = self.settings.commands.worker
            return [
                ChildSpec(
                    slot,
                    WORKER,
                    command,
                    document,
                    servable=launch.servable_name,
                    version=version,
                    is_distributed=True,
                )
            ]
        specs = []
        for device_id in launch.device_ids:
            slot = f"{launch.servable_name}/{version}/device{device_id}"
            specs.append(
                ChildSpec(
                    slot,
                    WORKER,
                    self.settings.commands.worker,
                    {**common, "device_id": device_id, "worker_id": slot},
                    REPORT_FD,
                    {"SERVING_DEVICE_ID": str(device_id)},
                    servable=launch.servable_name,
                    version=version,
                    device=device_id,
                )
            )
        return specs
