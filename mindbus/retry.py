"""When a call that failed is made again: what the table of reasons allows, within its timeout.

A client retries only if it is told to (`retry=Retry()`), and only what `protocol.status.REASONS`
marks with retry: a server that is full, or going down, or has no worker, and a connection that
broke. Of the last one nobody knows whether the request ran; give a call a `key` and it runs once,
as long as the broker lives. Pauses double, and each is cut by chance, so that clients do not all
come back at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mindbus.bus_errors import BusError
from protocol import head as heads

NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class Retry:
    """How often, and after which pauses.

    attempts_max: attempts of one call, the first one among them. pause_ms: before the second one;
    each further pause is twice as long, up to pause_ms_max, and of each a random half is left out.
    Raises: ValueError if one of them is out of its range.
    """

    attempts_max: int = 5
    pause_ms: int = 50
    pause_ms_max: int = 2_000

    def __post_init__(self) -> None:
        for name, value, lowest in (
            ("attempts_max", self.attempts_max, 1),
            ("pause_ms", self.pause_ms, 0),
            ("pause_ms_max", self.pause_ms_max, self.pause_ms),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {value!r}")
            if value < lowest:
                raise ValueError(f"{name} must be at least {lowest}, not {value}")


class Attempts:
    """The attempts of one call. head: of its request, with its whole budget. Pure."""

    __slots__ = ("_dice", "_retry", "count", "head", "until_ns")

    def __init__(self, retry: Retry, head: bytes, now_ns: int, dice: random.Random) -> None:
        self._retry = retry
        self._dice = dice
        #: the head of the present attempt
        self.head = head
        self.count = 1
        (_, budget_ms) = heads.RESTAMP.unpack_from(head, heads.REQUEST_ID_OFFSET)
        self.until_ns = now_ns + budget_ms * NS_PER_MS

    def pause_ns(self, error: BusError, now_ns: int) -> int | None:
        """How long to wait before the next attempt, None if there is none.

        An outcome with results is one that a worker gave, and final.
        """
        if not error.is_retryable or error.results is not None:
            return None
        if self.count >= self._retry.attempts_max:
            return None
        longest_ms = min(self._retry.pause_ms << (self.count - 1), self._retry.pause_ms_max)
        pause_ns = int(longest_ms * NS_PER_MS * self._dice.uniform(0.5, 1))
        if now_ns + pause_ns + NS_PER_MS > self.until_ns:
            return None
        return pause_ns

    def begin_next(self, now_ns: int) -> None:
        """The pause is over: the head has what is left of the budget from now on."""
        self.count += 1
        left_ms = max(1, (self.until_ns - now_ns) // NS_PER_MS)
        self.head = heads.restamp(self.head, 0, left_ms)
