"""`mindspore_serving.log`: the log functions that MindSpore Serving's users call.

The lines go through the one logger of the system (`telemetry.log`), so GLOG_v and
MS_SUBMODULE_LOG_v hold for them too. What MindSpore Serving raised for a variable it could not
read, these functions raise as well; nothing else in this package does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telemetry import glog_levels, log_settings
from telemetry.log import get_logger

__all__ = ["debug", "error", "get_level", "get_log_config", "info", "warning"]

_logger = get_logger(glog_levels.SERVING)
_verified = False


def debug(msg: object, *args: object) -> None:
    """Log `msg % args` at DEBUG."""
    _verify_once()
    if _logger.is_enabled(glog_levels.DEBUG):
        _logger.debug(_text(msg, args))


def info(msg: object, *args: object) -> None:
    """Log `msg % args` at INFO."""
    _verify_once()
    if _logger.is_enabled(glog_levels.INFO):
        _logger.info(_text(msg, args))


def warning(msg: object, *args: object) -> None:
    """Log `msg % args` at WARNING."""
    _verify_once()
    if _logger.is_enabled(glog_levels.WARNING):
        _logger.warning(_text(msg, args))


def error(msg: object, *args: object) -> None:
    """Log `msg % args` at ERROR."""
    _verify_once()
    if _logger.is_enabled(glog_levels.ERROR):
        _logger.error(_text(msg, args))


def get_level() -> str:
    """The level in force: '3' (ERROR), '2' (WARNING), '1' (INFO) or '0' (DEBUG)."""
    _verify_once()
    return str(_logger.level)


def get_log_config() -> dict[str, Any]:
    """The settings in force by the names of their variables; those of files only with files."""
    _verify_once()
    settings = log_settings.read_settings(os.environ)
    config: dict[str, Any] = {"GLOG_v": get_level(), "GLOG_logtostderr": "1"}
    if settings.directory is not None:
        config |= {
            "GLOG_logtostderr": "0",
            "GLOG_log_dir": str(Path(settings.directory).absolute()),
            "logger_maxBytes": settings.file_bytes_max,
            "logger_backupCount": settings.backup_count,
            "GLOG_stderrthreshold": str(settings.stderr_level_min),
        }
    return config


def verify(environment: Mapping[str, str]) -> None:
    """Raise ValueError, in MindSpore Serving's words, for a variable that its package refused."""
    for name in ("GLOG_v", "GLOG_stderrthreshold"):
        value = environment.get(name, "")
        if value and value.strip() not in ("0", "1", "2", "3"):
            raise ValueError(glog_levels.LEVEL_ERROR.format(value=value.strip()))
    to_stderr = environment.get("GLOG_logtostderr", "")
    if not to_stderr:
        return
    if to_stderr.strip() not in ("0", "1"):
        raise ValueError(log_settings.TO_STDERR_ERROR)
    if to_stderr.strip() == "0":
        _verify_files(environment)


def _verify_files(environment: Mapping[str, str]) -> None:
    directory = environment.get("GLOG_log_dir", "").strip()
    if not directory:
        raise ValueError(
            "When GLOG_logtostderr is set to 0, The directory of saving log must be set, "
            "GLOG_log_dir cannot be empty."
        )
    if not Path(directory).exists():
        raise ValueError(f"The file path does not exist. GLOG_log_dir:{directory}")
    for name in ("logger_maxBytes", "logger_backupCount"):
        value = environment.get(name, "")
        if value and not value.strip().isdigit():
            raise ValueError(log_settings.NUMBER_ERROR.format(name=name, value=value.strip()))


def _verify_once() -> None:
    """The environment counts when the first line is logged, as in MindSpore Serving."""
    global _verified
    if not _verified:
        verify(os.environ)
        _verified = True


def _text(msg: object, args: tuple[object, ...]) -> str:
    return str(msg) % args if args else str(msg)
