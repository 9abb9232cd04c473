"""The one server of this process: made by the first `start_…`, gone after `stop` or a signal."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from mindbus.servables import ServableLaunch
from mindbus.server import Server, ServerSettings, Tls
from protocol import limits
from workers.supervisor.door_table import GRPC
from workers.supervisor.run_directory import default_run_directory
from workers.supervisor.start_error import StartError

RUN_DIRECTORY = "MINDBUS_RUN_DIRECTORY"

#: Below the directory in which the script runs, as with MindSpore Serving.
WORKER_LOG_DIRECTORY = Path("serving_logs")

#: What a second `start_…` of the same kind is told.
_RUNNING = {
    "grpc": "Serving Error: Serving gRPC server is already running",
    "rest": "Serving Error: RESTful server is already running",
}


class RunningServer(Protocol):
    """What is needed of a server; `mindbus.server.Server` and `InProcessServer` have it."""

    @property
    def is_running(self) -> bool:
        """Whether anything of it runs."""

    def start_servables(self, launches: Sequence[ServableLaunch]) -> None:
        """Return when every worker is READY. Raises: StartError."""

    def open_grpc(self, address: str, max_msg_mb_size: int, tls: Tls | None) -> str:
        """Open the gRPC door. Raises: StartError."""

    def open_rest(self, address: str, max_msg_mb_size: int, tls: Tls | None) -> str:
        """Open the RESTful door. Raises: StartError."""

    def set_limits(self, requests_max: int) -> None:
        """Change how many requests are held at once."""

    def request_stop(self, grace_ms: int | None = None) -> None:
        """Begin to stop; a second request can only shorten the grace."""

    def wait(self) -> int:
        """Wait until nothing of it runs."""


#: Makes a server with this run directory, which holds so many requests at once.
MakeServer = Callable[[Path, int], RunningServer]


class Host:
    """Holds the server of this process and turns its errors into MindSpore Serving's.

    A `start_…` that fails raises and leaves a healthy server alone (MindSpore Serving stops it).
    """

    def __init__(self, make_server: MakeServer) -> None:
        self._make_server = make_server
        self._lock = threading.RLock()
        self._server: RunningServer | None = None
        self._servers_made = 0
        self._open_doors: set[str] = set()
        self._requests_max = limits.REQUESTS_MAX_DEFAULT
        self._watcher: threading.Thread | None = None
        self._signalled: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    @property
    def is_running(self) -> bool:
        """Whether there is a server that runs."""
        return self._server is not None and self._server.is_running

    def start_servables(
        self, launches: Sequence[ServableLaunch], make_server: MakeServer | None = None
    ) -> None:
        """Start workers and return when they serve; RuntimeError if one could not.

        make_server: makes the server if there is none yet.
        """
        server = self._obtain(make_server or self._make_server)
        try:
            server.start_servables(launches)
        except StartError as error:
            raise RuntimeError(_raised(str(error))) from None
        finally:
            self._watch(server)

    def open_door(self, kind: str, address: str, max_msg_mb_size: int, tls: Tls | None) -> None:
        """Open a door (`door_table.GRPC` or `REST`); RuntimeError if that is not possible."""
        with self._lock:
            server = self._obtain(self._make_server)
            if kind in self._open_doors:
                raise RuntimeError(_raised(_RUNNING[kind]))
            opener = server.open_grpc if kind == GRPC else server.open_rest
            try:
                opener(address, max_msg_mb_size, tls)
            except StartError as error:
                raise RuntimeError(f"Raise failed: {error}") from None
            finally:
                self._watch(server)
            self._open_doors.add(kind)

    def set_requests_max(self, requests_max: int) -> None:
        """Change the limit of requests, of the server that runs and of those to come."""
        with self._lock:
            self._requests_max = requests_max
            if self._server is not None and self._server.is_running:
                self._server.set_limits(requests_max)

    def stop(self) -> None:
        """Stop the server, if there is one, and wait until all of it is gone."""
        server = self._server
        if server is not None:
            server.request_stop()
            server.wait()

    def _obtain(self, make_server: MakeServer) -> RunningServer:
        with self._lock:
            if self._server is None or (self._watcher is not None and not self._server.is_running):
                self._servers_made += 1
                directory = run_directory(self._servers_made)
                self._server = make_server(directory, self._requests_max)
                self._directory = directory
                self._open_doors.clear()
                self._watcher = None
                self._signalled = None
                self._take_signals()
            return self._server

    # ------------------------------------------------------------ signals

    def _watch(self, server: RunningServer) -> None:
        with self._lock:
            if self._watcher is not None or server is not self._server:
                return
            self._watcher = threading.Thread(
                target=self._see_off, args=(server, self._directory), name="mindspore-serving-watch"
            )
            self._watcher.start()

    def _see_off(self, server: RunningServer, directory: Path) -> None:
        """Wait for the server's end; if a signal ended it, let the signal end the script, too."""
        server.wait()
        if RUN_DIRECTORY not in os.environ:
            # Its name is never used again.
            shutil.rmtree(directory, ignore_errors=True)
        if self._signalled is not None and threading.main_thread().is_alive():
            os.kill(os.getpid(), self._signalled)

    def _take_signals(self) -> None:
        """Handle SIGTERM and SIGINT, where the script has no handlers of its own."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                assert handler is not None
                self._previous_handlers[number] = handler
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """The first signal drains, a second one kills, and the last goes to who had it before."""
        server = self._server
        if server is not None and server.is_running:
            server.request_stop(None if self._signalled is None else 0)
            self._signalled = number
            return
        signal.signal(number, self._previous_handlers[number])
        os.kill(os.getpid(), number)


def _raised(text: str) -> str:
    return f"Raise failed: {text}" if text.startswith("Serving Error: ") else text


def run_directory(number: int) -> Path:
    """MINDBUS_RUN_DIRECTORY, or one for this server alone: scripts run side by side.

    number: of this process's servers.
    """
    configured = os.environ.get(RUN_DIRECTORY)
    if configured:
        return Path(configured)
    default = default_run_directory(os.environ, os.getuid())
    return default.with_name(f"{default.name}-{os.getpid()}-{number}")


def _make_process_server(directory: Path, requests_max: int) -> RunningServer:
    return Server(
        ServerSettings(
            run_directory=directory,
            requests_max=requests_max,
            worker_log_directory=WORKER_LOG_DIRECTORY,
        )
    )


#: The server that the functions of `mindspore_serving.server` act on.
host = Host(_make_process_server)
