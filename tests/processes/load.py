"""Clients that never retry, each sending one request after the other while something is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: A 99th percentile below this tells of the machine's other work.
NOISE_MS = 40.0

#: Sends one request; returns what was wrong with the answer, or None.
Ask = Callable[[], Any]


class Load:
    """Threads that ask until they are stopped. failures: every answer that was not right."""

    def __init__(self, make_ask: Callable[[int], Ask], clients: int, pause_s: float) -> None:
        """make_ask: called with the number of each client, on its thread."""
        self.failures: list[Any] = []
        self._make_ask = make_ask
        self._pause_s = pause_s
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each client finish its request. Idempotent."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        ask = self._make_ask(number)
        while not self._over.wait(self._pause_s):
            failure = ask()
            if failure is not None:
                self.failures.append(failure)


def check_p99(before_ms: float, meanwhile_ms: float) -> None:
    """Nobody waits much longer while something is replaced: at most twice as long as before."""
    assert meanwhile_ms <= 2 * max(before_ms, NOISE_MS), (before_ms, meanwhile_ms)


@contextmanager
def load(make_ask: Callable[[int], Ask], clients: int = 4, pause_s: float = 0.01) -> Iterator[Load]:
    """A load for the time of a `with` block."""
    made = Load(make_ask, clients, pause_s)
    try:
        yield made
    finally:
        made.stop()
