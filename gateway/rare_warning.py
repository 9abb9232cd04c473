"""A warning that clients can provoke as often as they like, and that is written now and then."""

from __future__ import annotations

import time

from telemetry.log import get_logger

log = get_logger("GATEWAY")

#: At most one line in this time.
INTERVAL_NS = 1_000_000_000


class RareWarning:
    """One kind of warning; each line says how many of it there were since the last one."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._failures = 0
        self._due_ns = 0

    def __call__(self, **facts: object) -> None:
        """It happened. facts: of this time."""
        self._failures += 1
        now_ns = time.monotonic_ns()
        if now_ns >= self._due_ns:
            log.warning(self._event, **facts, failures=self._failures)
            self._failures = 0
            self._due_ns = now_ns + INTERVAL_NS
