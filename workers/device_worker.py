"""A device worker: boots one servable version on one device, then serves it until it is drained.

    launch document ─► open device ─► import servable ─► load models ─► warm up
                    ─► connect ─► (WELCOME) ready ─► serve ─► drain ─► exit code

The main thread and the device thread compute (`workers.pipeline`); the bus thread (`workers.bus`)
receives, beats and sends. `run_worker`
also works on a thread of another process: what concerns the process as a whole (signals, its
parent, standard streams) is in `__main__`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from protocol import control, limits
from protocol import worker_session as ws
from protocol.dialects import DIALECTS, Dialect
from protocol.worker_session import SessionSettings
from telemetry.log import get_logger
from workers.backends.base import Backend, BackendError, DeviceReport
from workers.bus import WAKE, Bus, Delivery, Signals, Wake
from workers.distributed.group_backend import GroupBackend
from workers.launch import BACKENDS, Launch, LaunchError, read_launch
from workers.pipeline import Pipeline
from workers.servable.declarations import ModelDeclaration, ServableDeclaration
from workers.servable.loader import import_servable, resolve_version, version_directory
from workers.stages.executor import Executor
from workers.stages.model_runner import ModelRunner
from workers.stages.request_desk import RequestDesk

log = get_logger("WORKER")

EXIT_DRAINED = 0
EXIT_BUG = 1
EXIT_BOOT_FAILED = 3
EXIT_GROUP_LOST = 4

#: At most one line about faults of user code and models in this time.
FAULT_LOG_INTERVAL_NS = 1_000_000_000

Report = Callable[[dict[str, Any]], None]


class ProcessSignals(Signals, Protocol):
    """Signals that can be taken back from a library which installed its own handlers."""

    def install(self) -> None:
        """Handle SIGTERM and SIGINT, from the main thread."""

    def serve(self) -> None:
        """From now on the bus reads them; before, a signal ends the process."""

    def end(self, code: int) -> None:
        """End the process at once, from any thread."""


class BootError(Exception):
    """The servable cannot be served; the text is for the person who started it."""


class Servable(NamedTuple):
    """What a boot has made: a servable version, loaded and warm, on its device."""

    declaration: ServableDeclaration
    executor: Executor
    device: DeviceReport
    backend: Backend


def run_worker(
    document: Mapping[str, Any],
    stop: threading.Event,
    report: Report,
    signals: ProcessSignals | None = None,
    dialects: Mapping[int, Dialect] = DIALECTS,
) -> int:
    """Boot, serve and drain one worker. Returns the exit code.

    document: the launch document (see `workers.launch`). stop: set it to drain.
    report: takes `{"state": "loading" | "ready" | "draining" | "failed", …}`; "ready" comes from
    the bus thread, after the broker's first WELCOME. dialects: modules by number in the head.
    """
    report({"state": "loading"})
    try:
        launch = read_launch(document)
        servable = boot(launch, signals)
    except (BootError, LaunchError) as error:
        # The supervisor says it to who started the server, or to the log.
        log.info("boot failed", error=str(error))
        report({"state": "failed", "error": str(error)})
        return EXIT_BOOT_FAILED
    if isinstance(servable.backend, GroupBackend):
        assert signals is not None, "a distributed servable has a process of its own"
        servable.backend.serve(partial(_end_with_group, report, signals))
    return _Service(launch, servable, stop, report, signals, dialects).run()


def _end_with_group(report: Report, signals: ProcessSignals, reason: str) -> None:
    """The group is over, and the process with it: the next one forms a new group.

    The broker gives it what this one still holds.
    """
    log.error("group lost", reason=reason)
    report({"state": "failed", "error": reason})
    signals.end(EXIT_GROUP_LOST)


# ---------------------------------------------------------------- boot


def boot(launch: Launch, signals: ProcessSignals | None = None) -> Servable:
    """Open the device, import the servable, load and warm its models. Raises BootError."""
    backend = _make_backend(launch)
    os.environ["SERVING_DEVICE_ID"] = str(launch.device_id)
    try:
        device = backend.open_device(launch.device_target, launch.device_id)
        declaration = None
    except BackendError as error:
        text = f"open device failed, device id: {launch.device_id}, {error}"
        declaration = _declare_without_models(launch, text)
        device = DeviceReport("CPU", launch.device_id)
    if signals is not None:
        signals.install()  # again: the library behind the device may have handlers of its own
    declaration = declaration or _declare(launch)
    _check_kind(declaration, backend)
    runners = {
        key: _load_model(launch, model, backend) for key, model in declaration.models.items()
    }
    try:
        executor = Executor(declaration, runners)
    except RuntimeError as error:
        raise BootError(str(error)) from None
    log.info("servable loaded", service=launch.service, device=f"{device.target}:{device.id}")
    return Servable(declaration, executor, device, backend)


def _make_backend(launch: Launch) -> Backend:
    if launch.group is not None:
        return GroupBackend(launch.group, is_first=launch.generation == 1)
    module_name, class_name = BACKENDS[launch.backend]
    try:
        made: Backend = getattr(importlib.import_module(module_name), class_name)()
    except ImportError as error:
        raise BootError(f"backend {launch.backend} is not installed, {error}") from None
    return made


def _check_kind(declaration: ServableDeclaration, backend: Backend) -> None:
    """Raises BootError unless a distributed servable is started as one, and no other is."""
    if isinstance(backend, GroupBackend):
        try:
            backend.check(declaration)
        except BackendError as error:
            raise BootError(str(error)) from None
    elif any(model.group is not None for model in declaration.models.values()):
        raise BootError(
            f"Servable '{declaration.name}' is declared as distributed servable, it is started by "
            "distributed.start_servable"
        )


def _declare(launch: Launch) -> ServableDeclaration:
    directory, name = launch.servable_directory, launch.servable_name
    try:
        declaration = import_servable(directory, name)
        resolve_version(directory, name, launch.version_asked, declaration.has_model_files)
    except RuntimeError as error:
        if error.__cause__ is not None:  # where in the user's code: for the log only
            log.error("import of the servable failed", exc_info=error.__cause__)
        raise BootError(str(error)) from None
    return declaration


def _declare_without_models(launch: Launch, device_error: str) -> ServableDeclaration:
    """Import a servable that is all Python: it needs neither MindSpore nor a device but the CPU.

    Raises: BootError with `device_error` if it needs more.
    """
    if launch.device_target in (None, "CPU"):
        # An import that fails says nothing: perhaps for want of the same package.
        with contextlib.suppress(RuntimeError):
            declaration = import_servable(launch.servable_directory, launch.servable_name)
            if not declaration.models:
                return declaration
    raise BootError(device_error)


def _load_model(launch: Launch, model: ModelDeclaration, backend: Backend) -> ModelRunner:
    directory = version_directory(launch.servable_directory, launch.servable_name, launch.version)
    try:
        loaded = backend.load(model, directory, launch.dec_key, launch.dec_mode)
        runner = ModelRunner(model, loaded, launch.batch_sizes)
        runner.warm_up()
    except (BackendError, RuntimeError) as error:
        if model.group is not None:
            raise BootError(str(error)) from None
        raise BootError(
            f"Raise failed: Load model failed, servable directory: '{launch.servable_directory}', "
            f"servable name: '{launch.servable_name}', model file: '[{', '.join(model.files)}]', "
            f"version number {launch.version},model context: {model.context or '{}'}, "
            f"load error details: {error}"
        ) from None
    return runner


# ---------------------------------------------------------------- serve


class _Service:
    """A booted servable at work: main thread and bus thread, and what passes between them."""

    def __init__(
        self,
        launch: Launch,
        servable: Servable,
        stop: threading.Event,
        report: Report,
        signals: ProcessSignals | None,
        dialects: Mapping[int, Dialect],
    ) -> None:
        self._launch = launch
        self._servable = servable
        self._report = report
        self._signals = signals
        self._is_reported = False
        self._executor = servable.executor
        self._offer = _offer(launch, servable)
        methods = {method.name: method for method in self._offer.methods}
        self._bus = Bus(
            launch.workers_address, SessionSettings(self._offer), stop, self._on_state, signals
        )
        self._pipeline = Pipeline(
            servable.executor,
            self._on_progress,
            lambda: self._bus.deliveries.put(WAKE),
            servable.declaration.device_width,
        )
        self._desk = RequestDesk(launch.service, methods, self._pipeline.add, dialects)
        self._epoch = 0
        self._faults_unsaid = 0
        self._faults_due_ns = 0

    def run(self) -> int:
        """Serve until drained. Returns the exit code of the process."""
        if self._signals is not None:
            self._signals.serve()
        self._pipeline.start()
        self._bus.start()
        try:
            while self._turn():
                pass
        finally:
            self._bus.close()
            self._pipeline.close()
        log.info("worker drained" if not self._bus.has_failed else "worker ends by its own bug")
        return EXIT_BUG if self._bus.has_failed else EXIT_DRAINED

    def _turn(self) -> bool:
        """Take in what has come, compute one work, answer. Returns False at the end."""
        try:
            if not self._take_deliveries():
                return False
            self._compute()
        except Exception:  # the shell's top: a bug costs what is in hand, not the worker
            log.exception("bug in the worker", worker_id=self._launch.worker_id)
            if not self._desk.fail_in_hand():
                raise
        self._answer()
        return True

    def _take_deliveries(self) -> bool:
        deliveries = self._bus.deliveries
        is_idle = self._desk.is_idle and self._pipeline.is_idle()
        if is_idle and not self._take(deliveries.get()):
            return False
        while not deliveries.empty():
            if not self._take(deliveries.get()):
                return False
        self._answer()
        return True

    def _take(self, delivery: Delivery) -> bool:
        if delivery is None:
            return False
        if isinstance(delivery, int):
            self._epoch = delivery
            self._pipeline.clear()
            self._desk.clear()
        elif not isinstance(delivery, Wake):
            self._desk.receive(delivery)
        return True

    def _compute(self) -> None:
        self._pipeline.run_next(is_busy=not self._bus.deliveries.empty())
        self._log_faults()
        self._desk.take_back(*self._pipeline.take_back())
        self._desk.write_replies()

    def _answer(self) -> None:
        desk = self._desk
        if desk.tickets:
            self._bus.reply(self._epoch, desk.tickets, desk.replies)
            desk.tickets, desk.replies = [], []

    def _log_faults(self) -> None:
        """Say what user code and models did wrong, at most once per interval, with its traceback.

        A fault per request would fill the disk; the clients are told of each.
        """
        faults = self._executor.faults
        if not faults:
            return
        first, count = faults[0], len(faults)
        for _ in range(count):  # the device thread may append meanwhile
            faults.popleft()
        self._faults_unsaid += count
        now_ns = time.monotonic_ns()
        if now_ns >= self._faults_due_ns:
            log.error(
                "user code or model failed",
                where=first.where,
                faults=self._faults_unsaid,
                exc_info=first.error,
            )
            self._faults_unsaid = 0
            self._faults_due_ns = now_ns + FAULT_LOG_INTERVAL_NS

    def _on_progress(self, progress: tuple[int, int]) -> None:
        """On any thread that computes, under the pipeline's lock: for the next heartbeat."""
        self._bus.batch = progress

    def _on_state(self, state: str) -> None:
        """On the bus thread: tell the supervisor what the broker knows already."""
        if state == ws.READY and not self._is_reported:
            self._is_reported = True
            self._report(
                {
                    "state": "ready",
                    "device": self._servable.device._asdict(),
                    "version": self._launch.version,
                    "methods": [method.name for method in self._offer.methods],
                }
            )
        elif state == ws.DRAINING:
            self._report({"state": "draining"})
        log.info("worker session", state=state, worker_id=self._launch.worker_id)


def _offer(launch: Launch, servable: Servable) -> control.Ready:
    declaration = servable.declaration
    batch_size = max(map(servable.executor.batch_size, declaration.methods), default=1)
    return control.Ready(
        worker_id=launch.worker_id,
        generation=launch.generation,
        service=launch.service,
        # Three batches: one on the device, one in Python stages, one that gathers or is answered.
        # With two, each cycle waits for the broker once (overlap 1.7 to 1.8 instead of 1.8 to 1.9).
        # What runs models several batches at once holds more.
        credit=min(limits.CREDIT_MAX, (2 + declaration.device_width) * batch_size),
        methods=tuple(map(declaration.signature, declaration.methods)),
        device=control.Device(*servable.device),
        pid=os.getpid(),
        servable=launch.servable_name,
    )
