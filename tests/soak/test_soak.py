"""A soak of seconds, so that the soak itself is sound."""

from __future__ import annotations

import pytest

from tests.figures import Figures
from tests.soak.__main__ import soak

pytestmark = pytest.mark.process


@pytest.mark.shows("F35", "R19")
@pytest.mark.parametrize("mode", ["embedded", "standalone"])
def test_random_faults_leave_every_answer_right_and_the_books_balanced(
    mode: str, figures: Figures, is_full: bool
) -> None:
    seconds = 300.0 if is_full else 10.0
    assert soak(mode, 7, seconds) == []
    figures(soak_s=seconds)
