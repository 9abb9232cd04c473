"""Files that take what workers print."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from telemetry.log import configure
from workers.supervisor.worker_log import WorkerLogs, log_file_name


def test_a_workers_log_has_the_name_that_mindspore_serving_gives_it() -> None:
    assert log_file_name("add", "device3", 2) == "log_add_device3_version2.log"
    assert log_file_name("add", "extra0", 2) == "log_add_extra0_version2.log"
    assert log_file_name("add", "distributed") == "log_add_distributed.log"


def _say(logs: WorkerLogs, path: Path, text: str, is_first: bool) -> None:
    descriptor = logs.open(path, is_first)
    assert descriptor is not None
    os.write(descriptor, text.encode())
    os.close(descriptor)


def test_a_first_start_begins_the_file_anew_and_a_restart_goes_on_in_it(tmp_path: Path) -> None:
    path = tmp_path / "serving_logs" / "log_add_device0_version1.log"
    logs = WorkerLogs()
    _say(logs, path, "of an earlier server\n", is_first=True)
    _say(logs, path, "first\n", is_first=True)
    _say(logs, path, "second\n", is_first=False)
    assert path.read_text() == "first\nsecond\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_directory_a_worker_writes_to_the_terminal() -> None:
    assert WorkerLogs().open(None, is_first=True) is None


@pytest.mark.shows("F30")
def test_a_directory_that_cannot_be_made_is_warned_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("pytest", {})
    (tmp_path / "serving_logs").write_text("a file is in the way")
    logs = WorkerLogs()
    for device in range(3):
        assert logs.open(tmp_path / "serving_logs" / f"{device}.log", is_first=True) is None
    said = capsys.readouterr().err
    assert said.count("worker log cannot be written, workers write to the terminal") == 1
    assert f"path={tmp_path}/serving_logs/0.log" in said
