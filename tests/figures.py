"""What tests of faults measured: printed at the end of every run, and written to a file on demand.

    @pytest.mark.shows("F1", "R4")
    def test_…(figures: Figures) -> None:
        figures(detected_ms=12.3, recovered_ms=340)

`shows` names the lines of docs/reliability.md that a test proves. `--figures FILE` writes what the
run showed, from which that document is made; `--full` has tests take as long as the requirement
says, where they are shorter otherwise.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Notes one or more figures of the running test by name; the unit is the end of the name.
Figures = Callable[..., None]

_MEASURED = pytest.StashKey[dict[str, float]]()
_SHOWS = "shows"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare `--figures` and `--full`."""
    parser.addoption("--figures", type=Path, metavar="FILE", help="write what faults showed")
    parser.addoption("--full", action="store_true", help="the full length of long fault tests")


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing."""
    config.pluginmanager.register(Shown(config))


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Take figures of this test; a name that comes again replaces its value."""
    measured = request.node.stash.setdefault(_MEASURED, {})

    def note(**values: float) -> None:
        measured.update({name: round(value, 3) for name, value in values.items()})

    return note


@pytest.fixture
def is_full(request: pytest.FixtureRequest) -> bool:
    """Whether this run may take as long as it takes."""
    return bool(request.config.getoption("--full"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Let the report of a test that shows something say so; it may come from another process."""
    report = yield
    shows = sorted({each for mark in item.iter_markers("shows") for each in mark.args})
    if report.when == "call" and shows:
        figures = item.stash.get(_MEASURED, {})
        report.user_properties.append((_SHOWS, {"shows": shows, "figures": figures}))
    return report


class Shown:
    """What the tests of this run have shown, in whatever process each of them ran."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._entries: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test came to, if it shows something."""
        shown = dict(report.user_properties).get(_SHOWS)
        if shown is not None and report.when == "call":
            entry = {"test": report.nodeid, "outcome": report.outcome, **shown}
            self._entries.append({**entry, "seconds": round(report.duration, 1)})

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the figures, a line per test, and write the file."""
        lines = [
            f"{' '.join(entry['shows']):<8} {entry['test'].rpartition('::')[2]}: "
            + ", ".join(f"{name} {value:g}" for name, value in entry["figures"].items())
            for entry in self._entries
            if entry["figures"]
        ]
        if lines:
            terminalreporter.section("figures of faults")
            for line in lines:
                terminalreporter.write_line(line)
        path = self._config.getoption("--figures")
        if path is not None:
            path.write_text(json.dumps(self._content(), indent=1) + "\n")

    def _content(self) -> dict[str, Any]:
        python = platform.python_version()
        return {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {python}",
            "length": "full" if self._config.getoption("--full") else "short",
            "tests": self._entries,
        }
