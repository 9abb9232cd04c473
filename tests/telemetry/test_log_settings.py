"""The destination and form of the log, one row for each variable's rule."""

import pytest

from telemetry.log_settings import read_settings

TO_STDERR = (
    "Incorrect value, The value of GLOG_logtostderr must be 0 or 1, "
    "Output log to console, configure to 1."
)


def _number(name: str, value: str) -> str:
    return f"Incorrect value, The value of {name} must be positive integer. {name}:{value}"


@pytest.mark.parametrize(
    ("environment", "directory", "warnings"),
    [
        ({}, None, ()),
        ({"GLOG_log_dir": "/d"}, None, ()),
        ({"GLOG_logtostderr": "", "GLOG_log_dir": "/d"}, None, ()),
        ({"GLOG_logtostderr": "1", "GLOG_log_dir": "/d"}, None, ()),
        ({"GLOG_logtostderr": "0", "GLOG_log_dir": "/d"}, "/d", ()),
        (
            {"GLOG_logtostderr": "0"},
            None,
            ("`GLOG_log_dir` is not set, output log to screen.",),
        ),
        ({"GLOG_logtostderr": "false", "GLOG_log_dir": "/d"}, None, (TO_STDERR,)),
        ({"GLOG_logtostderr": "2", "GLOG_log_dir": "/d"}, None, (TO_STDERR,)),
    ],
)
def test_files_are_used_only_when_asked_for_with_a_directory(
    environment: dict[str, str], directory: str | None, warnings: tuple[str, ...]
) -> None:
    settings = read_settings(environment)
    assert settings.directory == directory
    assert settings.warnings == warnings


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("0", 0),
        ("3", 3),
        ("4", 4),
        ("DEBUG", 0),
        ("INFO", 1),
        ("WARNING", 2),
        ("ERROR", 3),
        ("CRITICAL", 4),
        ("", 2),
    ],
)
def test_the_threshold_of_stderr_is_a_digit_or_a_name(text: str, level: int) -> None:
    settings = read_settings({"GLOG_stderrthreshold": text})
    assert (settings.stderr_level_min, settings.warnings) == (level, ())


@pytest.mark.parametrize("text", ["5", "warning", "-1", "loud"])
def test_another_threshold_is_warned_about_and_means_warning(text: str) -> None:
    settings = read_settings({"GLOG_stderrthreshold": text})
    assert settings.stderr_level_min == 2
    assert [warning.split(",")[0] for warning in settings.warnings] == [
        f"Incorrect log level:{text}"
    ]


@pytest.mark.parametrize(
    ("environment", "bytes_max", "backup_count", "warnings"),
    [
        ({}, 52428800, 30, ()),
        ({"logger_maxBytes": "1000", "logger_backupCount": "2"}, 1000, 2, ()),
        ({"GLOG_max_log_size": "3"}, 3 << 20, 30, ()),
        ({"GLOG_max_log_size": "3", "logger_maxBytes": "9"}, 9, 30, ()),
        ({"logger_maxBytes": "0"}, 0, 30, ()),
        ({"logger_maxBytes": "1k"}, 52428800, 30, (_number("logger_maxBytes", "1k"),)),
        ({"logger_backupCount": "-1"}, 52428800, 30, (_number("logger_backupCount", "-1"),)),
    ],
)
def test_rotation_has_a_size_and_a_count(
    environment: dict[str, str], bytes_max: int, backup_count: int, warnings: tuple[str, ...]
) -> None:
    settings = read_settings(environment)
    assert (settings.file_bytes_max, settings.backup_count) == (bytes_max, backup_count)
    assert settings.warnings == warnings


@pytest.mark.parametrize(
    ("text", "mode", "warned"),
    [("", 0o600, 0), ("0640", 0o640, 0), ("440", 0o640, 0), ("0o640", 0o600, 1), ("888", 0o600, 1)],
)
def test_the_mode_of_the_file_is_octal_and_its_owner_can_always_write(
    text: str, mode: int, warned: int
) -> None:
    settings = read_settings({"GLOG_logfile_mode": text})
    assert (settings.file_mode, len(settings.warnings)) == (mode, warned)


@pytest.mark.parametrize(
    ("text", "line_format", "warned"),
    [("", "glog", 0), ("glog", "glog", 0), ("JSON", "json", 0), ("xml", "glog", 1)],
)
def test_the_form_of_lines_is_glog_unless_json_is_asked_for(
    text: str, line_format: str, warned: int
) -> None:
    settings = read_settings({"MINDBUS_LOG_FORMAT": text})
    assert (settings.line_format, len(settings.warnings)) == (line_format, warned)
