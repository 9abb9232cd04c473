"""How a process ended, in one word."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.supervisor.exit_reason import REASONS, exit_reason

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ((0, False, False, True, False), "planned"),
        ((-9, True, False, False, False), "hung"),
        ((-9, True, True, True, False), "killed"),
        ((3, False, False, False, True), "device"),
        ((-11, False, False, False, False), "signal"),
        ((3, False, False, False, False), "boot_failed"),
        ((4, False, False, False, False), "group_lost"),
        ((1, False, False, False, False), "exit"),
        ((0, False, False, False, False), "exit"),
        ((-9, False, False, True, False), "signal"),
    ],
)
def test_every_ending_has_one_reason(
    ending: tuple[int, bool, bool, bool, bool], reason: str
) -> None:
    assert exit_reason(*ending) == reason


def test_the_documentation_explains_every_reason() -> None:
    text = DOCUMENT.read_text()
    assert all(f"| {reason} | {meaning} |" in text for reason, meaning in REASONS.items())
