"""Looks at the progress pages of workers, and at `/proc` where one has fallen silent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from workers.supervisor import slot as slots
from workers.supervisor.hang_policy import (
    NS_PER_MS,
    WATCH_INTERVAL_MS,
    HangLimits,
    verdict,
)
from workers.supervisor.member import Member

#: A look that comes so late was held up, by a paused container or a host without time for us.
LATE_MS = 1_000

#: States of a process in `/proc/<pid>/stat` that a signal or a debugger has put it into.
STOPPED_STATES = frozenset("Tt")


class Watch:
    """Finds workers that hang, at most once in WATCH_INTERVAL_MS."""

    def __init__(self, limits: HangLimits) -> None:
        self._limits = limits
        self._next_ns = 0

    def look(self, members: Iterable[Member], now_ns: int) -> list[tuple[Member, str]]:
        """Workers to be killed, and why."""
        if now_ns < self._next_ns:
            return []
        is_late = self._next_ns and now_ns - self._next_ns >= LATE_MS * NS_PER_MS
        self._next_ns = now_ns + WATCH_INTERVAL_MS * NS_PER_MS
        if is_late:  # we were frozen, and most likely the workers with us: let them come round
            self._next_ns += self._limits.stopped_ms * NS_PER_MS
            return []
        found = []
        for member in members:
            reason = self._verdict(member, now_ns)
            if reason is not None:
                found.append((member, reason))
        return found

    def next_timer_ns(self, members: Iterable[Member]) -> int | None:
        """When the next look is due; None while there is nobody to look at."""
        if any(map(_is_watched, members)):
            return self._next_ns
        self._next_ns = 0
        return None

    def _verdict(self, member: Member, now_ns: int) -> str | None:
        if not _is_watched(member):
            return None
        assert member.child is not None
        assert member.child.page is not None
        progress = member.child.page.read()
        if not progress.beat_ns:
            return None
        is_late = now_ns - progress.beat_ns >= self._limits.stopped_ms * NS_PER_MS
        is_stopped = is_late and _state_of(member.child.pid) in STOPPED_STATES
        reason = verdict(progress, is_stopped, now_ns, self._limits)
        # Who drains has a limit of its own for all but this: what it holds waits for nothing.
        return reason if is_stopped or member.slot.state == slots.READY else None


def _is_watched(member: Member) -> bool:
    """It serves, or finishes what it holds; who starts has limits of its own."""
    return (
        member.slot.state in (slots.READY, slots.DRAINING)
        and member.child is not None
        and member.child.page is not None
        and not member.slot.snapshot().is_killed
    )


def _state_of(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""  # it has just gone
    return stat.rpartition(")")[2].split()[0]
