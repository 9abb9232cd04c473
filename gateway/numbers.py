"""What one gateway counts of its doors, in plain integers. Pure.

A door calls `begin` and `end` of its own `DoorNumbers`; `Numbers.describe` is called by who shows
them, and sent to other gateways as it is.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

#: Upper bounds of times at the doors; the same as the broker's, so that the two can be compared.
BOUNDS_NS = (
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000,
    250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000,
    30_000_000_000, 60_000_000_000,
)  # fmt: skip


class DoorNumbers:
    """The requests of one kind of door."""

    __slots__ = ("codes", "counts", "inflight", "total_ns")

    def __init__(self) -> None:
        #: by name of the gRPC code that says how they ended, in every dialect
        self.codes: dict[str, int] = {}
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.total_ns = 0
        self.inflight = 0

    def end(self, code: str, took_ns: int) -> None:
        """A request is answered, or its client is gone."""
        self.inflight -= 1
        self.codes[code] = self.codes.get(code, 0) + 1
        self.counts[bisect_left(BOUNDS_NS, took_ns)] += 1
        self.total_ns += took_ns

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "codes": dict(self.codes),
            "counts": list(self.counts),
            "total_ns": self.total_ns,
            "inflight": self.inflight,
        }


class Numbers:
    """The doors of one gateway, by kind: `grpc` and `rest`."""

    def __init__(self) -> None:
        self.doors = {"grpc": DoorNumbers(), "rest": DoorNumbers()}

    def describe(self, connections: int, unread_bytes: int) -> dict[str, Any]:
        """Plain values. connections: of REST clients. unread_bytes: of replies to gRPC clients."""
        return {
            "bounds_ns": BOUNDS_NS,
            "doors": {kind: door.describe() for kind, door in self.doors.items()},
            "connections": connections,
            "unread_bytes": unread_bytes,
        }
