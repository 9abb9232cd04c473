"""The device thread: runs models while the main thread runs Python.

Rule 1: whoever runs a model holds the *seat*, so no two models ever run at once. That is this
thread, or the main thread for a run that is too short to be handed over.
A group of ranks may have several seats, and a thread for each, so that its stages overlap.
Rule 2: calls of models out of Python stages take turns with the works that wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import SimpleQueue

from protocol.values import Result
from telemetry.log import get_logger
from workers.stages.user_code import Raised, run_user_code

log = get_logger("WORKER")

Run = Callable[[], list[Result]]


class _Call:
    """A run that somebody waits for."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.outcome: SimpleQueue[list[Result] | Raised] = SimpleQueue()


class DeviceThread:
    """Runs works as long as there are some, and calls one by one.

    run_next: runs one work; returns False if none was there. on_failed: called on the thread if
    it ends by a bug. width: seats and threads.
    """

    def __init__(
        self, run_next: Callable[[], bool], on_failed: Callable[[], None], width: int = 1
    ) -> None:
        #: Held by the thread that runs a model.
        self.seat: AbstractContextManager[bool] = (
            threading.Lock() if width == 1 else threading.BoundedSemaphore(width)
        )
        #: The thread ended by a bug of ours; why is in the log.
        self.has_failed = False
        self._run_next = run_next
        self._on_failed = on_failed
        #: True = see whether there is work; None = end.
        self._orders: SimpleQueue[_Call | bool | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name="device", daemon=True) for _ in range(width)
        ]

    def start(self) -> None:
        """Begin to take orders."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Run works until none is left."""
        self._orders.put(True)

    def call(self, run: Run) -> list[Result]:
        """Run a model on this thread and wait for it; raises what it raises. From any thread."""
        call = _Call(run)
        self._orders.put(call)
        outcome = call.outcome.get()
        if isinstance(outcome, Raised):
            raise outcome.error
        return outcome

    def close(self) -> None:
        """End the thread after what it runs, and wait for it."""
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        try:
            while (order := self._orders.get()) is not None:
                if isinstance(order, _Call):
                    with self.seat:
                        outcome = run_user_code(order.run)
                    order.outcome.put(outcome)
                elif self._run_next():
                    self._orders.put(True)  # behind the calls that came meanwhile
        except Exception:  # the shell's top: a bug here must end the worker, not hang it
            self.has_failed = True
            log.exception("device thread failed")
            self._on_failed()
