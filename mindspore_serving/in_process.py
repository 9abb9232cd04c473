"""Gateway, broker core and one worker in this process: MindSpore Serving's lightweight deployment.

No child process is started. One thread runs the event loop with the doors and the broker, one
thread computes, as the worker processes of a usual server do; they speak over the same sockets in
a run directory. Nothing restarts a worker here, and a crash of the model ends the script.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from gateway.doors import DoorError
from gateway.tls import TlsSettings
from mindbus.gateway_process import Gateway
from mindbus.servables import ServableLaunch, check_servable, worker_document
from mindbus.server import Tls
from protocol.limits import MESSAGE_MB_DEFAULT
from telemetry.log import get_logger
from workers.device_worker import run_worker
from workers.supervisor.door_table import DOOR_NAMES, GRPC, REST
from workers.supervisor.run_directory import RunDirectory, RunDirectoryError
from workers.supervisor.start_error import SIGNAL_TEXT, StartError, worker_failure_text

log = get_logger("SERVING")

T = TypeVar("T")

#: How long requests that run may take when the server stops (as for worker processes).
GRACE_MS_DEFAULT = 10_000


class InProcessServer:
    """A server of one worker without a process of its own. Methods may be called from any thread.

    From the first `start_servables` or `open_…` a thread that is no daemon runs until it is asked
    to stop.
    """

    def __init__(self, run_directory: Path, requests_max: int) -> None:
        """run_directory: for the sockets."""
        self._run_directory = run_directory
        self._requests_max = requests_max
        self._lock = threading.Lock()
        self._ended = threading.Event()
        #: Set it to drain the worker.
        self._drain_worker = threading.Event()
        self._worker: threading.Thread | None = None
        self._loop_thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gateway: Gateway | None = None
        #: Of the event loop: the grace within which to stop, and the worker's exit.
        self._stop_asked: asyncio.Future[int]
        self._worker_ended: asyncio.Event

    @property
    def is_running(self) -> bool:
        """Whether the event loop runs."""
        return self._loop_thread is not None and not self._ended.is_set()

    def start_servables(self, launches: Sequence[ServableLaunch]) -> None:
        """Start the worker; return when it serves.

        launches: exactly one, with one device. Raises: StartError; the server is down then.
        """
        if len(launches) != 1 or len(launches[0].device_ids) != 1:
            raise StartError("one process serves one servable on one device")
        if launches[0].group is not None:
            raise StartError("a distributed servable needs a server of several processes")
        launch = launches[0]
        check_servable(launch)
        with self._lock:
            if self._worker is not None:
                raise StartError("Serving Error: Master gRPC server is already running")
            directory = self._ensure_running()
            document = _document(launch, directory)
            outcome: Future[None] = Future()
            self._worker = threading.Thread(
                target=self._work, args=(document, outcome), name="mindbus-worker", daemon=True
            )
            self._worker.start()
        try:
            outcome.result()
        except StartError:
            self.request_stop(0)
            self.wait()
            raise

    def open_grpc(
        self, address: str, max_msg_mb_size: int = MESSAGE_MB_DEFAULT, tls: Tls | None = None
    ) -> str:
        """Open the gRPC door and say so on stdout. Returns the bound address."""
        return self._open_door(GRPC, address, max_msg_mb_size, tls)

    def open_rest(
        self, address: str, max_msg_mb_size: int = MESSAGE_MB_DEFAULT, tls: Tls | None = None
    ) -> str:
        """Open the RESTful door and say so on stdout. Returns the bound address."""
        return self._open_door(REST, address, max_msg_mb_size, tls)

    def set_limits(self, requests_max: int) -> None:
        """Change how many requests are held at once."""
        self._requests_max = requests_max
        if self.is_running:
            assert self._gateway is not None
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._gateway.set_requests_max, requests_max)

    def request_stop(self, grace_ms: int | None = None) -> None:
        """Begin to stop and return at once. A second request cuts the grace to nothing."""
        if not self.is_running:
            return
        assert self._loop is not None
        self._loop.call_soon_threadsafe(
            self._ask_to_stop, GRACE_MS_DEFAULT if grace_ms is None else grace_ms
        )

    def wait(self) -> int:
        """Wait until the doors are closed and the worker is drained. Returns 0."""
        if self._loop_thread is not None:
            self._ended.wait()
        return 0

    # ------------------------------------------------------------ the event loop's thread

    def _ensure_running(self) -> RunDirectory:
        if self._loop_thread is None:
            try:
                self._directory = RunDirectory.open(self._run_directory)
            except RunDirectoryError as error:
                raise StartError(str(error)) from None
            started: Future[None] = Future()
            self._loop_thread = threading.Thread(
                target=self._run_loop, args=(started,), name="mindbus-gateway"
            )
            self._loop_thread.start()
            started.result()
        if self._ended.is_set():
            raise StartError(SIGNAL_TEXT)
        return self._directory

    def _run_loop(self, started: Future[None]) -> None:
        try:
            uvloop.run(self._serve(started))
        except OSError as error:
            log.error("server could not start", error=str(error))
            if not started.done():
                started.set_exception(StartError(str(error)))
        finally:
            self._directory.close()
            self._ended.set()

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_asked = self._loop.create_future()
        self._worker_ended = asyncio.Event()
        document = {
            "mode": "embedded",
            "producers_addresses": [self._directory.producers_address],
            "workers_address": self._directory.workers_address,
            "requests_max": self._requests_max,
        }
        self._gateway = Gateway(document)
        try:
            started.set_result(None)
            grace_ms = await self._stop_asked
            await self._gateway.drain(grace_ms)
            self._drain_worker.set()
            if self._worker is not None:
                await self._await_worker(grace_ms)
        finally:
            await self._gateway.close()

    async def _await_worker(self, grace_ms: int) -> None:
        try:
            await asyncio.wait_for(self._worker_ended.wait(), max(grace_ms, 1_000) / 1_000)
        except TimeoutError:
            # A thread cannot be killed; it ends with the process, which waits no longer for it.
            log.error("worker did not end within the grace", grace_ms=grace_ms)

    def _ask_to_stop(self, grace_ms: int) -> None:
        if not self._stop_asked.done():
            self._stop_asked.set_result(grace_ms)
        else:
            self._worker_ended.set()

    def _on_loop(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result()

    def _open_door(self, kind: str, address: str, max_msg_mb_size: int, tls: Tls | None) -> str:
        settings = None if tls is None else TlsSettings.from_document(vars(tls))
        with self._lock:
            self._ensure_running()
        gateway = self._gateway
        assert gateway is not None
        opener = gateway.open_grpc if kind == GRPC else gateway.open_rest
        try:
            bound = self._on_loop(lambda: opener(address, max_msg_mb_size, settings)).address
        except (DoorError, OSError) as error:
            raise StartError(str(error)) from None
        print(
            f"Serving: Serving {DOOR_NAMES[kind]} server start success, listening on {bound}",
            flush=True,
        )
        return bound

    # ------------------------------------------------------------ the worker's thread

    def _work(self, document: dict[str, Any], outcome: Future[None]) -> None:
        def report(said: dict[str, Any]) -> None:
            if outcome.done():
                return
            if said["state"] == "ready":
                print(_success_text(document), flush=True)
                outcome.set_result(None)
            elif said["state"] == "failed":
                text = worker_failure_text(
                    document["servable_name"], document["device_id"], said["error"]
                )
                outcome.set_exception(StartError(text))

        try:
            exit_code = run_worker(document, self._drain_worker, report)
            log.info("worker ended", exit_code=exit_code)
        finally:
            if not outcome.done():
                outcome.set_exception(StartError(SIGNAL_TEXT))
            self._say_worker_ended()

    def _say_worker_ended(self) -> None:
        assert self._loop is not None
        if self._ended.is_set():
            return
        self._loop.call_soon_threadsafe(self._worker_ended.set)
        # A server whose only worker is gone serves nobody.
        self.request_stop()


def _document(launch: ServableLaunch, directory: RunDirectory) -> dict[str, Any]:
    """The launch document of a worker, as a process would read it from stdin."""
    version = launch.resolved_version()
    address = directory.workers_address
    return {
        **worker_document(launch, version, launch.device_ids[0], None, address),
        "generation": 1,
        "parent_pid": os.getpid(),
    }


def _success_text(document: dict[str, Any]) -> str:
    """What a worker process says, too; scripts wait for this line."""
    return (
        "Serving: Start servable success, servable directory: "
        f"'{document['servable_directory']}', servable name: '{document['servable_name']}', "
        f"version number: {document['version']}"
    )
