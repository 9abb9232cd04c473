"""Bars, tables and plots, made of a run that never was."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import bars, report, svg
from bench.records import Record, Run, Table
from bench.workloads import w7

SVG = "{http://www.w3.org/2000/svg}"


def w1(system: str, door: str, x: int, rate: float, turn: int = 0) -> Record:
    """A measurement of W1, whose latency follows from its throughput."""
    p50_ms = x / rate * 1000
    values = {"rate": rate, "p50_ms": p50_ms, "p99_ms": 2 * p50_ms, "failed": 0.0}
    return Record("w1", system, door, x, turn, values, load=0.5, stolen=0.01)


def verdict(records: list[Record], text: str) -> bars.Verdict:
    """The bar with this text."""
    (found,) = (each for each in bars.verdicts(Table(records)) if each.text == text)
    return found


def test_bar_is_met_at_its_bound_and_missed_below() -> None:
    mosec = w1(bars.MOSEC, "REST", 64, 100.0)
    for rate, is_met in ((115.0, True), (114.0, False)):
        ours = w1(bars.EMBEDDED, "REST", 64, rate)
        assert verdict([mosec, ours], "REST c=64, over Mosec batching").is_met is is_met


def test_bar_against_triton_is_against_its_better_setting() -> None:
    records = [
        w1(bars.EMBEDDED, "REST", 8, 100.0),
        w1(bars.TRITON, "REST", 8, 50.0),
        w1(bars.TRITON_OFF, "REST", 8, 200.0),
    ]
    assert verdict(records, "REST c=8, over Triton").value == pytest.approx(0.5)


def test_bar_of_a_latency_is_a_roof() -> None:
    records = [
        w1(bars.EMBEDDED, "gRPC", 1, 100.0),
        w1(bars.TRITON, "gRPC", 1, 100.0),
        w1(bars.TRITON_OFF, "gRPC", 1, 50.0),
    ]
    found = verdict(records, "gRPC c=1, p50 over Triton's better one")
    assert (found.value, found.is_floor, found.is_met) == (1.0, False, True)


def test_bar_without_its_measurement_is_neither_met_nor_missed() -> None:
    assert all(each.is_met is None for each in bars.verdicts(Table([])))
    half = verdict([w1(bars.EMBEDDED, "REST", 64, 1.0)], "REST c=64, over Mosec batching")
    assert half.is_met is None


def test_share_of_the_ideal_is_that_of_the_worst_door() -> None:
    records = [
        Record("w2", bars.EMBEDDED, door, 128, 0, {"rate": rate, "p50_ms": 10.0, "p99_ms": tail})
        for door, rate, tail in (
            ("REST", 4_700.0, 11.0),
            ("gRPC", 4_800.0, 14.0),
            ("MSService gRPC", 4_800.0, 11.0),
            ("native bus", 4_800.0, 11.0),
        )
    ]
    found = [each for each in bars.verdicts(Table(records)) if each.workload == "w2"]
    assert found[0].value == pytest.approx(4_700 / (32_000 / 6.6))
    assert (found[1].value, found[1].is_met) == (pytest.approx(1.4), False)


def growth(*costs: float) -> list[Record]:
    """Costs of broker and gateway over the range of workers."""
    return [
        Record("w7", "workers", "gRPC", scale, 0, {"broker_us": cost, "gateway_us": 50.0})
        for scale, cost in zip(w7.RANGES["workers"], costs, strict=True)
    ]


def test_growth_is_the_largest_of_any_process_at_any_scale() -> None:
    found = [
        each
        for each in bars.verdicts(Table(growth(20.0, 25.0, 21.0)))
        if each.text.startswith("workers")
    ]
    assert [(each.value, each.is_met) for each in found] == [(1.25, False)]


def texts(chart: str) -> list[str]:
    """All texts of a chart, which must be well-formed."""
    return [element.text or "" for element in ElementTree.fromstring(chart).iter(f"{SVG}text")]


def test_line_chart_has_a_line_and_a_name_for_each_series() -> None:
    series = {"a < b & c": [(1, 10.0), (64, 30_000.0)], "other": [(8, 5.0)]}
    chart = svg.line_chart("A title", "in flight", "requests/s", series)
    root = ElementTree.fromstring(chart)
    assert len(root.findall(f"{SVG}polyline")) == 2
    assert {"A title", "in flight", "requests/s", "a < b & c", "other"} <= set(texts(chart))


def test_line_chart_keeps_within_its_frame_and_puts_more_higher() -> None:
    chart = svg.line_chart("t", "x", "y", {"a": [(0, 1.0), (100, 4.0), (10_000, 2.0)]})
    root = ElementTree.fromstring(chart)
    dots = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in root.iter(f"{SVG}circle")]
    assert dots[0][0] < dots[1][0] < dots[2][0]
    assert dots[1][1] < dots[2][1] < dots[0][1]
    assert all(0 < x < svg.WIDTH and 0 < y < float(root.get("height", 0)) for x, y in dots)


def test_range_chart_has_a_bar_from_p50_to_p99() -> None:
    chart = svg.range_chart("t", "ms", [("MindBus", 1.0, 10.0), ("other", 2.0, 2.0)])
    widths = [
        float(r.get("width", "0%").rstrip("%"))
        for r in ElementTree.fromstring(chart)[0:]
        if r.tag == f"{SVG}rect" and r.get("fill-opacity")
    ]
    assert widths[0] > 100
    assert widths[1] == 2.0


@pytest.mark.parametrize(
    "chart", [svg.line_chart("t", "x", "y", {}), svg.range_chart("t", "x", [])]
)
def test_chart_of_nothing_says_so(chart: str) -> None:
    assert "nothing was measured" in texts(chart)


def test_ticks_are_round_and_within_the_axis() -> None:
    assert svg.Axis(0, 27_000, 0, 100).ticks() == [0, 10_000, 20_000]
    assert svg.Axis(0.3, 40, 0, 100, is_log=True).ticks() == [0.5, 1, 2, 5, 10, 20]
    assert [svg.number(value) for value in (0.25, 12, 27_000, 2_500_000)] == [
        "0.25",
        "12",
        "27k",
        "2.5M",
    ]


def test_report_shows_figures_bars_load_and_who_was_not_measured(tmp_path: Path) -> None:
    run = Run(
        machine={"cores": "2"},
        settings={"w1": {"rounds": 1, "seconds": 2, "load_before": 0.4, "at": "2026-01-01 10:00"}},
        records=[w1(bars.EMBEDDED, "REST", 64, 12_345.0), *growth(1.0, 1.0, 1.0)],
        missing=[{"workload": "w1", "system": "KServe", "reason": "not\ninstalled"}],
    )
    results = tmp_path / "results.json"
    results.write_text(run.to_json())
    report.write(results)
    page = (tmp_path / "README.md").read_text()
    assert "| MindBus embedded | REST | 64 | 12,345 |" in page
    assert "| w1 | KServe | not installed |" in page
    assert "| w1 | 2026-01-01 10:00 | 1 of 2 s | 0.4 |" in page
    assert "not measured" in page
    for name in ("w1-rest", "w1-latency-64", "w7-workers"):
        assert f"({name}.svg)" in page
        ElementTree.fromstring((tmp_path / f"{name}.svg").read_text())
