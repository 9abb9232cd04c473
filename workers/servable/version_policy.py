"""Which versions of a servable run: the newest ones, all, or those that are named. Pure.

latest, latest=2    the newest that is there, the two newest
all                 every one that is there
3, 3+5              these
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

LATEST = "latest"
ALL = "all"

#: Versions that run at once; each is a process per device.
VERSIONS_MAX = 16

VERSION_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """What was asked for. named: these versions; else the `latest` newest, None = all of them."""

    named: tuple[int, ...] = ()
    latest: int | None = 1

    def versions(self, there: Collection[int]) -> tuple[int, ...]:
        """The versions that run, ascending. there: those that have a directory; may be empty.

        (0,) where none has and the newest are asked for: the servable needs no directory, or its
        worker says that it is missing.
        """
        if self.named:
            return self.named
        found = sorted(there)
        if self.latest is not None:
            found = found[-self.latest :]
        return tuple(found) or (0,)


def parse_version_policy(text: str) -> VersionPolicy:
    """Read the text form. 0 means the newest one, as everywhere. Raises: ValueError."""
    word, equals, count = text.partition("=")
    if word == LATEST:
        return VersionPolicy(latest=_number(count, VERSIONS_MAX) if equals else 1)
    if text == ALL:
        return VersionPolicy(latest=None)
    if text == "0":
        return VersionPolicy()
    named = tuple(sorted(_number(part, VERSION_MAX) for part in text.split("+")))
    if len(set(named)) != len(named):
        raise ValueError(f"{text!r} names a version twice")
    if len(named) > VERSIONS_MAX:
        raise ValueError(f"{text!r} names {len(named)} versions, versions_max is {VERSIONS_MAX}")
    return VersionPolicy(named)


def _number(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number, {LATEST}, {LATEST}=COUNT or {ALL}")
    number = int(text)
    if not 1 <= number <= most:
        raise ValueError(f"{number} is not in 1..{most}")
    return number
