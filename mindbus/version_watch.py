"""Looks for new version directories of a servable: `mindbus reload SERVABLE --watch`.

A directory may be looked at while it is being copied, so a version counts once it looked the same
twice. One that could not be rolled out is tried again only when it has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from workers.servable.loader import version_directory, version_numbers

#: What a version directory looks like: files, bytes, and when the latest of them was written.
Look = tuple[int, int, int]


class VersionWatch:
    """Tells which version is to be rolled out next. Pure."""

    def __init__(self, running: int) -> None:
        """running: the newest version that runs already."""
        self._running = running
        self._seen: dict[int, Look] = {}
        self._failed: dict[int, Look] = {}

    def look(self, there: Mapping[int, Look]) -> int | None:
        """The newest version that is newer than what runs, has come to rest, and has not failed."""
        seen, self._seen = self._seen, dict(there)
        due = [
            version
            for version, look in there.items()
            if version > self._running
            and seen.get(version) == look
            and self._failed.get(version) != look
        ]
        return max(due, default=None)

    def succeeded(self, version: int) -> None:
        """The version runs now."""
        self._running = version

    def failed(self, version: int) -> None:
        """The version was not rolled out; it is left alone until its files change."""
        self._failed[version] = self._seen[version]


def look_at_versions(directory: str, servable: str) -> dict[int, Look]:
    """Every version directory as it looks now; one that is vanishing is left out."""
    looks = {}
    for version in version_numbers(directory, servable):
        try:
            looks[version] = _look_at(version_directory(directory, servable, version))
        except OSError:
            continue
    return looks


def _look_at(directory: Path) -> Look:
    stats = [path.stat() for path in directory.rglob("*") if path.is_file()]
    times = [stat.st_mtime_ns for stat in stats]
    return len(stats), sum(stat.st_size for stat in stats), max(times, default=0)
