"""Tables and plots of a run: `python -m bench.report [RESULTS]` writes them beside its results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench import bars, models, svg
from bench.bodies import LARGE_BYTES
from bench.records import Cell, Run, Table
from bench.workloads import w4, w7

RESULTS = Path("docs/performance/results.json")

TITLES = {
    "ceilings": "Ceilings",
    "w1": "W1: two float32[16], their sum",
    "w2": "W2: batching, 5 ms and 0.05 ms per item, 128 in flight",
    "w3": "W3: a tensor of 16 MiB in and back",
    "w4": "W4: 16 workers of 10 ms, 64 in flight",
    "w5": "W5: start and memory",
    "w6": "W6: real models on MindSpore's CPU",
    "w7": "W7: cost of a request while something grows",
}

METHOD = """\
Made by `make bench`; `python -m bench.report` makes this page and the plots again from
[results.json](results.json), without measuring. Every figure is the median over the rounds, and
every ratio the median of the rounds' own ratios: in a round, all systems at one door and one
concurrency are measured within seconds of each other. All of them run all the time, except those
that use the cores also when nobody asks (Ray Serve, LitServe), which run for their turn only.

The load comes from the same machine: wrk with one thread for HTTP/1.1, h2load with one thread for
gRPC, with 4 connections (1 at c=1) that share the requests in flight. Both are written in C. For
the native bus it is a loop in Python, whose own ceiling is the row *no broker*. Before each load an
answer is checked by value. wrk counts answers that are not 2xx as failed; h2load takes a gRPC call
that failed for a success, so the bytes of its answers are compared with those of as many right
ones.
"""


def write(results: Path) -> None:
    """Write README.md and the plots beside the results."""
    run = Run.from_json(results.read_text())
    table = Table(run.records)
    for name, chart in charts(table).items():
        (results.parent / f"{name}.svg").write_text(chart)
    (results.parent / "README.md").write_text(page(run, table))
    print(f"written: {results.parent / 'README.md'}")


def page(run: Run, table: Table) -> str:
    """The whole of README.md."""
    parts = ["# Performance", METHOD, "## Machine and runs", machine_text(run, table)]
    parts += ["## Bars", bars_text(bars.verdicts(table))]
    for workload, title in TITLES.items():
        if table.cells(workload):
            parts += [f"## {title}", workload_text(table, workload)]
    if run.missing:
        rows = [
            (miss["workload"], miss["system"], _one_line(miss["reason"])) for miss in run.missing
        ]
        parts += ["## Not measured", markdown(("workload", "who", "why"), rows)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def machine_text(run: Run, table: Table) -> str:
    """What it ran on, with which versions, and how busy the machine was."""
    about = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    versions = ", ".join(f"{name} {value}" for name, value in sorted(run.versions.items()))
    rows = []
    for name, settings in run.settings.items():
        records = [record for record in run.records if record.workload == name]
        loads = sorted(record.load for record in records if record.load) or [0.0]
        stolen = max((record.stolen for record in records), default=0.0)
        rows.append(
            (
                name,
                str(settings["at"]),
                f"{settings['rounds']} of {settings['seconds']:g} s",
                f"{settings['load_before']:.1f}",
                f"{loads[0]:.1f} to {loads[-1]:.1f}",
                f"{stolen:.1%}",
                f"{table.total(name, 'failed'):.0f}",
            )
        )
    head = (
        "part",
        "begun",
        "rounds",
        "load before",
        "load within",
        "most stolen",
        "failed requests",
    )
    notes = (
        "Load is the average of the last minute, with what is measured and who measures; stolen is "
        "the share of the cores that the host gave to others during a measurement."
    )
    return f"{about}.\n\nVersions: {versions}.\n\n{markdown(head, rows)}\n\n{notes}"


def bars_text(verdicts: Sequence[bars.Verdict]) -> str:
    """One line per bar."""
    rows = []
    for verdict in verdicts:
        sign = "≥" if verdict.is_floor else "≤"
        value = "not measured" if verdict.value is None else _figure(verdict.value)
        met = {True: "yes", False: "**no**", None: ""}[verdict.is_met]
        rows.append((verdict.workload, verdict.text, value, f"{sign} {verdict.bound:g}", met))
    return markdown(("", "what", "found", "bar", "met"), rows)


def workload_text(table: Table, workload: str) -> str:
    """Plots and table of one workload."""
    cells = table.cells(workload)
    plots = [name for name in charts(table) if name.split("-")[0] == workload]
    images = "\n".join(f"![{name}]({name}.svg)" for name in plots)
    if workload == "w5":
        names = ("first_answer_s", "pss_mib", "pss_above_worker_mib", "idle_cores")
        head = ("system", "first answer, s", "memory, MiB", "above the worker's", "cores when idle")
        rows = [(c.system, *(_shown(table.value(c, name)) for name in names)) for c in cells]
    elif workload == "w6":
        head = ("system", "model and door", "instances/s", "over the bare loop", "batch")
        rows = [_real_row(table, cell) for cell in cells]
    elif workload == "w7":
        head = ("what grows", "to", *(f"{kind}, µs" for kind in w7.KINDS), "req/s")
        names = (*(f"{kind}_us" for kind in w7.KINDS), "rate")
        rows = [
            (c.system, f"{c.x:,.0f}", *(_shown(table.value(c, name)) for name in names))
            for c in cells
        ]
    else:
        head = (
            "system",
            "door",
            "in flight",
            "req/s",
            "p50 ms",
            "p99 ms",
            "spread",
            _extra(workload),
        )
        rows = [_load_row(table, cell) for cell in cells]
    return f"{images}\n\n{markdown(head, rows)}"


def _extra(workload: str) -> str:
    return {"w2": "of the ideal", "w3": "MB/s one way", "w4": "of the ideal"}.get(workload, "")


def _load_row(table: Table, cell: Cell) -> tuple[str, ...]:
    rate = table.value(cell, "rate") or 0.0
    extra = ""
    if cell.workload == "w2":
        extra = f"{rate / models.W2_IDEAL_PER_S:.0%}"
    elif cell.workload == "w3":
        extra = f"{rate * LARGE_BYTES / 1e6:,.0f}"
    elif cell.workload == "w4":
        workers = w4.MANY_IDEAL_PER_S
        ideal = workers if cell.system == w4.MANY_NAME else models.W4_IDEAL_PER_S
        extra = f"{rate / ideal:.0%}"
    return (
        cell.system,
        cell.door,
        f"{cell.x:g}",
        f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}",
        _shown(table.value(cell, "p50_ms")),
        _shown(table.value(cell, "p99_ms")),
        f"{table.spread(cell, 'rate'):.0%}",
        extra,
    )


def _real_row(table: Table, cell: Cell) -> tuple[str, ...]:
    model = cell.door.split(",")[0]
    share = table.ratio(cell, Cell("w6", "bare loop", model, 1), "instances_per_s")
    return (
        cell.system,
        cell.door,
        _shown(table.value(cell, "instances_per_s")),
        _shown(share),
        _shown(table.value(cell, "batch")),
    )


# ---------------------------------------------------------------- plots


def charts(table: Table) -> dict[str, str]:
    """All plots for which there are figures, by file name."""
    found = {}
    for door in ("REST", "gRPC", "MSService gRPC", "native bus"):
        cells = [cell for cell in table.cells("w1") if cell.door == door]
        series = _series(table, cells)
        if series:
            name = f"w1-{door.lower().replace(' ', '-')}"
            title = f"W1, {door}: throughput against concurrency"
            found[name] = svg.line_chart(title, "requests in flight", "requests/s", series)
    for workload, xs in (("w1", (1, 64)), ("w2", (128,)), ("w4", (64,))):
        for x in xs:
            rows = _latencies(table, workload, x)
            if rows:
                title = f"{workload.upper()}, {x} in flight: latency from p50 to p99"
                found[f"{workload}-latency-{x}"] = svg.range_chart(title, "ms", rows)
    for name in w7.RANGES:
        series = {
            kind: points
            for kind in w7.kinds_of(name)
            if (points := _points(table, [c for c in table.cells("w7") if c.system == name], kind))
        }
        if series:
            title = f"W7: CPU per request while {name} grow"
            chart = svg.line_chart(title, name, "µs per request", series)
            found[f"w7-{name.replace(' ', '-')}"] = chart
    return found


def _series(table: Table, cells: Sequence[Cell]) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        rate = table.value(cell, "rate")
        if rate is not None:
            series.setdefault(cell.system, []).append((cell.x, rate))
    return series


def _points(table: Table, cells: Sequence[Cell], kind: str) -> list[tuple[float, float]]:
    values = [(cell.x, table.value(cell, f"{kind}_us")) for cell in cells]
    return [(x, value) for x, value in values if value is not None]


def _latencies(table: Table, workload: str, x: float) -> list[tuple[str, float, float]]:
    rows = []
    for cell in table.cells(workload):
        p50, p99 = table.value(cell, "p50_ms"), table.value(cell, "p99_ms")
        if cell.x == x and p50 is not None and p99 is not None:
            rows.append((f"{cell.system}, {cell.door}", p50, p99))
    return sorted(rows, key=lambda row: row[1])


# ---------------------------------------------------------------- text


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(value: float | None) -> str:
    return "" if value is None else _figure(value)


def _figure(value: float) -> str:
    """Three digits that say something; from 1,000 on whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[:300]


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
