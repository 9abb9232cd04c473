"""Percentiles, medians, and what is kept of a run."""

from __future__ import annotations

import math

import pytest

from bench.figures import Figures, middle, of_latencies, percentile, spread
from bench.records import Cell, Record, Run, Table, values_of


def test_percentile_is_a_value_that_was_measured() -> None:
    ordered = [1.0, 2.0, 3.0, 4.0]
    assert percentile(ordered, 0.5) == 2.0
    assert percentile(ordered, 0.99) == 4.0
    assert percentile([7.0], 0.01) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_failed_requests_are_no_throughput() -> None:
    figures = Figures(1_000, 2.0, 1.0, 2.0, failed=100)
    assert figures.rate == 450.0
    assert values_of(figures)["rate"] == 450.0
    assert "100 FAILED" in figures.line()


def test_latencies_need_not_be_ordered() -> None:
    figures = of_latencies([3.0, 1.0, 2.0], 0.5)
    assert (figures.requests, figures.rate, figures.p50_ms, figures.p99_ms) == (3, 6.0, 2.0, 3.0)


def test_median_leaves_rounds_without_a_figure_out() -> None:
    assert middle([3.0, None, 1.0, math.nan, 10.0]) == 3.0
    assert middle([None]) is None
    assert spread([9.0, 10.0, 12.0]) == pytest.approx(0.3)
    assert spread([9.0]) == 0.0


def record(system: str, turn: int, **values: float) -> Record:
    """A measurement of W1 through REST at 64."""
    return Record("w1", system, "REST", 64, turn, values, load=1.5)


OURS, THEIRS = Cell("w1", "ours", "REST", 64), Cell("w1", "theirs", "REST", 64)


def test_ratio_compares_what_was_measured_in_the_same_round() -> None:
    # The machine was three times as slow in the second round, for both.
    table = Table(
        [
            record("ours", 0, rate=300.0),
            record("theirs", 0, rate=200.0),
            record("ours", 1, rate=100.0),
            record("theirs", 1, rate=50.0),
            record("ours", 2, rate=310.0),
            record("theirs", 2, rate=200.0),
            record("ours", 3, rate=900.0),
        ]
    )
    assert table.ratio(OURS, THEIRS, "rate") == pytest.approx(1.55)
    assert table.value(OURS, "rate") == pytest.approx(305.0)
    assert table.rounds("w1") == 4


def test_ratio_of_what_was_not_measured_is_none() -> None:
    table = Table([record("ours", 0, rate=300.0)])
    assert table.ratio(OURS, THEIRS, "rate") is None
    assert table.value(OURS, "p50_ms") is None
    assert table.cells("w2") == []


def test_run_comes_back_from_json_as_it_was() -> None:
    run = Run(
        machine={"cores": "2"},
        settings={"w1": {"rounds": 5}},
        versions={"wrk": "4"},
        records=[record("ours", 0, rate=1.0), record("ours", 1, rate=2.0)],
        missing=[{"workload": "w1", "system": "theirs", "reason": "not installed"}],
    )
    text = run.to_json()
    assert Run.from_json(text) == run
    assert text.count('"system": "ours"') == 2
    assert all('"rate"' in line for line in text.splitlines() if '"ours"' in line)


def test_empty_run_comes_back_from_json() -> None:
    assert Run.from_json(Run().to_json()) == Run()
