"""Figures of a run as they are kept in JSON, and their medians. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from bench.figures import Figures, middle, spread


@dataclass(frozen=True)
class Record:
    """One measurement of one round.

    system: who was measured. door: through what. x: concurrency, or the scale of W7. values: by
    name, such as `rate`, `p50_ms`. load: load average before it. stolen: share of the cores that
    the host took meanwhile.
    """

    workload: str
    system: str
    door: str
    x: float
    round: int
    values: dict[str, float]
    load: float = 0.0
    stolen: float = 0.0


@dataclass
class Run:
    """Everything of one run. missing: who was not measured, and why."""

    machine: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> str:
        """As text, one record per line, so that two runs can be compared."""
        whole = asdict(self)
        records = ",\n  ".join(json.dumps(record) for record in whole.pop("records"))
        head = json.dumps(whole, indent=1)[:-2]
        return f'{head},\n "records": [\n  {records}\n ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Run:
        """What `to_json` wrote."""
        whole = json.loads(text)
        whole["records"] = [Record(**record) for record in whole["records"]]
        return cls(**whole)


def values_of(figures: Figures) -> dict[str, float]:
    """The figures of a load as a record keeps them."""
    return {
        "rate": figures.rate,
        "p50_ms": figures.p50_ms,
        "p99_ms": figures.p99_ms,
        "failed": figures.failed,
    }


class Cell(NamedTuple):
    """What a record measures, without its round."""

    workload: str
    system: str
    door: str
    x: float


class Table:
    """The values of all rounds, by cell and name, and what follows from them."""

    def __init__(self, records: Iterable[Record]) -> None:
        #: Values by round.
        self._values: dict[Cell, dict[str, dict[int, float]]] = {}
        for record in records:
            cell = Cell(record.workload, record.system, record.door, record.x)
            names = self._values.setdefault(cell, {})
            for name, value in record.values.items():
                names.setdefault(name, {})[record.round] = value

    def cells(self, workload: str) -> list[Cell]:
        """The cells of a workload, in the order of their first measurement."""
        return [cell for cell in self._values if cell.workload == workload]

    def value(self, cell: Cell, name: str) -> float | None:
        """The median over the rounds; None if nothing was measured."""
        return middle(list(self._of(cell, name).values()))

    def spread(self, cell: Cell, name: str) -> float:
        """Highest less lowest of the rounds, as a share of the median."""
        return spread(list(self._of(cell, name).values()))

    def ratio(self, one: Cell, other: Cell, name: str, other_name: str = "") -> float | None:
        """The median of the rounds' ratios; None if no round has both."""
        ones, others = self._of(one, name), self._of(other, other_name or name)
        return middle([ones[turn] / others[turn] for turn in ones if others.get(turn)])

    def rounds(self, workload: str) -> int:
        """How often a workload was measured: the most of any of its cells."""
        counts = [
            len(values) for cell in self.cells(workload) for values in self._values[cell].values()
        ]
        return max(counts, default=0)

    def total(self, workload: str, name: str) -> float:
        """The sum over all cells and rounds."""
        cells = self.cells(workload)
        return sum(value for cell in cells for value in self._of(cell, name).values())

    def _of(self, cell: Cell, name: str) -> dict[int, float]:
        return self._values.get(cell, {}).get(name, {})
