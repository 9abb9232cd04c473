"""Random schedules with faults, each from a seed: what holds in all of them."""

from __future__ import annotations

import multiprocessing
from collections import Counter

import pytest

from tests.figures import Figures
from tests.sim.seeds import run_chunk
from tests.sim.world import run_seed

CHUNK = 10


@pytest.mark.shows("R19", "F26")
@pytest.mark.parametrize("first", range(0, 10, CHUNK))
def test_every_seed_keeps_the_invariants_and_answers_each_request_once(first: int) -> None:
    for seed in range(first, first + CHUNK):
        run_seed(seed)


@pytest.mark.long
@pytest.mark.shows("R19", "F26")
def test_many_more_seeds_do_so_too(figures: Figures) -> None:
    chunks = [(first, CHUNK) for first in range(10, 200, CHUNK)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        outcomes = pool.starmap_async(run_chunk, chunks, chunksize=1).get(1_200)
    assert [text for failures, _ in outcomes for text in failures] == []
    totals = sum((counted for _, counted in outcomes), Counter())
    figures(seeds=len(chunks) * CHUNK, requests=totals["requests"], deaths=totals["workers_lost"])


def test_the_worlds_meet_the_faults_that_they_are_for() -> None:
    totals: dict[str, int] = {}
    for seed in range(100, 108):
        counters = run_seed(seed).core.counters
        for name in ("answered", "failed", "cancelled", "redispatched", "replies_late"):
            totals[name] = totals.get(name, 0) + getattr(counters, name)
        for reason, count in counters.reasons.items():
            totals[reason] = totals.get(reason, 0) + count
    met = {name for name, count in totals.items() if count}
    assert {
        "answered",
        "cancelled",
        "redispatched",
        "replies_late",
        "deadline_exceeded",
        "unknown_service",
        "queue_full",
        "worker_lost",
    } <= met


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = run_seed(3), run_seed(3)
    assert first.core.story() == second.core.story()
    assert first.executions == second.executions
