"""Runs of many seeds, for processes of their own."""

from __future__ import annotations

from collections import Counter

from tests.sim.world import run_seed

CHUNK = 100


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
        totals.update(world.broker.totals())
        totals.update(world.met)
    return failures, totals
