"""When a broker that was told to go may go. Pure.

It refuses what is new, finishes what it holds, and goes when nobody has asked for anything for a
while: a request that is on its way is to be refused, not to be lost with our socket. A patient
client that was refused sends nothing more, and asks the next broker.
"""

from __future__ import annotations

NS_PER_MS = 1_000_000

#: A broker that drains goes when nobody has asked for anything for so long.
QUIET_MS = 100

#: It waits for that only so long: somebody may ask again and again whatever he is told.
QUIET_WAIT_MS = 1_000


class Stopping:
    """The grace that the first signal begins, and the quiet that ends it early."""

    def __init__(self, grace_ms: int) -> None:
        self._grace_ns = grace_ms * NS_PER_MS
        #: When the grace is over; None while nobody wants the broker to go.
        self.until_ns: int | None = None
        #: Since when nobody has asked for anything.
        self._quiet_ns = 0
        #: Since when everything is answered.
        self._idle_ns: int | None = None

    def begin(self, signals: int, now_ns: int) -> None:
        """So many signals came: the first begins the grace, the second ends it."""
        self._quiet_ns = now_ns
        if self.until_ns is not None or signals > 1:
            self.until_ns = now_ns
        else:
            self.until_ns = now_ns + self._grace_ns

    def note_turn(self, is_quiet: bool, now_ns: int) -> None:
        """A turn is over. is_quiet: no client had to be refused in it, and nothing is unread."""
        if not is_quiet:
            self._quiet_ns = now_ns

    def is_over(self, requests: int, now_ns: int) -> bool:
        """Everything is answered and clients have heard of it, or the grace is over.

        requests: how many the broker holds.
        """
        if self.until_ns is None:
            return False
        if requests:
            return now_ns >= self.until_ns
        if self._idle_ns is None:
            self._idle_ns = now_ns
        is_quiet = now_ns - self._quiet_ns >= QUIET_MS * NS_PER_MS
        return is_quiet or now_ns >= min(self.until_ns, self._idle_ns + QUIET_WAIT_MS * NS_PER_MS)

    def cut(self, timeout_ms: int | None, now_ns: int) -> int | None:
        """The poll timeout, no longer than what is left of the grace, or of being quiet."""
        if self.until_ns is None:
            return timeout_ms
        left_ms = max(0, (self.until_ns - now_ns) // NS_PER_MS + 1)
        left_ms = min(left_ms, QUIET_MS)
        return left_ms if timeout_ms is None else min(timeout_ms, left_ms)
