"""Where log lines go and how they look, read from the environment as a frozen value.

MindSpore Serving's C++ core (glog) and its Python package read the same variables by different
rules; here each variable has one. Values that worked in both keep their meaning; a value that
was an error in either gives a warning and the default, because a server must not die of its log:

- `GLOG_logtostderr`: unset, empty or `1` is stderr, `0` is files. Else a warning, and stderr.
- `GLOG_log_dir`: directory of the files, made if missing; without it `0` above falls back to
  stderr with glog's warning. The file is `mindspore_serving.log.<pid>`.
- `GLOG_stderrthreshold`: with files, the level from which lines go to stderr too: a digit 0 to 4
  (as the Python package read it) or a level's name (as the C++ core did). Default WARNING.
- `logger_maxBytes` (50 MiB), `logger_backupCount` (30): when a file is rotated, how many are kept;
  0 bytes is never. `GLOG_max_log_size` (MiB) gives the size where `logger_maxBytes` is not set.
- `GLOG_logfile_mode`: octal mode of the active file (0600); rotated files are read-only.
- `MINDBUS_LOG_FORMAT`: `glog` (default) or `json`. `MINDBUS_` is ours; no program of MindSpore
  reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from telemetry import glog_levels
from telemetry.glog_levels import Levels

#: 50 MiB and 30 files: MindSpore Serving's own defaults.
FILE_BYTES_MAX_DEFAULT: Final = 52_428_800
BACKUP_COUNT_DEFAULT: Final = 30

#: Only the user who runs the server may read its log (MindSpore Serving's Python package).
FILE_MODE_DEFAULT: Final = 0o600

GLOG = "glog"
JSON = "json"

TO_STDERR_ERROR = (
    "Incorrect value, The value of GLOG_logtostderr must be 0 or 1, "
    "Output log to console, configure to 1."
)
LOG_DIRECTORY_MISSING = "`GLOG_log_dir` is not set, output log to screen."
NUMBER_ERROR = "Incorrect value, The value of {name} must be positive integer. {name}:{value}"

_LEVEL_OF_WORD = {
    "DEBUG": glog_levels.DEBUG,
    "INFO": glog_levels.INFO,
    "WARNING": glog_levels.WARNING,
    "ERROR": glog_levels.ERROR,
    "CRITICAL": glog_levels.CRITICAL,
    "EXCEPTION": glog_levels.CRITICAL,
}


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Everything that the environment says about logging."""

    levels: Levels
    #: Directory of the log files; None means stderr only.
    directory: str | None
    #: With a directory: lines of this level and above go to stderr as well.
    stderr_level_min: int
    #: Size at which the active file is rotated; 0 means never.
    file_bytes_max: int
    #: Rotated files kept beside the active one.
    backup_count: int
    #: Permission bits of the active file.
    file_mode: int
    #: `GLOG` or `JSON`.
    line_format: str
    #: What was wrong with the variables, for the first lines of the log.
    warnings: tuple[str, ...]


def read_settings(environment: Mapping[str, str]) -> LogSettings:
    """Read every variable of the log; never raises, what is wrong is in `warnings`."""
    levels = glog_levels.read_levels(environment)
    warnings = list(levels.warnings)
    directory = _directory(environment, warnings)
    return LogSettings(
        levels=levels,
        directory=directory,
        stderr_level_min=_threshold(environment, warnings),
        file_bytes_max=_file_bytes_max(environment, warnings),
        backup_count=_number(environment, "logger_backupCount", BACKUP_COUNT_DEFAULT, warnings),
        file_mode=_file_mode(environment, warnings),
        line_format=_line_format(environment, warnings),
        warnings=tuple(warnings),
    )


def _directory(environment: Mapping[str, str], warnings: list[str]) -> str | None:
    to_stderr = environment.get("GLOG_logtostderr", "").strip()
    if to_stderr in ("", "1"):
        return None
    if to_stderr != "0":
        warnings.append(TO_STDERR_ERROR)
        return None
    directory = environment.get("GLOG_log_dir", "").strip()
    if not directory:
        warnings.append(LOG_DIRECTORY_MISSING)
        return None
    return directory


def _threshold(environment: Mapping[str, str], warnings: list[str]) -> int:
    text = environment.get("GLOG_stderrthreshold", "").strip()
    if not text:
        return glog_levels.WARNING
    level = _LEVEL_OF_WORD.get(text)
    if level is None:
        level = glog_levels.parse_glog_v(text)
    if level is None:
        warnings.append(glog_levels.LEVEL_ERROR.format(value=text))
        return glog_levels.WARNING
    return level


def _file_bytes_max(environment: Mapping[str, str], warnings: list[str]) -> int:
    megabytes = _number(environment, "GLOG_max_log_size", 0, warnings)
    default = megabytes * (1 << 20) if megabytes else FILE_BYTES_MAX_DEFAULT
    return _number(environment, "logger_maxBytes", default, warnings)


def _number(environment: Mapping[str, str], name: str, default: int, warnings: list[str]) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not re.fullmatch("[0-9]{1,18}", text):
        warnings.append(NUMBER_ERROR.format(name=name, value=text))
        return default
    return int(text)


def _file_mode(environment: Mapping[str, str], warnings: list[str]) -> int:
    text = environment.get("GLOG_logfile_mode", "").strip()
    if not text:
        return FILE_MODE_DEFAULT
    if not re.fullmatch("0?[0-7]{3}", text):
        warnings.append(f"GLOG_logfile_mode {text} is not an octal mode such as 0640, ignore it.")
        return FILE_MODE_DEFAULT
    # The owner must be able to write and rotate, whatever the mode says.
    return int(text, 8) | FILE_MODE_DEFAULT


def _line_format(environment: Mapping[str, str], warnings: list[str]) -> str:
    text = environment.get("MINDBUS_LOG_FORMAT", "").strip().lower()
    if text in ("", GLOG):
        return GLOG
    if text == JSON:
        return JSON
    warnings.append(f"MINDBUS_LOG_FORMAT {text} is neither glog nor json, ignore it.")
    return GLOG
