"""When a worker that is alive is of no use any more."""

from workers.progress_page import Progress
from workers.supervisor.hang_policy import HangLimits, verdict

MS = 1_000_000
LIMITS = HangLimits(hang_ms=5_000, silent_ms=10_000, stopped_ms=2_000)
NOW = 1_000_000 * MS


def look(
    beat_ms: int = 0, work_ms: int | None = None, patience_ms: int = 0, is_stopped: bool = False
) -> str | None:
    """beat_ms, work_ms: how long ago. patience_ms: from now."""
    since_ns = 0 if work_ms is None else NOW - work_ms * MS
    busy_ns = NOW + patience_ms * MS if patience_ms else 0
    return verdict(Progress(NOW - beat_ms * MS, since_ns, busy_ns), is_stopped, NOW, LIMITS)


def test_a_worker_that_comes_round_is_well_idle_or_busy() -> None:
    assert look(1_000) is None
    assert look(1_000, work_ms=4_999) is None


def test_a_work_that_takes_too_long_is_a_hang_although_the_bus_beats() -> None:
    assert look(0, work_ms=5_000) == ("hung: one work has been running for 5000 ms (hang_ms 5000)")


def test_without_a_limit_a_work_may_take_for_ever() -> None:
    page = Progress(NOW, NOW - 10**9 * MS, 0)
    assert verdict(page, False, NOW, HangLimits(hang_ms=0)) is None


def test_a_bus_that_does_not_come_round_is_silence() -> None:
    assert look(9_999) is None
    assert look(10_000) == "silent for 10000 ms (silent_ms 10000)"


def test_a_stopped_process_is_found_sooner() -> None:
    assert look(1_999, is_stopped=True) is None
    assert look(2_000, is_stopped=True) == "stopped for 2000 ms"


def test_a_worker_that_asks_for_patience_is_left_alone_unless_it_is_stopped() -> None:
    assert look(60_000, work_ms=60_000, patience_ms=1) is None
    assert look(60_000, work_ms=60_000, patience_ms=1, is_stopped=True) == "stopped for 60000 ms"


def test_a_worker_that_waits_for_another_is_not_hung_but_may_be_silent() -> None:
    waiting = Progress(NOW, NOW - 60_000 * MS, 0, is_waiting=True)
    assert verdict(waiting, False, NOW, LIMITS) is None
    silent = waiting._replace(beat_ns=NOW - 10_000 * MS)
    assert verdict(silent, False, NOW, LIMITS) == "silent for 10000 ms (silent_ms 10000)"


def test_patience_has_an_end() -> None:
    page = Progress(NOW - 60_000 * MS, NOW - 60_000 * MS, NOW)
    assert verdict(page, False, NOW, LIMITS) == "silent for 60000 ms (silent_ms 10000)"
