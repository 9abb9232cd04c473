"""The one logger of the system: structlog events, written as glog lines or as JSON.

A program calls `configure` once; a module keeps `log = get_logger("BROKER")` and says what
happened: `log.info("worker ready", worker_id=…, credit=…)`. A level that is filtered is structlog's
`return None`. Which level, where to and in which form is said by the environment; the rules are in
`glog_levels` and `log_settings`. The environment is read and never written.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO

import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder

from telemetry import glog_levels, line_format
from telemetry.line_format import LineOrigin
from telemetry.log_settings import JSON, LogSettings, read_settings
from telemetry.rotating_file import RotatingFile

#: The checkout or site-packages directory: file names in lines are relative to it.
_ROOT: Final = str(Path(__file__).resolve().parents[1]) + os.sep

#: structlog counts levels as the standard library does; index = glog level, 5 = nothing at all.
_STRUCTLOG_LEVELS: Final = (10, 20, 30, 40, 50)

_LEVEL_OF_METHOD: Final = {
    "debug": glog_levels.DEBUG,
    "info": glog_levels.INFO,
    "warning": glog_levels.WARNING,
    "error": glog_levels.ERROR,
    "exception": glog_levels.ERROR,
    "critical": glog_levels.CRITICAL,
}


class SubmoduleLogger:
    """The logger of one submodule; its methods are structlog's, bound by `configure`.

    Each method takes the event as a constant phrase and its facts as keywords. Call the methods
    through the logger (`log.info(…)`): a method kept elsewhere misses a later `configure`.
    """

    debug: Callable[..., None]
    info: Callable[..., None]
    warning: Callable[..., None]
    error: Callable[..., None]
    #: Like `error`, with the traceback of the exception that is being handled.
    exception: Callable[..., None]
    critical: Callable[..., None]
    #: 0 to 4; lines below it are `return None`.
    level: int

    def __init__(self, submodule: str) -> None:
        self.submodule = submodule

    def __getattr__(self, name: str) -> Any:
        """Configure from the process environment at the first use, if nobody did before."""
        if name not in self.__class__.__annotations__:
            raise AttributeError(name)
        _configured()
        return self.__dict__[name]

    def is_enabled(self, level: int) -> bool:
        """True if a line of this level (0 to 4) would be written."""
        return level >= self.level

    def _bind(self, sink: _Sink, settings: LogSettings) -> None:
        of_environment = settings.levels.of_submodule[self.submodule]
        self.level = of_environment if _level is None else _level
        bound = _structlog_logger(sink, self.submodule, self.level)
        for name in _LEVEL_OF_METHOD:
            setattr(self, name, getattr(bound, name))


def configure(
    program: str,
    environment: Mapping[str, str] = os.environ,
    stream: TextIO | None = None,
    level: int | None = None,
) -> None:
    """Read the environment and point every logger, also those already handed out, at the result.

    program: what the line names, such as `gateway`. stream: takes the place of stderr. level: see
    `set_level`. Never raises for a bad variable: the first lines of the log say what was wrong.
    """
    global _sink, _level
    settings = read_settings(environment)
    with _lock:
        _level = level
        if _sink is not None:
            _sink.close()
        _sink = _Sink(program, settings, stream)
        for logger in _loggers.values():
            logger._bind(_sink, settings)
        base = _structlog_logger(_sink, glog_levels.SERVING, settings.levels.base)
    for warning in settings.warnings:
        base.warning(warning)


def set_level(level: int | None) -> None:
    """Filter every submodule by this level, 0 to 4; None = as the environment says.

    May be called from any thread.
    """
    global _level
    with _lock:
        sink = _configured()
        _level = level
        for logger in _loggers.values():
            logger._bind(sink, sink.settings)


def environment_level() -> int:
    """The level, 0 to 4, that the environment sets for all of us."""
    return _configured().settings.levels.of_submodule[glog_levels.SERVING]


def _configured() -> _Sink:
    with _lock:
        if _sink is None:
            configure(Path(sys.argv[0]).name or "python")
        assert _sink is not None
        return _sink


def get_logger(submodule: str = glog_levels.SERVING) -> SubmoduleLogger:
    """The logger of a submodule (one of `glog_levels.SUBMODULES`); the same object every time."""
    assert submodule in glog_levels.SUBMODULES, f"{submodule} is not one of our submodules"
    with _lock:
        logger = _loggers.get(submodule)
        if logger is None:
            logger = _loggers[submodule] = SubmoduleLogger(submodule)
            if _sink is not None:
                logger._bind(_sink, _sink.settings)
        return logger


def write_access(values: Mapping[str, Any]) -> None:
    """Write a line of the access log: level INFO, message `access`, and these facts.

    Who wants an access log has said so; levels do not hide it. There is a line for each request,
    so it goes past structlog, which would look for its caller each time. REQUIRES: `configure`.
    """
    sink = _sink
    assert sink is not None, "configure comes before the first request"
    origin = LineOrigin(
        level=glog_levels.INFO,
        submodule="GATEWAY",
        program=sink.program,
        process_id=os.getpid(),
        thread_id=threading.get_ident(),
        time=datetime.now().astimezone(),
        file="gateway/journal.py",
        line=0,
        function="end",
    )
    form = line_format.json_line if sink.settings.line_format == JSON else line_format.glog_line
    sink.info(form(origin, "access", values, None))


class _Sink:
    """Where lines end: stderr, or a rotating file and stderr for what is grave.

    structlog calls the method named after the level with the rendered line. A sink that cannot
    write is never an error of its caller.
    """

    def __init__(self, program: str, settings: LogSettings, stream: TextIO | None) -> None:
        self.program = program
        self.settings = settings
        self._stream = stream
        # Reentrant: a signal handler may log while its own thread is inside a line.
        self._lock = threading.RLock()
        self._file: RotatingFile | None = None
        if settings.directory is not None:
            path = Path(settings.directory, f"mindspore_serving.log.{os.getpid()}")
            self._file = RotatingFile(
                path, settings.file_bytes_max, settings.backup_count, settings.file_mode
            )

    def debug(self, line: str) -> None:
        """Write a line of level DEBUG."""
        self._write(glog_levels.DEBUG, line)

    def info(self, line: str) -> None:
        """Write a line of level INFO."""
        self._write(glog_levels.INFO, line)

    def warning(self, line: str) -> None:
        """Write a line of level WARNING."""
        self._write(glog_levels.WARNING, line)

    def error(self, line: str) -> None:
        """Write a line of level ERROR."""
        self._write(glog_levels.ERROR, line)

    def critical(self, line: str) -> None:
        """Write a line of level CRITICAL."""
        self._write(glog_levels.CRITICAL, line)

    def close(self) -> None:
        """Close the log file, if there is one."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _write(self, level: int, line: str) -> None:
        with self._lock:
            if self._file is None:
                self._write_stream(line)
                return
            try:
                self._file.write(line.encode("utf-8", "backslashreplace"))
            except OSError as error:
                self._give_up_file(self._file, error)
                self._write_stream(line)
                return
            if level >= self.settings.stderr_level_min:
                self._write_stream(line)

    def _give_up_file(self, file: RotatingFile, error: OSError) -> None:
        """From here on everything goes to stderr; said once, because the file stays gone."""
        self._file = None
        # The descriptor is given back even when closing it says that a write was lost.
        with contextlib.suppress(OSError):
            file.close()
        warning = _render(
            self,
            glog_levels.SERVING,
            glog_levels.WARNING,
            {
                "event": "log file cannot be written, output log to screen",
                "path": str(file.path),
                "error": error,
                "pathname": __file__,
                "lineno": 0,
                "func_name": "_write",
            },
        )
        if self.settings.levels.base <= glog_levels.WARNING:
            self._write_stream(warning)

    def _write_stream(self, line: str) -> None:
        stream = self._stream if self._stream is not None else sys.stderr
        try:
            stream.write(line)
            stream.flush()
        except (OSError, ValueError, AttributeError):
            # A closed pipe, a closed stream, or no stderr at all: there is nowhere to say so.
            pass


def _structlog_logger(sink: _Sink, submodule: str, level: int) -> Any:
    def render(_: Any, method: str, event: MutableMapping[str, Any]) -> str:
        return _render(sink, submodule, _LEVEL_OF_METHOD[method], event)

    return structlog.wrap_logger(
        sink,
        processors=[_CALLSITE, structlog.processors.format_exc_info, render],
        wrapper_class=structlog.make_filtering_bound_logger(_STRUCTLOG_LEVELS[level]),
        cache_logger_on_first_use=True,
    ).bind()


_CALLSITE = CallsiteParameterAdder(
    {CallsiteParameter.PATHNAME, CallsiteParameter.LINENO, CallsiteParameter.FUNC_NAME},
    # These only pass lines on: their callers are where the lines come from.
    additional_ignores=["telemetry.log", "mindspore_serving.log"],
)


def _render(sink: _Sink, submodule: str, level: int, event: MutableMapping[str, Any]) -> str:
    origin = LineOrigin(
        level=level,
        submodule=submodule,
        program=sink.program,
        process_id=os.getpid(),
        thread_id=threading.get_ident(),
        time=datetime.now().astimezone(),
        file=event.pop("pathname").removeprefix(_ROOT),
        line=event.pop("lineno"),
        function=event.pop("func_name"),
    )
    message = str(event.pop("event"))
    traceback = event.pop("exception", None)
    form = line_format.json_line if sink.settings.line_format == JSON else line_format.glog_line
    return form(origin, message, event, traceback)


_lock = threading.RLock()
_loggers: dict[str, SubmoduleLogger] = {}
_sink: _Sink | None = None
#: Takes the place of the environment's levels, if it is there.
_level: int | None = None
