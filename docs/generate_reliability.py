"""Write reliability.md from reliability/*.toml and what the tests showed: `make faults`.

Each entry is a line that MindBus promises something about. Its tests are those that bear its id in
`@pytest.mark.shows`; its figures are those of the last run, in reliability/figures.json. What is
wrong with the entries is found by `problems`, which tests/tidy asks.
"""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "reliability.md"
ENTRIES = ROOT / "docs" / "reliability"
FIGURES = ENTRIES / "figures.json"

#: The files of the entries, their headings, and the ids that must be there.
CHAPTERS = {
    "faults": ("Faults", tuple(f"F{number}" for number in range(1, 36))),
    "requirements": ("What users suffer from", tuple(f"R{number}" for number in range(1, 31))),
}

HEAD = """\
# Reliability

What MindBus promises when something breaks, the tests that show it, and what they measured in their
last run ({date}, {machine}, {length} length). This file is written by `make faults`, which runs
them at full length; the promises stand in [reliability/](reliability), the tests name them by
`@pytest.mark.shows`.

## What is promised, and what is not

- **Exactly one reply per accepted request**, or none if its client cancelled, left or wanted none.
  Accepted means: in the broker's memory. A broker that is killed takes that with it; its clients
  are told.
- **At most two executions** of a request. When a worker dies, what it had begun to compute is
  computed once more, by a worker that holds nothing else; so an inference may run twice, but its
  client gets one answer. Executions cannot be promised to happen exactly once.
- **Accepted = answered + failed + cancelled**, at any time when nothing runs.
- A deadline is kept on time, whether the request waits or runs.
- Not promised: durability over a death of the broker, order between requests, and anything that was
  not run on hardware (Ascend and GPU are the same code with another device target).
"""


@dataclass(frozen=True)
class Entry:
    """One line. missing: why no test shows it, where that is so."""

    id: str
    what: str
    promise: str
    not_promised: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Proof:
    """A test that shows lines. id: `<file>::<function>`."""

    id: str
    shows: tuple[str, ...]


def read_entries(directory: Path = ENTRIES) -> dict[str, list[Entry]]:
    """The entries of each chapter. Raises TypeError, KeyError for a broken file."""
    return {
        chapter: [
            Entry(**line)
            for line in tomllib.loads((directory / f"{chapter}.toml").read_text())["line"]
        ]
        for chapter in CHAPTERS
    }


def read_tests(root: Path = ROOT) -> list[Proof]:
    """Every test that shows something, by file and place."""
    return [
        Proof(f"{path.relative_to(root)}::{function.name}", shows)
        for path in sorted((root / "tests").rglob("test_*.py"))
        for function in ast.parse(path.read_text(), str(path)).body
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        if (shows := tuple(_shown_by(function)))
    ]


def _shown_by(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if (
            isinstance(decorator, ast.Call)
            and isinstance(decorator.func, ast.Attribute)
            and decorator.func.attr == "shows"
        ):
            for argument in decorator.args:
                assert isinstance(argument, ast.Constant), ast.dump(argument)
                yield str(argument.value)


# ---------------------------------------------------------------- what is wrong with the entries


def problems(entries: Mapping[str, Sequence[Entry]], tests: Sequence[Proof]) -> list[str]:
    """One line for each thing that is wrong; nothing is run."""
    found = []
    for chapter, (_, ids) in CHAPTERS.items():
        there = tuple(entry.id for entry in entries[chapter])
        if there != ids:
            found.append(f"{chapter}: its ids should be {ids[0]} to {ids[-1]}, in this order")
    known = {entry.id: entry for chapter in entries.values() for entry in chapter}
    shown = {id_ for test in tests for id_ in test.shows}
    found += [f"{id_}: no such line, but a test shows it" for id_ in sorted(shown - set(known))]
    for entry in known.values():
        if entry.id not in shown and not entry.missing:
            found.append(f"{entry.id}: no test shows it, and nothing says why")
    return found


# ---------------------------------------------------------------- the document


def generated(
    entries: Mapping[str, Sequence[Entry]], tests: Sequence[Proof], run: Mapping[str, Any]
) -> str:
    """The whole document. run: what `pytest --figures` wrote."""
    lines = [HEAD.format(date=run["date"], machine=run["machine"], length=run["length"])]
    for chapter, (title, _) in CHAPTERS.items():
        lines += ["", f"## {title}", ""]
        lines += ["| | what | promised | shown by | last run |", "|---|---|---|---|---|"]
        lines += [_row(entry, tests, run["tests"]) for entry in entries[chapter]]
    return "\n".join(lines) + "\n"


def _row(entry: Entry, tests: Sequence[Proof], ran: Sequence[Mapping[str, Any]]) -> str:
    promise = entry.promise
    for text in (entry.not_promised, entry.missing):
        promise += f"<br>*Not promised:* {text}" if text else ""
    shown_by = [test for test in tests if entry.id in test.shows]
    cells = (
        entry.id,
        entry.what,
        promise,
        "<br>".join(map(_link, shown_by)) or "-",
        "<br>".join(_came_to(test, ran) for test in shown_by) or "-",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _link(test: Proof) -> str:
    file, _, function = test.id.partition("::")
    return f"[{function.removeprefix('test_').replace('_', ' ')}](../{file})"


def _came_to(test: Proof, ran: Sequence[Mapping[str, Any]]) -> str:
    """What a test showed in the run, over all its cases."""
    cases = [case for case in ran if case["test"].partition("[")[0] == test.id]
    if not cases:
        return "not run"
    failed = sum(case["outcome"] != "passed" for case in cases)
    texts = [f"{failed} of {len(cases)} failed"] if failed else []
    names = dict.fromkeys(name for case in cases for name in case["figures"])
    for name in names:
        values = [case["figures"][name] for case in cases if name in case["figures"]]
        low, high = (_number(value) for value in (min(values), max(values)))
        said, _, unit = name.rpartition("_")
        measure = low if low == high else f"{low} to {high}"
        texts.append(f"{said.replace('_', ' ')} {measure} {unit}" if said else f"{unit} {measure}")
    return ", ".join(texts) or "passed"


def _number(value: float) -> str:
    """At most three digits, unless there are more before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    run_ = json.loads(FIGURES.read_text())
    DOCUMENT.write_text(generated(read_entries(), read_tests(), run_))
