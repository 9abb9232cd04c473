"""The bars of the specification, and whether a run meets them. Pure.

A ratio is the median of the ratios of single rounds, for only what was measured within seconds of
each other is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from bench import models
from bench.records import Cell, Table
from bench.workloads import w4, w7
from bench.workloads.w2 import CONCURRENCY as W2_CONCURRENCY
from bench.workloads.w4 import CONCURRENCY as W4_CONCURRENCY

EMBEDDED, STANDALONE, IN_PROCESS = "MindBus embedded", "MindBus standalone", "MindBus in-process"
TRITON, TRITON_OFF = "Triton, batching on", "Triton, batching off"
MOSEC = "Mosec, batching on"
OWN_DOORS = ("REST", "gRPC", "MSService gRPC", "native bus")
REAL_DOORS = ("binary REST", "gRPC", "MSService gRPC", "native bus")


class Verdict(NamedTuple):
    """One bar. value: None if it was not measured. is_floor: the value must be at least `bound`."""

    workload: str
    text: str
    value: float | None
    bound: float
    is_floor: bool = True

    @property
    def is_met(self) -> bool | None:
        """None: not measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.is_floor else self.value <= self.bound


def verdicts(table: Table) -> list[Verdict]:
    """All bars, in the order of the workloads."""
    parts: tuple[Callable[[Table], Iterable[Verdict]], ...] = (_w1, _w2, _w3, _w4, _w5, _w6, _w7)
    return [verdict for part in parts for verdict in part(table)]


def _least(values: Iterable[float | None]) -> float | None:
    """The worst of several floors; None if one was not measured."""
    listed = list(values)
    return None if None in listed or not listed else min(listed)  # type: ignore[type-var]


def _most(values: Iterable[float | None]) -> float | None:
    """The worst of several roofs; None if one was not measured."""
    listed = list(values)
    return None if None in listed or not listed else max(listed)  # type: ignore[type-var]


def _w1(table: Table) -> Iterable[Verdict]:
    def against(door: str, x: int, *peers: str, own: str = EMBEDDED) -> float | None:
        mine = Cell("w1", own, door, x)
        return _least(table.ratio(mine, Cell("w1", peer, door, x), "rate") for peer in peers)

    def slower(door: str, own: str) -> float | None:
        mine = Cell("w1", own, door, 1)
        peers = (TRITON, TRITON_OFF)
        return _most(table.ratio(mine, Cell("w1", peer, door, 1), "p50_ms") for peer in peers)

    yield Verdict("w1", "REST c=64, over Mosec batching", against("REST", 64, MOSEC), 1.15)
    yield Verdict("w1", "REST c=64, over Triton", against("REST", 64, TRITON, TRITON_OFF), 1.5)
    yield Verdict("w1", "REST c=8, over Triton", against("REST", 8, TRITON, TRITON_OFF), 1.0)
    yield Verdict("w1", "gRPC c=64, over Triton batching", against("gRPC", 64, TRITON), 1.25)
    yield Verdict("w1", "gRPC c=8, over Triton batching", against("gRPC", 8, TRITON), 1.0)
    for door in ("REST", "gRPC"):
        value = slower(door, EMBEDDED)
        yield Verdict("w1", f"{door} c=1, p50 over Triton's better one", value, 1.0, False)
        value = slower(door, IN_PROCESS)
        yield Verdict("w1", f"the same, {door} in-process", value, 0.8, False)
    own = Cell("w1", EMBEDDED, "MSService gRPC", 64), Cell("w1", EMBEDDED, "gRPC", 64)
    yield Verdict("w1", "MSService gRPC c=64, over our gRPC", table.ratio(*own, "rate"), 0.9)
    bus = Cell("w1", EMBEDDED, "native bus", 256)
    value = table.ratio(bus, Cell("w1", TRITON, "gRPC", 64), "rate")
    yield Verdict("w1", "native bus, window 256, over Triton gRPC c=64", value, 2.5)
    bus = Cell("w1", STANDALONE, "native bus", 256)
    value = table.ratio(bus, Cell("w1", "Python broker", "native bus", 256), "rate")
    yield Verdict("w1", "standalone broker, over the bare Python broker", value, 0.6)


def _shares(
    table: Table,
    workload: str,
    system: str,
    x: int,
    ideal_per_s: float,
    bounds: tuple[float, float],
) -> Iterable[Verdict]:
    """Of the ideal, and p99 over p50, each through the worst of our doors."""
    cells = [Cell(workload, system, door, x) for door in OWN_DOORS]
    rates = _least(table.value(cell, "rate") for cell in cells)
    share = None if rates is None else rates / ideal_per_s
    yield Verdict(workload, "share of the ideal, worst door", share, bounds[0])
    tails = _most(table.ratio(cell, cell, "p99_ms", "p50_ms") for cell in cells)
    yield Verdict(workload, "p99 / p50, worst door", tails, bounds[1], False)


def _w2(table: Table) -> Iterable[Verdict]:
    ideal = models.W2_IDEAL_PER_S
    yield from _shares(table, "w2", EMBEDDED, W2_CONCURRENCY, ideal, (0.95, 1.15))
    cells = [Cell("w2", "MindBus, 3 ms of Python", door, W2_CONCURRENCY) for door in OWN_DOORS]
    rate = _least(table.value(cell, "rate") for cell in cells)
    share = None if rate is None else rate / ideal
    yield Verdict("w2", "the same with 3 ms of Python per batch", share, 0.9)


def _w3(table: Table) -> Iterable[Verdict]:
    for x in (1, 4):
        triton = Cell("w3", "Triton", "gRPC", x)
        value = table.ratio(Cell("w3", EMBEDDED, "gRPC", x), triton, "rate")
        yield Verdict("w3", f"gRPC c={x}, over Triton", value, 1.0)
        value = table.ratio(Cell("w3", EMBEDDED, "native bus", x), triton, "rate")
        yield Verdict("w3", f"native bus c={x}, over Triton gRPC", value, 6.0)


def _w4(table: Table) -> Iterable[Verdict]:
    ideal = models.W4_IDEAL_PER_S
    yield from _shares(table, "w4", EMBEDDED, W4_CONCURRENCY, ideal, (0.97, 1.05))
    rate = table.value(Cell("w4", w4.MANY_NAME, "gRPC", w4.MANY_CONCURRENCY), "rate")
    share = None if rate is None else rate / w4.MANY_IDEAL_PER_S
    yield Verdict("w4", f"{w4.MANY} workers without processes, share of the ideal", share, 0.9)


def _w5(table: Table) -> Iterable[Verdict]:
    cell = Cell("w5", EMBEDDED, "first door", 1)
    value = table.value(cell, "first_answer_s")
    yield Verdict("w5", "first right answer, s", value, 1.0, False)
    value = table.value(cell, "pss_above_worker_mib")
    yield Verdict("w5", "memory above the worker's own, MiB", value, 120, False)


def _w6(table: Table) -> Iterable[Verdict]:
    titles = dict.fromkeys(
        cell.door.split(": ")[0] for cell in table.cells("w6") if ": " in cell.door
    )
    for title in titles:
        loop = Cell("w6", "bare loop", title.split(",")[0], 1)
        cells = [
            cell
            for cell in table.cells("w6")
            if cell.system == EMBEDDED and cell.door.startswith(f"{title}: ")
        ]
        value = _least(table.ratio(cell, loop, "instances_per_s") for cell in cells)
        yield Verdict("w6", f"{title}, over the bare loop, worst door", value, 0.95)


def _w7(table: Table) -> Iterable[Verdict]:
    for name, scales in w7.RANGES.items():
        first = Cell("w7", name, "gRPC", scales[0])
        growth = _most(
            table.ratio(Cell("w7", name, "gRPC", scale), first, f"{kind}_us")
            for kind in w7.kinds_of(name)
            for scale in scales[1:]
        )
        text = f"{name} {scales[0]} to {scales[-1]:,}: largest growth of a process's cost"
        yield Verdict("w7", text, growth, 1.1, False)
