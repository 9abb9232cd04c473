"""The pipeline: the scheduler behind a lock, the main thread on one side, the device on the other.

    main thread     add, run_next (Python, and device runs that are short), take_back
    device thread   device runs, as long as rows wait for a model

Both threads take works from the scheduler and give them back to it, each for itself: the device
need not wait for the end of a slow Python stage to get its next batch. What a work computes is
computed without the lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from protocol import status
from protocol.control import Numbers
from protocol.values import Failure
from telemetry.log import get_logger
from workers.device_thread import DeviceThread
from workers.stages.executor import Executor
from workers.stages.request_desk import BUG_TEXT
from workers.stages.rows import Outcome, PendingRequest, Work
from workers.stages.scheduler import Scheduler

log = get_logger("WORKER")


class PipelineError(Exception):
    """The pipeline has a bug and cannot go on."""


class Pipeline:
    """Computes requests, on the calling thread and on a device thread of its own.

    on_progress: takes (number, start) of the oldest work that runs, whenever it changes, and the
    tickets that are computed for the first time; called on both threads. wake_main: called on the
    device thread when the main thread has to look.
    is_remote: models are computed elsewhere, so that a run of them is a wait for the device thread.
    device_width: how many works of models may run at once, each on a device thread of its own.
    """

    def __init__(
        self,
        executor: Executor,
        on_progress: Callable[[tuple[int, int], Sequence[int]], None],
        wake_main: Callable[[], None],
        is_remote: bool = False,
        device_width: int = 1,
    ) -> None:
        self._executor = executor
        self._is_remote = is_remote
        self._on_progress = on_progress
        self._wake_main = wake_main
        self._device_width = device_width
        self._scheduler = Scheduler(executor.plans, device_width)
        self._lock = threading.Lock()
        #: Requests that the scheduler has not yet, the main thread's.
        self._added: list[PendingRequest] = []
        self._device = DeviceThread(self._run_next_on_device, wake_main, device_width)
        #: Device threads that run works, or are about to look for some. Changes under the lock.
        self._awake = 0
        executor.on_device = self._device.call

    # ------------------------------------------------------------ for the main thread

    def start(self) -> None:
        """Start the device thread."""
        self._device.start()

    def close(self) -> None:
        """End the device thread, after what it runs."""
        self._device.close()

    def add(self, request: PendingRequest) -> None:
        """Take a request in; nothing is computed before `run_next`."""
        if request.packed is not None:
            self._added.append(request)  # cheap to come by: the others are here in a moment
            return
        with self._lock:
            self._take_in()
            self._scheduler.add(request)

    def clear(self) -> None:
        """Forget every request: nobody waits for it any more."""
        self._added.clear()
        with self._lock:
            self._scheduler.clear()

    def take_back(self) -> tuple[list[PendingRequest], list[PendingRequest]]:
        """Requests that are finished since the last call, and those that expired."""
        scheduler = self._scheduler
        with self._lock:
            finished, scheduler.finished = scheduler.finished, []
            expired, scheduler.expired = scheduler.expired, []
        return finished, expired

    def remember_works(self) -> None:
        """Let requests whose trace is recorded remember their works. Before the first one."""
        self._scheduler.is_tracing = True

    def numbers(self) -> Numbers:
        """What was computed since the start. On any thread."""
        with self._lock:
            return self._scheduler.tally.numbers()

    def note_compile(self, model_key: str) -> None:
        """A model compiles. On any thread, without the lock."""
        with self._lock:
            self._scheduler.tally.compile_model(model_key)

    def is_idle(self) -> bool:
        """There is nothing for the main thread: it may sleep until it is woken.

        Raises: PipelineError if the device thread has ended by a bug.
        """
        if self._device.has_failed:
            raise PipelineError("the device thread has ended")
        if self._added:
            return False
        scheduler = self._scheduler
        with self._lock:
            if scheduler.has_python_rows or scheduler.finished or scheduler.expired:
                return False
            return not (scheduler.has_device_rows and self._has_sleeping_device)

    def run_next(self, has_more: Callable[[], bool]) -> None:
        """Run one work on this thread, if there is one for it, and have the device do the others.

        has_more: whether more requests have arrived already; asked without the lock, if it matters.
        """
        with self._lock:
            self._take_in()
            does_matter = self._is_next_run_short(False) and not self._is_next_run_short(True)
        is_busy = does_matter and has_more()
        with self._lock:
            work = self._choose(is_busy)
        if work is not None:
            self._run(work)

    # ------------------------------------------------------------ inside

    @property
    def _has_sleeping_device(self) -> bool:
        """REQUIRES: the lock."""
        return self._awake < self._device_width

    def _take_in(self) -> None:
        """Hand the scheduler what was added. On the main thread. REQUIRES: the lock."""
        add = self._scheduler.add
        for request in self._added:
            add(request)
        self._added.clear()

    def _choose(self, is_busy: bool) -> Work | None:
        """REQUIRES: the lock."""
        scheduler = self._scheduler
        if scheduler.has_device_rows and self._has_sleeping_device:
            if self._is_next_run_short(is_busy or scheduler.has_python_rows):
                work = self._started(scheduler.next_device_work(time.monotonic_ns()))
                if work is not None:
                    return work
            else:
                self._wake_device()
        return self._started(scheduler.next_python_work(time.monotonic_ns()))

    def _wake_device(self) -> None:
        """REQUIRES: the lock."""
        self._awake += 1
        self._device.wake()

    def _started(self, work: Work | None) -> Work | None:
        """REQUIRES: the lock."""
        if work is not None:
            self._say_progress()
        return work

    def _say_progress(self) -> None:
        """REQUIRES: the lock."""
        scheduler = self._scheduler
        self._on_progress(scheduler.progress, scheduler.started)
        scheduler.started.clear()

    def _run_next_on_device(self) -> bool:
        """On the device thread: run one work. Returns False if none was there."""
        scheduler = self._scheduler
        with self._lock:
            work = self._started(scheduler.next_device_work(time.monotonic_ns()))
            if work is None:
                self._awake -= 1
                has_news = bool(scheduler.expired)
            elif scheduler.has_device_rows and self._has_sleeping_device:
                self._wake_device()
        if work is not None:
            self._run(work)
            self._wake_main()
            return True
        if has_news:
            self._wake_main()
        return False

    def _run(self, work: Work) -> None:
        try:
            if work.model is None:
                outcomes = self._executor.run(work)
            else:
                with self._device.seat:
                    outcomes = self._executor.run(work)
        except Exception:  # the shell's top: a bug costs what is in hand, not the worker
            log.exception("bug in the worker", work=work.number, rows=len(work.rows))
            failure: Outcome = Failure(status.MS_SYSTEM_ERROR, BUG_TEXT)
            outcomes = [failure] * len(work.rows)
        scheduler = self._scheduler
        with self._lock:
            scheduler.complete(work, outcomes, time.monotonic_ns())
            self._say_progress()
            if work.model is None:
                # A long run shall not wait until what has arrived meanwhile is decoded.
                self._wake_device_for_long_run()

    def _wake_device_for_long_run(self) -> None:
        """REQUIRES: the lock."""
        scheduler = self._scheduler
        can_wake = scheduler.has_device_rows and self._has_sleeping_device
        if can_wake and not self._is_next_run_short(is_busy=False):
            self._wake_device()

    def _is_next_run_short(self, is_busy: bool) -> bool:
        """This thread may run the next model. REQUIRES: the lock."""
        is_for_device_only = self._is_remote or self._device_width > 1
        return not is_for_device_only and self._scheduler.is_next_run_short(is_busy)
