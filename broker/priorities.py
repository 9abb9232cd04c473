"""Three levels in one backlog: who is urgent goes first, and nobody waits for ever.

Theory of operation. Each level that somebody waits in has a *pass*; the level with the smallest one
is next, and its pass grows by its *stride*. So while all three wait, 21 dispatches are 16 HIGH,
4 NORMAL and 1 LOW, in a mix; a level that is alone gets all of them. Who comes into an empty level
begins one stride behind the level that was served last: it can neither save turns up nor be passed
over. (Stride scheduling; lottery scheduling without the lottery.)

Priorities order what waits. They do not look at deadlines, and take no worker away from anybody.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from protocol import head as heads

if TYPE_CHECKING:
    from broker.service import Request

HIGH, NORMAL, LOW = range(3)

#: Dispatches of each level in a round in which all of them wait.
SHARES = (16, 4, 1)

STRIDES = tuple(max(SHARES) // share for share in SHARES)


def level_of(head: bytes) -> int:
    """The level that the flags of a head ask for."""
    flags = head[heads.FLAGS_LOW_BYTE]
    if flags & heads.FLAG_HIGH:
        return HIGH
    return LOW if flags & heads.FLAG_LOW else NORMAL


class Levels:
    """The lines of a backlog in which others than NORMAL wait. normal: the line that is there."""

    __slots__ = ("_now", "_passes", "lines")

    def __init__(self, normal: deque[Request]) -> None:
        self.lines: tuple[deque[Request], ...] = (deque(), normal, deque())
        #: the pass of the level that was served last
        self._now = 0
        self._passes = list(STRIDES)

    def line_for(self, request: Request) -> deque[Request]:
        """Where a request stands that is about to wait."""
        level = level_of(request.head)
        line = self.lines[level]
        if not line:
            self._passes[level] = max(self._passes[level], self._now + STRIDES[level])
        return line

    def next_level(self) -> int | None:
        """The level whose turn it is, or None if all lines are empty."""
        occupied = [level for level in (HIGH, NORMAL, LOW) if self.lines[level]]
        return min(occupied, key=self._passes.__getitem__, default=None)

    def note_turn(self, level: int) -> None:
        """Somebody of a level was served."""
        self._now = self._passes[level]
        self._passes[level] += STRIDES[level]

    def __bool__(self) -> bool:
        """Whether somebody waits in another level than NORMAL."""
        return bool(self.lines[HIGH] or self.lines[LOW])
