"""docs/compatibility.md is made from its entries, and each entry is proved by tests that exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from docs.generate_compatibility import (
    DOCUMENT,
    Chapter,
    Statement,
    generated,
    problems,
    read_chapters,
)

CHAPTERS = read_chapters()
HERE = "tests/tidy/test_compatibility.py::test_the_document_is_generated_from_its_entries"
GOOD = Statement("2.1-1", "Water is wet.", "same", "", (HERE,))


def test_the_document_is_generated_from_its_entries() -> None:
    made = generated(CHAPTERS)
    assert made == DOCUMENT.read_text(), "run: python docs/generate_compatibility.py"


def test_each_statement_is_proved_by_tests_that_exist() -> None:
    assert problems(CHAPTERS) == []


def chapter(*statements: Statement) -> Chapter:
    return Chapter(2, "Wire", {"2.1": "Service"}, statements)


def test_a_chapter_without_mistakes_has_no_problem(tmp_path: Path) -> None:
    missing = Statement("2.1-2", "Ice is dry.", "missing", "It is not built.", ())
    assert problems([chapter(GOOD, missing)]) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tests": ()}, "2.1-1: no test is named, so the verdict can only be 'missing'"),
        ({"tests": (HERE, HERE)}, "2.1-1: a test is named twice"),
        ({"tests": (HERE + "_not",)}, f"2.1-1: there is no test {HERE}_not"),
        ({"tests": ("tests/no.py::test_x",)}, "2.1-1: there is no test tests/no.py::test_x"),
        ({"verdict": "fine"}, "2.1-1: verdict 'fine' is none of same, better, other, missing"),
        ({"verdict": "better"}, "2.1-1: verdict 'better' needs a reason"),
        ({"reason": "x"}, "2.1-1: a reason is for statements that are not the same"),
        ({"id": "2.1-2"}, "2.1-2: its number should be 2.1-1"),
        ({"id": "9.9-1"}, "9.9-1: chapter 2 has no section 9.9"),
    ],
)
def test_a_wrong_entry_is_a_problem(change: dict[str, object], problem: str) -> None:
    changed: Callable[..., Statement] = replace
    assert problem in problems([chapter(changed(GOOD, **change))])


def test_a_statement_without_a_test_is_listed_as_a_gap() -> None:
    missing = Statement("2.1-2", "Ice is dry | cold.", "missing", "It is not built.", ())
    document = generated([chapter(GOOD, missing)])
    assert "2 statements, 1 tests:" in document
    assert "Statements without a test (1):\n\n- 2.1-2: Ice is dry | cold.\n" in document
    assert "| 2.1-2 | Ice is dry \\| cold. | missing | It is not built. |  |\n" in document
