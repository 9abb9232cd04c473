"""Triton's log and trace settings, of the whole server: the values that mean something here.

Log levels are thresholds: what is `true` brings everything graver with it, what is `false` takes
everything less grave along, and `log_verbose_level` 1 is DEBUG. Traces are those of OpenTelemetry:
`trace_level` OFF or TIMESTAMPS, and `trace_rate` N, one of N requests whose clients have not
decided. Everything else is told, and cannot be changed. A value of None is the one at the start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from gateway.model_directory import ModelDirectory
from protocol.errors import RequestError

#: What starts a server in which clients may change settings.
FLAG = "--settings-control explicit"

NOT_ALLOWED = (
    f"changing settings by clients is not allowed: start the server with `mindbus serve {FLAG}`"
)

NOT_TRACED = (
    "trace settings cannot be changed: no spans are made here, start the server with "
    "MINDBUS_TRACING=on and OpenTelemetry installed"
)

#: glog's levels (telemetry.glog_levels).
DEBUG, INFO, WARNING, ERROR, CRITICAL = range(5)

#: The settings that are thresholds.
_LEVEL_OF_FLAG = {"log_info": INFO, "log_warning": WARNING, "log_error": ERROR}
_VERBOSE = "log_verbose_level"

OFF = "OFF"
TIMESTAMPS = "TIMESTAMPS"


class SettingsControl(Protocol):
    """The settings of the server, by the names log_level, is_tracing and trace_rate."""

    #: clients may change them
    is_allowed: bool
    #: spans can be made
    has_tracer: bool

    def now(self) -> Mapping[str, Any]:
        """What is set."""

    def at_start(self) -> Mapping[str, Any]:
        """What was set when the server was started."""

    def change(self, wishes: Mapping[str, Any]) -> Awaitable[None]:
        """Change some of them in every process. Raises RequestError."""


class OipSettings:
    """Settings as clients see and change them: plain values by Triton's names."""

    def __init__(self, directory: ModelDirectory, control: SettingsControl) -> None:
        self._directory = directory
        self._control = control

    def extensions(self) -> tuple[str, ...]:
        """Which of Triton's extensions this is, here."""
        if not self._control.is_allowed:
            return ()
        return ("logging", "trace") if self._control.has_tracer else ("logging",)

    # ---------------------------------------------------------------- logs

    async def log(self, wishes: Mapping[str, object]) -> dict[str, bool | int | str]:
        """All log settings, with some of them changed. Raises RequestError."""
        control = self._control
        if wishes:
            self._check_allowed()
            level = control.now()["log_level"]
            at_start = _log(control.at_start()["log_level"])
            wanted = {
                name: at_start.get(name) if value is None else value
                for name, value in wishes.items()
            }
            await control.change({"log_level": _read_log(wanted, level)})
        return _log(control.now()["log_level"])

    # ---------------------------------------------------------------- traces

    async def trace(self, model: str, wishes: Mapping[str, object]) -> dict[str, str | list[str]]:
        """All trace settings, with some of them changed; a model has those of the server.

        Raises: RequestError.
        """
        control = self._control
        if model:
            (await self._directory.models()).find(model)
        if wishes:
            self._check_allowed()
            if not control.has_tracer:
                raise RequestError("unsupported", NOT_TRACED)
            if model:
                raise RequestError(
                    "unsupported", f"model {model!r:.300} has no trace settings of its own"
                )
            at_start = _trace(control.at_start())
            wanted = {
                name: at_start.get(name) if value is None else value
                for name, value in wishes.items()
            }
            await control.change(_read_trace(wanted))
        return _trace(control.now())

    def _check_allowed(self) -> None:
        if not self._control.is_allowed:
            raise RequestError("not_allowed", NOT_ALLOWED)


def _log(level: int) -> dict[str, bool | int | str]:
    return {
        "log_file": "",
        **{name: level <= least for name, least in _LEVEL_OF_FLAG.items()},
        _VERBOSE: int(level == DEBUG),
        "log_format": "default",
    }


def _read_log(wishes: Mapping[str, object], level: int) -> int:
    """The level that fits all wishes and is next to the one that is set. Raises RequestError."""
    most, least = CRITICAL, DEBUG
    for name, value in wishes.items():
        threshold = _LEVEL_OF_FLAG.get(name, DEBUG)
        if name in _LEVEL_OF_FLAG:
            if not isinstance(value, bool):
                raise _wrong(name, value, "true or false")
        elif name == _VERBOSE:
            if type(value) is not int or value < 0:
                raise _wrong(name, value, "a whole number, 0 or more")
        else:
            _check_fixed(name, value, _log(level))
            continue
        if value:
            most = min(most, threshold)
        else:
            least = max(least, threshold + 1)
    if least > most:
        raise RequestError(
            "invalid_inputs",
            "log levels are thresholds here: what is on has everything graver on, but "
            + ", ".join(f"{name} is {value}" for name, value in wishes.items()),
        )
    return min(max(level, least), most)


def _trace(settings: Mapping[str, Any]) -> dict[str, str | list[str]]:
    return {
        "trace_level": [TIMESTAMPS if settings["is_tracing"] else OFF],
        "trace_rate": str(settings["trace_rate"]),
        "trace_count": "-1",
        "log_frequency": "0",
        "trace_file": "",
        "trace_mode": "opentelemetry",
    }


def _read_trace(wishes: Mapping[str, object]) -> dict[str, Any]:
    """What to change. Raises RequestError."""
    changes: dict[str, Any] = {}
    for name, value in wishes.items():
        if name == "trace_level":
            levels = value if isinstance(value, list) else [value]
            if levels not in ([OFF], [TIMESTAMPS]):
                raise _wrong(name, value, f"{OFF} or {TIMESTAMPS}")
            changes["is_tracing"] = levels == [TIMESTAMPS]
        elif name == "trace_rate":
            changes["trace_rate"] = _rate(name, value)
        else:
            _check_fixed(name, value, _trace({"is_tracing": False, "trace_rate": 1}))
    return changes


def _rate(name: str, value: object) -> int:
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) >= 1):
        raise _wrong(name, value, "a whole number, 1 or more")
    return int(text)


def _check_fixed(name: str, value: object, settings: Mapping[str, object]) -> None:
    """What cannot be changed may be said to be what it is."""
    if name not in settings:
        known = ", ".join(settings)
        raise RequestError("invalid_inputs", f"setting {name!r:.80} is not one of {known}")
    if value != settings[name]:
        raise RequestError(
            "unsupported",
            f"setting {name} cannot be changed: it is {settings[name]!r}, not {value!r:.80}",
        )


def _wrong(name: str, value: object, right: str) -> RequestError:
    return RequestError("invalid_inputs", f"setting {name} is {value!r:.80}, not {right}")
