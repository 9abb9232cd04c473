"""Which slot to touch next: stateless, idempotent, at most one action at a time.

The policy looks at snapshots and the clock and names one action, in this order: start what is due;
kill what overstays its start or its drain; give up what dies too often (OTP's restart intensity),
or whose device is not to be had.
Asked again with the same snapshots it names the same action (TF Serving's version policies). What
replaces processes that are well is a roll (`roll.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workers.supervisor.slot import (
    BACKOFF,
    DRAINING,
    NS_PER_MS,
    RESTARTS_REMEMBERED_MAX,
    STARTING,
    VACANT,
    SlotSnapshot,
)

#: Exit code of a child that drained.
EXIT_DRAINED = 0
#: Exit code of a child that its own watchdog ended.
EXIT_WATCHDOG = 70


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """The numbers of the policy.

    backoff_*: the first death of a healthy process is answered at once, the next ones after base,
    2·base, 4·base … up to max, each ± jitter. restarts_max within restarts_period_ms is the
    restart intensity: one more and the slot is given up. start_limit_ms None: a start may take as
    long as it takes (MindSpore Serving has no limit; a first compilation can take minutes).
    device_*: a busy device is tried again after device_retry_ms, twice that … up to the maximum;
    the last try begins device_limit_ms after it was first found busy, at the latest: what a killed
    process held is released within seconds, if at all.
    """

    backoff_base_ms: int = 1_000
    backoff_max_ms: int = 60_000
    backoff_jitter: float = 0.2
    restarts_max: int = 5
    restarts_period_ms: int = 60_000
    start_limit_ms: int | None = None
    drain_limit_ms: int = 10_000
    device_retry_ms: int = 250
    device_retry_max_ms: int = 4_000
    device_limit_ms: int = 30_000

    def __post_init__(self) -> None:
        assert 0 < self.backoff_base_ms <= self.backoff_max_ms, self
        assert 0.0 <= self.backoff_jitter < 1.0, self
        assert 0 <= self.restarts_max < RESTARTS_REMEMBERED_MAX, self


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the next generation in this slot."""

    slot: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the process group of this slot."""

    slot: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave this slot FAILED."""

    slot: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Leave this slot in DEVICE_FAULT."""

    slot: str


Action = Spawn | Kill | GiveUp | Fault


def next_action(slots: Sequence[SlotSnapshot], now_ns: int, limits: RestartLimits) -> Action | None:
    """The one thing to do now, or None."""
    for slot in slots:
        if _has_fault(slot, limits):
            return Fault(slot.slot)
    for slot in slots:
        if _is_due(slot, now_ns, limits) and not _exceeds_intensity(slot, now_ns, limits):
            return Spawn(slot.slot)
    for slot in slots:
        limit_ns = _limit_ns(slot, limits)
        if limit_ns is not None and now_ns >= limit_ns:
            return Kill(slot.slot)
    for slot in slots:
        if slot.state == BACKOFF and _exceeds_intensity(slot, now_ns, limits):
            return GiveUp(slot.slot)
    return None


def next_timer_ns(slots: Iterable[SlotSnapshot], limits: RestartLimits) -> int | None:
    """When `next_action` has to be asked again even if nothing happens."""
    timers = [
        timer_ns
        for slot in slots
        for timer_ns in (
            _due_ns(slot, limits) if slot.state == BACKOFF and slot.is_wanted else None,
            _limit_ns(slot, limits),
        )
        if timer_ns is not None
    ]
    return min(timers, default=None)


def backoff_ns(failures: int, jitter: float, limits: RestartLimits) -> int:
    """The pause before the next start after so many deaths in a row.

    jitter: in [-1, 1]; spreads slots that died of one cause, so that they do not load at once.
    """
    if failures <= 1:
        return 0
    # 2 ** 32 seconds is beyond every cap: the exponent needs no more.
    pause_ms = min(limits.backoff_base_ms << min(failures - 2, 32), limits.backoff_max_ms)
    return round(pause_ms * NS_PER_MS * (1.0 + limits.backoff_jitter * jitter))


def _has_fault(slot: SlotSnapshot, limits: RestartLimits) -> bool:
    if slot.state != BACKOFF or not slot.device_tries:
        return False
    busy_ns = slot.since_ns - slot.device_since_ns
    return slot.has_device_fault or busy_ns >= limits.device_limit_ms * NS_PER_MS


def _due_ns(slot: SlotSnapshot, limits: RestartLimits) -> int:
    if slot.device_tries:
        # 2 ** 32 of whatever unit is beyond the maximum.
        pause_ms = limits.device_retry_ms << min(slot.device_tries - 1, 32)
        pause_ms = min(pause_ms, limits.device_retry_max_ms)
        last_ns = slot.device_since_ns + limits.device_limit_ms * NS_PER_MS
        return min(slot.since_ns + pause_ms * NS_PER_MS, last_ns)
    return slot.since_ns + backoff_ns(slot.failures, slot.jitter, limits)


def _is_due(slot: SlotSnapshot, now_ns: int, limits: RestartLimits) -> bool:
    if not slot.is_wanted:
        return False
    if slot.state == VACANT:
        return True
    return slot.state == BACKOFF and now_ns >= _due_ns(slot, limits)


def _exceeds_intensity(slot: SlotSnapshot, now_ns: int, limits: RestartLimits) -> bool:
    after_ns = now_ns - limits.restarts_period_ms * NS_PER_MS
    recent = sum(1 for death_ns in slot.restarts_ns if death_ns > after_ns)
    return recent > limits.restarts_max


def _limit_ns(slot: SlotSnapshot, limits: RestartLimits) -> int | None:
    if slot.is_killed:
        return None
    if slot.state == DRAINING:
        limit_ms = limits.drain_limit_ms + slot.drain_allowance_ms
        return slot.since_ns + limit_ms * NS_PER_MS
    if slot.state == STARTING and limits.start_limit_ms is not None:
        return slot.since_ns + limits.start_limit_ms * NS_PER_MS
    return None
