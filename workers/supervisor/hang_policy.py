"""When a worker that is alive is of no use any more. Pure.

    stopped    the process is stopped (SIGSTOP) and its bus thread does not come round
    silent     the bus thread does not come round: something holds the GIL, or the host starves it
    hung       one work has been running for longer than any should

A worker that asks for patience (`busy_until`: it compiles) is only ever found stopped. One that
waits for another worker is not hung: the other one is, perhaps, and found by its own page.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol import limits
from workers.progress_page import Progress

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class HangLimits:
    """hang_ms: of one work; the default is what a request waits for by default: who would read a
    later answer? 0 = no limit. silent_ms: as long as the broker waits for a heartbeat. stopped_ms:
    the bus thread comes round each second.
    """

    hang_ms: int = limits.BUDGET_MS_DEFAULT
    silent_ms: int = limits.HEARTBEAT_INTERVAL_MS * limits.HEARTBEAT_LIVENESS
    stopped_ms: int = 2 * limits.HEARTBEAT_INTERVAL_MS


#: How often workers are looked at.
WATCH_INTERVAL_MS = 500


def verdict(progress: Progress, is_stopped: bool, now_ns: int, hang: HangLimits) -> str | None:
    """Why the worker should be killed, or None. REQUIRES: it has beaten at least once."""
    silent_ms = (now_ns - progress.beat_ns) // NS_PER_MS
    if is_stopped and silent_ms >= hang.stopped_ms:
        return f"stopped for {silent_ms} ms"
    if now_ns < progress.busy_until_ns:
        return None
    if silent_ms >= hang.silent_ms:
        return f"silent for {silent_ms} ms (silent_ms {hang.silent_ms})"
    if hang.hang_ms and progress.work_since_ns and not progress.is_waiting:
        running_ms = (now_ns - progress.work_since_ns) // NS_PER_MS
        if running_ms >= hang.hang_ms:
            return f"hung: one work has been running for {running_ms} ms (hang_ms {hang.hang_ms})"
    return None
