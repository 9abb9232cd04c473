"""How many frames that bring no message further a client may send. Pure.

Pings, settings, resets and empty data cost us more than who sends them (CVE-2019-9512, -9514,
-9515, -9518; CVE-2023-44487). A client that calls sends some of each.
"""

from __future__ import annotations

#: So many are let pass at once.
IDLE_FRAMES_MAX = 10_000

#: Each call that is answered, each frame of a reply, and each second forgives some. A client with
#: small windows opens two of them (its call's, and the connection's) for each frame that it takes.
FORGIVEN_PER_CALL = 8
FORGIVEN_PER_FRAME = 2
FORGIVEN_PER_S = 1_000

NS_PER_S = 1_000_000_000


class Patience:
    """What is left of it, for one connection."""

    __slots__ = ("_count", "_forgiven_ns")

    def __init__(self) -> None:
        self._count = 0
        self._forgiven_ns = 0

    def is_over(self, now_ns: int, count: int = 1) -> bool:
        """One more frame came, or one that costs as much as several. now_ns: monotonic."""
        if not self._count:
            self._forgiven_ns = now_ns
        self._count += count
        if self._count <= IDLE_FRAMES_MAX:
            return False
        forgiven = (now_ns - self._forgiven_ns) * FORGIVEN_PER_S // NS_PER_S
        self._forgiven_ns = now_ns
        self._count = max(0, self._count - forgiven)
        return self._count > IDLE_FRAMES_MAX

    def forgive(self, count: int) -> None:
        """Something useful was done."""
        if self._count:
            self._count = max(0, self._count - count)
