"""docs/reliability.md is made from its entries, the tests that name them, and what these showed."""

from __future__ import annotations

import json
from pathlib import Path

from docs.generate_reliability import (
    CHAPTERS,
    DOCUMENT,
    FIGURES,
    Entry,
    Proof,
    generated,
    problems,
    read_entries,
    read_tests,
)

ENTRIES = read_entries()
TESTS = read_tests()
PLACE = "tests/x.py::test_it_rains"
ALL = {
    chapter: [Entry(id_, "water", "it is wet") for id_ in ids]
    for chapter, (_, ids) in CHAPTERS.items()
}
EVERY_ID = tuple(entry.id for chapter in ALL.values() for entry in chapter)


def case(case_: str, outcome: str = "passed", **figures: float) -> dict[str, object]:
    return {"test": PLACE + case_, "outcome": outcome, "figures": figures}


def row(*cases: dict[str, object]) -> str:
    run = {"date": "today", "machine": "this", "length": "full", "tests": cases}
    document = generated(ALL, [Proof(PLACE, ("F1",))], run)
    return next(line for line in document.splitlines() if line.startswith("| F1 |"))


def test_the_document_is_generated_from_its_entries_and_the_last_run() -> None:
    made = generated(ENTRIES, TESTS, json.loads(FIGURES.read_text()))
    assert made == DOCUMENT.read_text(), "run: make faults (or python docs/generate_reliability.py)"


def test_each_line_is_shown_by_a_test_or_says_why_not() -> None:
    assert problems(ENTRIES, TESTS) == []


def test_in_the_last_run_everything_passed() -> None:
    ran = json.loads(FIGURES.read_text())["tests"]
    assert {case["outcome"] for case in ran} == {"passed"}


def test_what_is_wrong_is_a_problem() -> None:
    assert problems(ALL, [Proof(PLACE, EVERY_ID)]) == []
    assert problems(ALL, [Proof(PLACE, EVERY_ID[1:])]) == [
        "F1: no test shows it, and nothing says why"
    ]
    assert problems(ALL, [Proof(PLACE, (*EVERY_ID, "F99"))]) == [
        "F99: no such line, but a test shows it"
    ]
    assert problems({**ALL, "faults": ALL["faults"][1:]}, [Proof(PLACE, EVERY_ID[1:])]) == [
        "faults: its ids should be F1 to F35, in this order"
    ]


def test_figures_are_shown_over_all_cases_of_a_test() -> None:
    assert row().endswith("| not run |")
    assert row(case("")).endswith("| passed |")
    assert row(case("[a]", found_ms=12.34, runs=3), case("[b]", found_ms=250)).endswith(
        "| found 12.3 to 250 ms, runs 3 |"
    )
    assert row(case("[a]"), case("[b]", "failed")).endswith("| 1 of 2 failed |")


def test_a_test_that_shows_something_is_found_by_its_decorator(tmp_path: Path) -> None:
    room = tmp_path / "tests"
    room.mkdir()
    (room / "test_x.py").write_text(
        "@pytest.mark.shows('F1', 'R2')\ndef test_a(): ...\n\ndef test_b(): ...\n"
    )
    assert read_tests(tmp_path) == [Proof("tests/test_x.py::test_a", ("F1", "R2"))]
