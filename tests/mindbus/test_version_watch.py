"""When a new version directory is rolled out."""

from __future__ import annotations

from pathlib import Path

from mindbus.version_watch import VersionWatch, look_at_versions

OLD = (1, 10, 100)
NEW = (2, 20, 200)


def test_a_newer_version_is_due_once_it_looked_the_same_twice() -> None:
    watch = VersionWatch(1)
    assert watch.look({1: OLD}) is None
    assert watch.look({1: OLD, 2: (1, 5, 150)}) is None
    assert watch.look({1: OLD, 2: NEW}) is None, "it is still being copied"
    assert watch.look({1: OLD, 2: NEW}) == 2
    watch.succeeded(2)
    assert watch.look({1: OLD, 2: NEW}) is None


def test_the_newest_one_is_next_and_older_ones_are_left_alone() -> None:
    watch = VersionWatch(5)
    there = {3: OLD, 6: OLD, 9: OLD}
    watch.look(there)
    assert watch.look(there) == 9
    watch.succeeded(9)
    assert watch.look(there) is None


def test_one_that_failed_is_tried_again_only_after_a_change() -> None:
    watch = VersionWatch(1)
    watch.look({2: OLD})
    assert watch.look({2: OLD}) == 2
    watch.failed(2)
    assert watch.look({2: OLD}) is None
    assert watch.look({2: NEW}) is None
    assert watch.look({2: NEW}) == 2


def test_a_version_looks_different_when_any_of_its_files_does(tmp_path: Path) -> None:
    version = tmp_path / "scale" / "2"
    version.mkdir(parents=True)
    assert look_at_versions(str(tmp_path), "scale") == {2: (0, 0, 0)}
    (version / "sub").mkdir()
    (version / "sub" / "a").write_bytes(b"abc")
    first = look_at_versions(str(tmp_path), "scale")[2]
    assert first[:2] == (1, 3)
    (version / "sub" / "a").write_bytes(b"abcd")
    assert look_at_versions(str(tmp_path), "scale")[2] != first
