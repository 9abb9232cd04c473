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
    figures(seeds=len(chunks) * CHUNK, requests=totals["accepted"], deaths=totals["workers_lost"])


def test_the_worlds_meet_the_faults_that_they_are_for() -> None:
    failures, met = run_chunk(100, 15)
    assert failures == []
    assert {
        "answered",
        "broker killed",
        "broker told to go",
        "cancelled",
        "client broker_lost",
        "client left",
        "client killed",
        "crash",
        "cut",
        "deadline_exceeded",
        "drain",
        "draining",
        "freeze",
        "no_worker",
        "poisoned",
        "queue_full",
        "redispatched",
        "replies_late",
        "unknown_service",
        "worker unreachable",
        "worker_lost",
    } <= {name for name, count in met.items() if count}


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = run_seed(3), run_seed(3)
    assert first.broker.core.story() == second.broker.core.story()
    assert first.executions == second.executions
    assert first.met == second.met
