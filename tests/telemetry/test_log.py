"""The logger as a program uses it: levels, destinations, rotation, and life without a disk."""

import io
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from telemetry.log import configure, get_logger, write_access
from telemetry.rotating_file import RotatingFile

LINE = re.compile(
    r"\[(?P<level>[A-Z]+)\] SERVING\((?P<pid>\d+),[0-9a-f]+,(?P<program>[^)]+)\):"
    r"\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d\.\d{3}\.\d{3} "
    r"\[(?P<file>[^:\]]+):\d+\] (?P<function>[^\]]+)\] (?P<message>.*)"
)


@pytest.fixture(autouse=True)
def _restored_configuration() -> Iterator[None]:
    yield
    configure("pytest", {})


def _lines(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Log at every level under this environment; level and message of the lines that came."""
    stream = io.StringIO()
    configure("test", environment, stream)
    log = get_logger("SERVING")
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    log.critical("c")
    matches = [LINE.fullmatch(line) for line in stream.getvalue().splitlines()]
    return [(match["level"], match["message"]) for match in matches if match]


ALL = [("DEBUG", "d"), ("INFO", "i"), ("WARNING", "w"), ("ERROR", "e"), ("EXCEPTION", "c")]


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4])
def test_lines_below_glog_v_are_not_written(level: int) -> None:
    assert _lines({"GLOG_v": str(level)}) == ALL[level:]


def test_the_default_level_is_warning() -> None:
    assert _lines({}) == ALL[2:]


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_serving_overrides_glog_v(level: int) -> None:
    environment = {"GLOG_v": "3", "MS_SUBMODULE_LOG_v": f"{{SERVING:{level}}}"}
    assert _lines(environment) == ALL[level:]


def test_a_bad_setting_is_said_first_and_survived() -> None:
    lines = _lines({"GLOG_v": "abc"})
    assert lines[0][0] == "WARNING"
    assert lines[0][1].startswith("Incorrect log level:abc, ")
    assert lines[1:] == ALL[2:]


def test_the_warning_about_a_bad_setting_obeys_glog_v() -> None:
    assert _lines({"GLOG_v": "3", "MS_SUBMODULE_LOG_v": "{"}) == ALL[3:]


def test_a_line_names_program_process_file_and_function() -> None:
    stream = io.StringIO()
    configure("gateway", {}, stream)
    get_logger("GATEWAY").warning("door opened", address="127.0.0.1:5500")
    match = LINE.fullmatch(stream.getvalue().rstrip("\n"))
    assert match is not None
    assert match["program"] == "gateway"
    assert match["pid"] == str(os.getpid())
    assert match["file"] == "tests/telemetry/test_log.py"
    assert match["function"] == "test_a_line_names_program_process_file_and_function"
    assert match["message"] == "door opened address=127.0.0.1:5500"


def test_a_filtered_level_never_renders_its_values() -> None:
    class Explosive:
        def __str__(self) -> str:
            raise AssertionError("rendered")

    stream = io.StringIO()
    configure("test", {"GLOG_v": "2"}, stream)
    get_logger("BROKER").info("quiet", value=Explosive())
    get_logger("BROKER").debug("quiet", value=Explosive())
    assert stream.getvalue() == ""


def test_a_logger_taken_before_configure_obeys_it_afterwards() -> None:
    log = get_logger("WORKER")
    stream = io.StringIO()
    configure("test", {"GLOG_v": "3"}, stream)
    log.warning("no")
    configure("test", {"MS_SUBMODULE_LOG_v": "{WORKER:0}"}, stream)
    log.debug("yes")
    assert [line.rsplit("] ", 1)[1] for line in stream.getvalue().splitlines()] == ["yes"]
    assert (log.is_enabled(0), get_logger("BROKER").is_enabled(1)) == (True, False)


def test_an_exception_is_logged_with_its_traceback() -> None:
    stream = io.StringIO()
    configure("test", {}, stream)
    try:
        raise ValueError("why")
    except ValueError:
        get_logger().exception("stage failed", method="m")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("] stage failed method=m")
    assert (rest[0], rest[-1]) == ("Traceback (most recent call last):", "ValueError: why")


def test_json_lines_are_objects_with_the_submodule() -> None:
    stream = io.StringIO()
    configure("test", {"MINDBUS_LOG_FORMAT": "json"}, stream)
    get_logger("PROTOCOL").error("bad head", bytes=3)
    facts = json.loads(stream.getvalue())
    assert (facts["submodule"], facts["level"], facts["message"], facts["bytes"]) == (
        "PROTOCOL",
        "ERROR",
        "bad head",
        3,
    )


def test_a_line_of_the_access_log_is_written_whatever_the_level() -> None:
    facts = {"request_id": "r 1", "code": "OK", "duration_ms": 1.5}
    stream = io.StringIO()
    configure("gateway", {"GLOG_v": "3"}, stream)
    write_access(facts)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("[INFO] SERVING(")
    assert line.endswith('] access request_id="r 1" code=OK duration_ms=1.5')
    stream = io.StringIO()
    configure("gateway", {"MINDBUS_LOG_FORMAT": "json"}, stream)
    write_access(facts)
    shown = json.loads(stream.getvalue())
    assert shown["message"] == "access"
    assert facts.items() <= shown.items()


def _to_files(directory: Path, **more: str) -> dict[str, str]:
    return {"GLOG_logtostderr": "0", "GLOG_log_dir": str(directory), "GLOG_v": "1", **more}


def test_files_take_every_line_and_stderr_the_grave_ones(tmp_path: Path) -> None:
    stream = io.StringIO()
    configure("test", _to_files(tmp_path / "new", GLOG_stderrthreshold="3"), stream)
    get_logger().info("first")
    get_logger().error("second")
    path = tmp_path / "new" / f"mindspore_serving.log.{os.getpid()}"
    assert [line[-6:] for line in path.read_text().splitlines()] == [" first", "second"]
    assert [line[-6:] for line in stream.getvalue().splitlines()] == ["second"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_process_that_logs_nothing_leaves_no_file(tmp_path: Path) -> None:
    configure("test", _to_files(tmp_path), io.StringIO())
    get_logger().debug("filtered")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.shows("F30")
def test_an_unwritable_directory_is_said_once_and_lines_go_to_stderr(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stream = io.StringIO()
    configure("test", _to_files(tmp_path / "file"), stream)
    get_logger().info("one")
    get_logger("BROKER").info("two")
    messages = [line.split("] ", 3)[3] for line in stream.getvalue().splitlines()]
    assert messages[0].startswith("log file cannot be written, output log to screen path=")
    assert messages[1:] == ["one", "two"]


def test_a_closed_stderr_is_no_error_of_the_caller() -> None:
    stream = io.StringIO()
    configure("test", {}, stream)
    log = get_logger()
    log.warning("heard")
    heard = stream.getvalue().endswith("] heard\n")
    stream.close()
    log.warning("nobody hears")
    assert heard


def test_rotated_files_are_read_only_and_only_so_many_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    file = RotatingFile(path, bytes_max=8, backup_count=2, mode=0o600)
    for number in range(5):
        file.write(b"line %d\n" % number)
    file.close()
    contents = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    assert contents == {"x.log": b"line 4\n", "x.log.1": b"line 3\n", "x.log.2": b"line 2\n"}
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
    assert modes == {"x.log": 0o600, "x.log.1": 0o400, "x.log.2": 0o400}


def test_a_line_larger_than_the_limit_gets_a_file_of_its_own(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "x.log", bytes_max=4, backup_count=9, mode=0o600)
    file.write(b"longer than four\n")
    file.write(b"b\n")
    file.close()
    assert (tmp_path / "x.log.1").read_bytes() == b"longer than four\n"
    assert (tmp_path / "x.log").read_bytes() == b"b\n"


@pytest.mark.parametrize(("bytes_max", "backup_count"), [(0, 3), (4, 0)])
def test_a_zero_limit_means_no_rotation(tmp_path: Path, bytes_max: int, backup_count: int) -> None:
    file = RotatingFile(tmp_path / "x.log", bytes_max, backup_count, mode=0o600)
    for _ in range(3):
        file.write(b"12345\n")
    file.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.log"]


def test_logging_leaves_the_environment_as_the_user_set_it(tmp_path: Path) -> None:
    before = dict(os.environ)
    configure("test", _to_files(tmp_path, MS_SUBMODULE_LOG_v="{SERVING:0}"), io.StringIO())
    get_logger().debug("line")
    assert dict(os.environ) == before
