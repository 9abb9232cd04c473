"""Which versions of a servable run."""

from __future__ import annotations

import re

import pytest

from workers.servable.version_policy import VersionPolicy, parse_version_policy


@pytest.mark.parametrize(
    ("text", "there", "chosen"),
    [
        ("latest", [1, 3, 12], (12,)),
        ("0", [1, 3, 12], (12,)),
        ("latest=2", [12, 1, 3], (3, 12)),
        ("latest=5", [1, 3], (1, 3)),
        ("all", [3, 1, 12], (1, 3, 12)),
        ("3", [1, 3, 12], (3,)),
        ("12+1", [1, 3, 12], (1, 12)),
        ("latest", [], (0,)),
        ("all", [], (0,)),
        ("7", [], (7,)),
    ],
)
def test_a_policy_chooses_among_the_versions_that_are_there(
    text: str, there: list[int], chosen: tuple[int, ...]
) -> None:
    assert parse_version_policy(text).versions(there) == chosen


def test_without_a_word_the_newest_one_runs() -> None:
    assert VersionPolicy() == parse_version_policy("latest") == parse_version_policy("latest=1")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("new", "'new' is not a whole number, latest, latest=COUNT or all"),
        ("", "'' is not a whole number, latest, latest=COUNT or all"),
        ("1+", "'' is not a whole number, latest, latest=COUNT or all"),
        ("-1", "'-1' is not a whole number, latest, latest=COUNT or all"),
        ("1+0", "0 is not in 1..2147483647"),
        ("2147483648", "2147483648 is not in 1..2147483647"),
        ("latest=0", "0 is not in 1..16"),
        ("latest=17", "17 is not in 1..16"),
        ("latest=", "'' is not a whole number, latest, latest=COUNT or all"),
        ("3+4+3", "'3+4+3' names a version twice"),
        (
            "+".join(map(str, range(1, 18))),
            f"'{'+'.join(map(str, range(1, 18)))}' names 17 versions, versions_max is 16",
        ),
    ],
)
def test_what_is_not_a_policy_is_refused_with_the_reason(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        parse_version_policy(text)
