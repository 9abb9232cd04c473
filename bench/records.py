"""Figures of a run as they are kept in JSON, and their medians. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

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


class Table:
    """Medians over the rounds, by workload, system, door, x and name of the value."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._values: dict[tuple[str, str, str, float], dict[str, list[float]]] = {}
        for record in records:
            key = (record.workload, record.system, record.door, record.x)
            for name, value in record.values.items():
                self._values.setdefault(key, {}).setdefault(name, []).append(value)

    def value(self, workload: str, system: str, door: str, x: float, name: str) -> float | None:
        """The median; None if nothing was measured."""
        return middle(self._values.get((workload, system, door, x), {}).get(name, []))

    def spread(self, workload: str, system: str, door: str, x: float, name: str) -> float:
        """Highest less lowest of the rounds, as a share of the median."""
        return spread(self._values.get((workload, system, door, x), {}).get(name, []))

    def rounds(self, workload: str) -> int:
        """How often a workload was measured: the most of any of its cells."""
        return max(
            (
                len(values)
                for key, names in self._values.items()
                if key[0] == workload
                for values in names.values()
            ),
            default=0,
        )

    def series(self, workload: str) -> list[tuple[str, str]]:
        """System and door of a workload's cells, in the order of their first measurement."""
        return list(dict.fromkeys(key[1:3] for key in self._values if key[0] == workload))

    def xs(self, workload: str, system: str | None = None, door: str | None = None) -> list[float]:
        """The x that were measured, ascending."""
        found = {
            key[3]
            for key in self._values
            if key[0] == workload and system in (None, key[1]) and door in (None, key[2])
        }
        return sorted(found)
