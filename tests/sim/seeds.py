"""Runs of many seeds, for processes of their own."""

from __future__ import annotations

from collections import Counter

from tests.sim.world import run_seed

CHUNK = 100

#: Counters of the broker that tell which faults were met.
FAULTS = ("answered", "redispatched", "cancelled", "replies_late", "replies_stale", "workers_lost")


def run_chunk(first: int, count: int) -> tuple[list[str], Counter[str]]:
    """Run some seeds. Returns what failed, and what the brokers counted."""
    failures: list[str] = []
    totals: Counter[str] = Counter()
    for seed in range(first, first + count):
        try:
            world = run_seed(seed)
        except AssertionError as error:
            failures.append(str(error))
            continue
        counters = world.core.counters
        totals.update({name: getattr(counters, name) for name in FAULTS})
        totals.update(world.met)
        totals.update(counters.reasons)
        totals["requests"] += counters.accepted
    return failures, totals
