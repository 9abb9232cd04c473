"""A worker: boots one servable version on one device, then serves it until it is drained.

    launch document ─► boot ─► connect ─► (WELCOME) ready ─► serve ─► drain ─► exit code

An extra worker has no device: it runs the Python stages of methods and sends their model stages
over the bus to the device workers (`workers.model_calls`).

The main thread and the device thread compute (`workers.pipeline`); the main thread receives and
sends as well, and the bus thread beats (`workers.bus`). `run_worker` also works on a thread of
another process: what concerns the process as a whole (signals, its parent, standard streams) is in
`__main__`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from protocol import control, limits
from protocol import worker_session as ws
from protocol.dialects import DIALECTS, Dialect
from protocol.values import MethodSignature
from protocol.worker_session import SessionSettings
from telemetry.allocator import keep_blocks
from telemetry.collector import collect_seldom
from telemetry.log import get_logger
from telemetry.tracing import open_tracer
from workers.boot import BootError, ProcessSignals, Servable, boot
from workers.bus import GOODBYE_MS, Bus, Delivery, Wake
from workers.connections import DealerOpening, LinkOpening, Opening
from workers.distributed.group_backend import GroupBackend
from workers.launch import Launch, LaunchError, read_launch
from workers.pipeline import Pipeline
from workers.progress_page import STARTED_MAX, ProgressPage
from workers.request_tracer import RequestTracer
from workers.stages.method_tensors import method_tensors
from workers.stages.request_desk import RequestDesk

log = get_logger("WORKER")

EXIT_DRAINED = 0
EXIT_BUG = 1
EXIT_BOOT_FAILED = 3
EXIT_GROUP_LOST = 4

#: At most one line about faults of user code and models in this time.
FAULT_LOG_INTERVAL_NS = 1_000_000_000

Report = Callable[[dict[str, Any]], None]


def run_worker(
    document: Mapping[str, Any],
    stop: threading.Event,
    report: Report,
    signals: ProcessSignals | None = None,
    dialects: Mapping[int, Dialect] = DIALECTS,
    page: ProgressPage | None = None,
) -> int:
    """Boot, serve and drain one worker. Returns the exit code.

    document: the launch document (see `workers.launch`). stop: set it to drain.
    report: takes `{"state": "loading" | "ready" | "draining" | "failed", …}`; "ready" comes from
    the bus thread, after the broker's first WELCOME. dialects: modules by number in the head.
    page: where the supervisor looks what this worker does.
    """
    report({"state": "loading"})
    try:
        launch = read_launch(document)
        servable = boot(launch, signals)
    except (BootError, LaunchError) as error:
        # The supervisor says it to who started the server, or to the log.
        log.info("boot failed", error=str(error))
        said = {"state": "failed", "error": str(error)}
        if isinstance(error, BootError) and error.device is not None:
            said["device"] = error.device
        report(said)
        return EXIT_BOOT_FAILED
    if isinstance(servable.backend, GroupBackend):
        assert signals is not None, "a distributed servable has a process of its own"
        servable.backend.serve(partial(_end_with_group, report, signals))
    return _Service(launch, servable, stop, report, signals, dialects, page).run()


def _end_with_group(report: Report, signals: ProcessSignals, reason: str) -> None:
    """The group is over, and the process with it: the next one forms a new group.

    The broker gives it what this one still holds.
    """
    log.error("group lost", reason=reason)
    report({"state": "failed", "error": reason})
    signals.end(EXIT_GROUP_LOST)


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
        page: ProgressPage | None,
    ) -> None:
        self._launch = launch
        self._page = page
        self._servable = servable
        self._report = report
        self._signals = signals
        self._is_reported = False
        self._executor = servable.executor
        self._offer = _offer(launch, servable)
        methods = {method.name: method for method in self._offer.methods}
        settings = SessionSettings(self._offer)
        self._bus = Bus(_opening(launch), settings, stop, self._on_state, signals, page)
        for key, model in servable.models.items():
            model.on_patience = partial(self._on_patience, key)
            model.on_wait = self._on_wait
        self._pipeline = Pipeline(
            servable.executor,
            self._on_progress,
            self._bus.wake,
            is_remote=servable.model_calls is not None,
            device_width=servable.declaration.device_width,
        )
        self._bus.read_numbers = self._pipeline.numbers
        packable = [name for name, plan in servable.executor.plans.items() if plan.is_packable]
        self._desk = RequestDesk(launch.service, methods, self._pipeline.add, dialects, packable)
        self._tracer = _open_tracer(launch, servable)
        if self._tracer is not None:
            self._desk.is_tracing = True
            self._pipeline.remember_works()
        self._epoch = 0
        self._faults_unsaid = 0
        self._faults_due_ns = 0

    def run(self) -> int:
        """Serve until drained. Returns the exit code of the process."""
        if self._signals is not None:
            self._signals.serve()
        self._pipeline.start()
        self._bus.start()
        if self._signals is not None:  # else the process is not ours alone
            collect_seldom()
            keep_blocks()
        try:
            while self._turn():
                pass
        finally:
            self._close()
        log.info("worker drained" if not self._bus.has_failed else "worker ends by its own bug")
        return EXIT_BUG if self._bus.has_failed else EXIT_DRAINED

    def _close(self) -> None:
        calls = self._servable.model_calls
        self._bus.close()
        if calls is not None:
            calls.abandon()
        self._pipeline.close()
        if self._tracer is not None:
            self._tracer.close()
        if calls is not None:
            calls.close()

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
        is_idle = self._desk.is_idle and self._pipeline.is_idle()
        deliveries = self._bus.take(is_idle)
        while deliveries:
            if not self._take(deliveries.popleft()):
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
            if self._page is not None:
                self._page.clear()
        elif not isinstance(delivery, Wake):
            self._desk.receive(delivery)
        return True

    def _compute(self) -> None:
        self._pipeline.run_next(self._bus.has_more)
        self._log_faults()
        self._desk.take_back(*self._pipeline.take_back())
        self._desk.write_replies()

    def _answer(self) -> None:
        desk = self._desk
        end_ns = time.monotonic_ns() if desk.traced else 0
        if desk.tickets:
            self._bus.reply(self._epoch, desk.tickets, desk.replies)
            if self._page is not None:
                self._page.end(desk.tickets)
            desk.tickets, desk.replies = [], []
        if desk.traced:
            self._trace(end_ns)

    def _trace(self, end_ns: int) -> None:
        """Make the spans of what was answered, when its replies are on their way."""
        assert self._tracer is not None
        for request, is_answered in self._desk.traced:
            self._tracer.trace(request, is_answered, end_ns)
        self._desk.traced.clear()

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

    def _on_progress(self, progress: tuple[int, int], started: Sequence[int]) -> None:
        """On any thread that computes, under the pipeline's lock: for who watches over us."""
        self._bus.batch = progress
        if self._page is not None:
            self._page.start(started)
            self._page.work(progress[1])

    def _on_patience(self, model_key: str, patience_ns: int) -> None:
        """On the thread that runs a model: this will take long, or it is over (0)."""
        if patience_ns:
            self._pipeline.note_compile(model_key)
        now_ns = time.monotonic_ns()
        until_ns = now_ns + patience_ns if patience_ns else 0
        if self._page is not None:
            self._page.restart_clock(now_ns)
            self._page.busy_until(until_ns)
            until_ns = self._page.read().busy_until_ns
        self._bus.patient_until_ns = until_ns

    def _on_wait(self, is_waiting: bool) -> None:
        """On the thread that runs a model, which another worker computes."""
        if self._page is not None:
            self._page.restart_clock(time.monotonic_ns())
            self._page.wait(is_waiting)

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
                    **self._what_extra_workers_need(),
                }
            )
        elif state == ws.DRAINING:
            self._report({"state": "draining"})
        log.info("worker session", state=state, worker_id=self._launch.worker_id)

    def _what_extra_workers_need(self) -> dict[str, Any]:
        servable = self._servable
        if servable.model_calls is not None:
            return {}
        methods = servable.declaration.methods.values()
        return {
            "models": {
                key: model.describe().as_document() for key, model in servable.models.items()
            },
            "python_methods": [method.name for method in methods if method.has_python],
        }


def _signature(launch: Launch, servable: Servable, name: str) -> MethodSignature:
    """A method with what is known of its tensors, and the version that is served."""
    declaration = servable.declaration
    tensors = method_tensors(declaration.methods[name], servable.models)
    return declaration.signature(name)._replace(tensors=tensors, version=launch.version)


def _opening(launch: Launch) -> Opening:
    if launch.link_path is not None:
        return LinkOpening(launch.link_path)
    return DealerOpening(launch.workers_address, GOODBYE_MS)


def _open_tracer(launch: Launch, servable: Servable) -> RequestTracer | None:
    tracer = open_tracer("worker", os.environ)
    if tracer is None:
        return None
    target, number = servable.device
    about: dict[str, str | int] = {
        "mindbus.worker": launch.worker_id,
        "mindbus.servable": launch.servable_name,
        "mindbus.version": launch.version,
        "mindbus.device": f"{target}:{number}",
    }
    return RequestTracer(tracer, about)


def _offer(launch: Launch, servable: Servable) -> control.Ready:
    declaration = servable.declaration
    is_extra = servable.model_calls is not None
    methods = [
        name for name, method in declaration.methods.items() if method.has_python or not is_extra
    ]
    batch_size = max(map(servable.executor.batch_size, methods), default=1)
    return control.Ready(
        worker_id=launch.worker_id,
        generation=launch.generation,
        service=launch.service,
        # Three batches: one on the device, one in Python stages, one that gathers or is answered.
        # With two, each cycle waits for the broker once (overlap 1.7 to 1.8 instead of 1.8 to 1.9).
        # What runs models several batches at once holds more.
        credit=min(limits.CREDIT_MAX, STARTED_MAX, (2 + declaration.device_width) * batch_size),
        methods=tuple(_signature(launch, servable, name) for name in methods),
        device=control.Device(*servable.device),
        pid=os.getpid(),
        servable=launch.servable_name,
        is_extra=is_extra,
    )
