"""Write compatibility.md from compatibility/*.toml: `python docs/generate_compatibility.py`.

Each file is a chapter of MindSpore Serving's behaviour, each entry one statement that a user may
depend on: what it says, how MindBus stands to it, and the tests that prove that. What is wrong
with the entries is found by `problems`, which tests/tidy asks.
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "compatibility.md"
CHAPTERS = ROOT / "docs" / "compatibility"

#: What MindBus makes of a statement, and what the document says that the word means.
VERDICTS = {
    "same": "MindBus does the same",
    "better": "MindBus does something that serves its users better; the reason says why",
    "other": "MindBus does something else on purpose; the reason says what it costs",
    "missing": "MindBus does not do it yet; the reason says what happens instead",
}

HEAD = """\
# Compatibility with MindSpore Serving 2.0

What users of MindSpore Serving 2.0.2 can depend on, statement by statement, and the tests that
show what MindBus does about each. [Moving from MindSpore Serving](moving-from-mindspore-serving.md)
is the short form. Chapters and sections are numbered like the map of the original's behaviour that
MindBus is built by. This file is generated from the files in [compatibility/](compatibility): edit
those, then run `python docs/generate_compatibility.py`.
"""


@dataclass(frozen=True)
class Statement:
    """One sentence about MindSpore Serving.

    id: `<section>-<number>`, numbered from 1 in each section. reason: empty where the verdict is
    `same`. tests: `<file>::<function>`, without parameters.
    """

    id: str
    says: str
    verdict: str
    reason: str
    tests: tuple[str, ...]

    @property
    def section(self) -> str:
        """`2.2` of `2.2-3`."""
        return self.id.rpartition("-")[0]


@dataclass(frozen=True)
class Chapter:
    """One file: its number and title, the titles of its sections, its statements."""

    number: int
    title: str
    sections: dict[str, str]
    statements: tuple[Statement, ...]


def read_chapters(directory: Path = CHAPTERS) -> list[Chapter]:
    """All chapters in the order of their numbers. Raises KeyError, ValueError for a broken file."""
    chapters = []
    for path in sorted(directory.glob("*.toml")):
        content = tomllib.loads(path.read_text())
        statements = tuple(
            Statement(
                entry["id"],
                entry["says"],
                entry["verdict"],
                entry.get("reason", ""),
                tuple(entry.get("tests", ())),
            )
            for entry in content["statement"]
        )
        number = int(path.name.partition("-")[0])
        chapters.append(Chapter(number, content["title"], content["sections"], statements))
    return chapters


# ---------------------------------------------------------------- what is wrong with the entries


def problems(chapters: Sequence[Chapter], root: Path = ROOT) -> list[str]:
    """One line for each thing that is wrong; nothing is run."""
    found = [line for chapter in chapters for line in _misnumbered(chapter)]
    functions: dict[str, set[str]] = {}
    for chapter in chapters:
        for statement in chapter.statements:
            found += [f"{statement.id}: {text}" for text in _wrong_fields(statement)]
            for test in statement.tests:
                file, _, function = test.partition("::")
                if file not in functions:
                    functions[file] = test_functions(root / file)
                if function not in functions[file]:
                    found.append(f"{statement.id}: there is no test {test}")
    return found


def test_functions(path: Path) -> set[str]:
    """The names of the tests that a file defines; none if there is no such file."""
    if not path.is_file():
        return set()
    return {
        node.name
        for node in ast.parse(path.read_text(), str(path)).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def _misnumbered(chapter: Chapter) -> Iterator[str]:
    """Statements follow the order of their sections, numbered from 1 in each."""
    counts: Counter[str] = Counter()
    order = list(chapter.sections)
    last = 0
    for statement in chapter.statements:
        if statement.section not in chapter.sections:
            yield f"{statement.id}: chapter {chapter.number} has no section {statement.section}"
            continue
        counts[statement.section] += 1
        expected = f"{statement.section}-{counts[statement.section]}"
        if statement.id != expected:
            yield f"{statement.id}: its number should be {expected}"
        place = order.index(statement.section)
        if place < last:
            yield f"{statement.id}: its section comes before that of the statement above it"
        last = place
    for section in chapter.sections:
        if not counts[section]:
            yield f"{section}: the section has no statement"


def _wrong_fields(statement: Statement) -> Iterator[str]:
    if statement.verdict not in VERDICTS:
        yield f"verdict {statement.verdict!r} is none of {', '.join(VERDICTS)}"
    if statement.verdict == "same" and statement.reason:
        yield "a reason is for statements that are not the same"
    if statement.verdict != "same" and not statement.reason:
        yield f"verdict {statement.verdict!r} needs a reason"
    if statement.verdict != "missing" and not statement.tests:
        yield "no test is named, so the verdict can only be 'missing'"
    if len(set(statement.tests)) != len(statement.tests):
        yield "a test is named twice"


# ---------------------------------------------------------------- the document


def generated(chapters: Sequence[Chapter]) -> str:
    """The whole document."""
    lines = [HEAD, *_counts(chapters), *_gaps(chapters)]
    for chapter in chapters:
        lines += ["", f"## {chapter.number} {chapter.title}"]
        for section, title in chapter.sections.items():
            if section != str(chapter.number):
                lines += ["", f"### {section} {title}"]
            lines += ["", "| | statement | | why | tests |", "|---|---|---|---|---|"]
            lines += [
                _row(statement) for statement in chapter.statements if statement.section == section
            ]
    return "\n".join(lines) + "\n"


def _counts(chapters: Sequence[Chapter]) -> list[str]:
    counts = Counter(s.verdict for chapter in chapters for s in chapter.statements)
    rows = [f"| {verdict} | {counts[verdict]} | {VERDICTS[verdict]} |" for verdict in VERDICTS]
    tests = {test for chapter in chapters for s in chapter.statements for test in s.tests}
    return [
        f"{counts.total()} statements, {len(tests)} tests:",
        "",
        "| verdict | statements | it means |",
        "|---|---|---|",
        *rows,
    ]


def _gaps(chapters: Sequence[Chapter]) -> list[str]:
    gaps = [s for chapter in chapters for s in chapter.statements if not s.tests]
    if not gaps:
        return ["", "Each statement has a test."]
    return [
        "",
        f"Statements without a test ({len(gaps)}):",
        "",
        *(f"- {gap.id}: {gap.says}" for gap in gaps),
    ]


def _row(statement: Statement) -> str:
    tests = "<br>".join(_link(test) for test in statement.tests)
    cells = (statement.id, statement.says, statement.verdict, statement.reason, tests)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _link(test: str) -> str:
    file, _, function = test.partition("::")
    return f"[{function.removeprefix('test_')}](../{file})"


if __name__ == "__main__":
    DOCUMENT.write_text(generated(read_chapters()))
