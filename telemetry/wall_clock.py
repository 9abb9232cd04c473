"""The time of day, for what people and their tools read. Nothing is measured or decided with it."""

from __future__ import annotations

import time


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
