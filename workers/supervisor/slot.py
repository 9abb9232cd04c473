"""The life of one slot: a stable place for one child process after the other.

A slot is bound to what its processes serve (a device of a servable, the broker, a gateway) and
outlives them. Its n-th process is its generation n, so that nobody confuses a late word of a dead
process with its successor.

Rules
1. Every change of a slot's state is a line of `TRANSITIONS`; no code assigns `_state` elsewhere.
2. A process exists in STARTING, READY and DRAINING, and in no other state.
3. READY is what the process reported (for a worker: warmed up, and welcomed by the broker).
4. An exit that nobody asked for leads to BACKOFF; how long it lasts is `restart_policy`'s matter.
   An exit out of DRAINING was asked for and leads to VACANT.
5. A process that drains without our order signed off: somebody told it to go. Such a slot is no
   longer wanted and stays VACANT (MindSpore Serving: a worker that signed off is not restarted).
6. FAILED lasts until somebody resets the slot; what it died of before is forgotten then. So does
   DEVICE_FAULT, which is the same for a slot whose device cannot be opened, or is not released.
7. A process that found its device busy did not die of itself: it does not count as a death, and the
   next one tries again soon (`restart_policy`).
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from workers.device_errors import BUSY, FAULT

#: No process, none is due; the policy fills it if it is wanted.
VACANT = "VACANT"
#: A process was spawned and has not reported READY.
STARTING = "STARTING"
#: The process reported that it serves.
READY = "READY"
#: The process was told to go, or goes by itself; what is in flight is finished.
DRAINING = "DRAINING"
#: The process died by itself; the next one is spawned after a pause.
BACKOFF = "BACKOFF"
#: Given up: too many deaths in too short a time.
FAILED = "FAILED"
#: Given up: its device cannot be opened, or was not released in time.
DEVICE_FAULT = "DEVICE_FAULT"

STATES = (VACANT, STARTING, READY, DRAINING, BACKOFF, FAILED, DEVICE_FAULT)

#: No process is here, and none comes before somebody resets the slot.
GIVEN_UP = (FAILED, DEVICE_FAULT)

#: We spawned a process.
SPAWNED = "SPAWNED"
#: The process reported that it serves.
REPORTED = "REPORTED"
#: The process reported that it drains.
SIGNED_OFF = "SIGNED_OFF"
#: We told the process to drain.
TERMINATED = "TERMINATED"
#: The process is gone and reaped.
EXITED = "EXITED"
#: The policy gave the slot up.
GAVE_UP = "GAVE_UP"
#: The policy gave the slot up because of its device.
FAULTED = "FAULTED"
#: Somebody mended the cause and wants the slot filled again.
RESET = "RESET"

TRANSITIONS = {
    (VACANT, SPAWNED): STARTING,
    (STARTING, REPORTED): READY,
    (STARTING, SIGNED_OFF): DRAINING,
    (STARTING, TERMINATED): DRAINING,
    (STARTING, EXITED): BACKOFF,
    (READY, REPORTED): READY,
    (READY, SIGNED_OFF): DRAINING,
    (READY, TERMINATED): DRAINING,
    (READY, EXITED): BACKOFF,
    # A report may cross our signal on the way.
    (DRAINING, REPORTED): DRAINING,
    (DRAINING, SIGNED_OFF): DRAINING,
    (DRAINING, TERMINATED): DRAINING,
    (DRAINING, EXITED): VACANT,
    (BACKOFF, SPAWNED): STARTING,
    (BACKOFF, GAVE_UP): FAILED,
    (BACKOFF, FAULTED): DEVICE_FAULT,
    (FAILED, RESET): VACANT,
    (DEVICE_FAULT, RESET): VACANT,
}

#: A process that was READY this long before it died counts as healthy: its slot's count of
#: failures in a row starts again (Jupyter's restarter: stable after 10 s).
STABLE_MS = 10_000

#: Deaths that a slot remembers; a restart intensity above it could not be checked.
RESTARTS_REMEMBERED_MAX = 64

NS_PER_MS = 1_000_000


class InvalidTransitionError(Exception):
    """A slot was told something that its state does not allow: our own mistake."""


@dataclass(frozen=True, slots=True)
class SlotSnapshot:
    """What the restart policy knows of a slot.

    since_ns: when the slot entered its state. restarts_ns: the latest unasked deaths, oldest first.
    failures: deaths in a row without a stable run. jitter: drawn at the last death, in [-1, 1].
    is_killed: SIGKILL was sent in this state already. device_tries: processes in a row that found
    the device busy, device_since_ns: when the first of them did; has_device_fault: the latest one
    found that it cannot be used. drain_allowance_ms: what its drain may take beyond the limit.
    """

    slot: str
    state: str
    generation: int
    since_ns: int
    restarts_ns: tuple[int, ...] = ()
    failures: int = 0
    jitter: float = 0.0
    is_wanted: bool = True
    is_killed: bool = False
    device_tries: int = 0
    device_since_ns: int = 0
    has_device_fault: bool = False
    drain_allowance_ms: int = 0


class Slot:
    """One slot and its history. Every change comes in through `apply`."""

    __slots__ = (
        "_device",
        "_device_since_ns",
        "_device_tries",
        "_drain_allowance_ms",
        "_failures",
        "_generation",
        "_is_killed",
        "_is_wanted",
        "_jitter",
        "_random",
        "_restarts_ns",
        "_since_ns",
        "_stable_ns",
        "_state",
        "name",
    )

    def __init__(
        self,
        name: str,
        chance: random.Random,
        stable_ms: int = STABLE_MS,
        generation: int = 0,
    ) -> None:
        """generation: of the process before the first one here, which ran in another slot."""
        self.name = name
        self._random = chance
        self._stable_ns = stable_ms * NS_PER_MS
        self._state = VACANT
        self._generation = generation
        self._since_ns = 0
        #: Instants of unasked deaths, oldest first.
        self._restarts_ns: deque[int] = deque(maxlen=RESTARTS_REMEMBERED_MAX)
        self._failures = 0
        self._jitter = 0.0
        self._is_wanted = True
        self._is_killed = False
        #: What the process of now said of its device: BUSY, FAULT, or nothing.
        self._device: str | None = None
        self._device_tries = 0
        self._device_since_ns = 0
        self._drain_allowance_ms = 0

    @property
    def state(self) -> str:
        """One of `STATES`."""
        return self._state

    @property
    def generation(self) -> int:
        """Number of the latest process of this slot; 0 before the first."""
        return self._generation

    @property
    def since_ns(self) -> int:
        """When the slot entered its state."""
        return self._since_ns

    @property
    def is_wanted(self) -> bool:
        """Whether a vacant slot is to be filled."""
        return self._is_wanted

    @property
    def has_busy_device(self) -> bool:
        """Whether the process found its device busy, so that another one may have more luck."""
        return self._device == BUSY

    @property
    def has_device_trouble(self) -> bool:
        """Whether the process found its device busy, or unusable."""
        return self._device is not None

    @property
    def is_gone(self) -> bool:
        """Whether no process is here and none will come again."""
        is_empty = self._state in (VACANT, BACKOFF)
        return self._state in GIVEN_UP or (is_empty and not self._is_wanted)

    def apply(self, event: str, now_ns: int) -> None:
        """Tell the slot what happened.

        REQUIRES: (state, event) is a line of `TRANSITIONS`, else InvalidTransitionError.
        """
        before = self._state
        after = TRANSITIONS.get((before, event))
        if after is None:
            raise InvalidTransitionError(f"slot {self.name}: {event} in {before}")
        if event == SPAWNED:
            self._drain_allowance_ms = 0
            self._generation += 1
            self._device = None
        elif event == SIGNED_OFF and before != DRAINING:
            self._is_wanted = False
        elif event == EXITED and after == BACKOFF:
            self._count_death(before, now_ns)
        elif event == RESET:
            self._restarts_ns.clear()
            self._failures = 0
            self._device = None
            self._device_tries = 0
        if after != before:
            self._state = after
            self._since_ns = now_ns
            self._is_killed = False

    def _count_death(self, before: str, now_ns: int) -> None:
        if self._device is not None:
            if not self._device_tries:
                self._device_since_ns = now_ns
            self._device_tries += 1
            return
        self._device_tries = 0
        self._restarts_ns.append(now_ns)
        self._jitter = self._random.uniform(-1.0, 1.0)
        if before == STARTING:
            # Who cannot boot will not boot at once either: there is no immediate second try.
            self._failures = max(self._failures + 1, 2)
        elif now_ns - self._since_ns >= self._stable_ns:
            self._failures = 1
        else:
            self._failures += 1

    def mark_killed(self) -> None:
        """Remember that SIGKILL was sent, so that the policy does not ask for it again."""
        self._is_killed = True

    def note_device(self, device: str | None) -> None:
        """The process says that its device is the reason why it cannot start: BUSY or FAULT."""
        self._device = device

    def allow_drain(self, more_ms: int) -> None:
        """Let a drain take so much longer than the limit: it waits for something on purpose."""
        self._drain_allowance_ms = more_ms

    def retire(self) -> None:
        """Want no further process here."""
        self._is_wanted = False

    def want(self) -> None:
        """Want a process here again."""
        self._is_wanted = True

    def snapshot(self) -> SlotSnapshot:
        """The slot as the policy sees it."""
        return SlotSnapshot(
            self.name,
            self._state,
            self._generation,
            self._since_ns,
            tuple(self._restarts_ns),
            self._failures,
            self._jitter,
            self._is_wanted,
            self._is_killed,
            self._device_tries if self._device is not None else 0,
            self._device_since_ns,
            self._device == FAULT,
            self._drain_allowance_ms,
        )
