"""What of logs and traces can be changed while a server runs, as a plain value. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from telemetry.glog_levels import CRITICAL, DEBUG

#: One trace of so many, at most.
TRACE_RATE_MAX = 2**31 - 1


class LiveSettingError(ValueError):
    """A setting that is not one, or not a value for it; the text names both and the limit."""


class LiveSettings(NamedTuple):
    """The same in every process of a server.

    log_level: 0 to 4 for all our submodules; None = as GLOG_v and MS_SUBMODULE_LOG_v say.
    is_tracing, trace_rate: where tracing is switched on, whether spans are made, and of how many
    traces that begin at our doors one is (what a caller has decided is kept).
    """

    log_level: int | None = None
    is_tracing: bool = True
    trace_rate: int = 1

    def changed(self, wishes: Mapping[str, Any]) -> LiveSettings:
        """These settings with some others; `wishes` may come from anywhere.

        Raises: LiveSettingError.
        """
        for name, value in wishes.items():
            if name == "log_level":
                is_right = value is None or _is_number(value, DEBUG, CRITICAL)
                limit = (
                    f"a number from {DEBUG} to {CRITICAL}, or null for what the environment says"
                )
            elif name == "is_tracing":
                is_right, limit = isinstance(value, bool), "true or false"
            elif name == "trace_rate":
                is_right = _is_number(value, 1, TRACE_RATE_MAX)
                limit = f"a number from 1 to {TRACE_RATE_MAX}"
            else:
                raise LiveSettingError(f"{name!r:.80} is not one of {', '.join(self._fields)}")
            if not is_right:
                raise LiveSettingError(f"{name} {value!r:.80} is not {limit}")
        return self._replace(**wishes)


def _is_number(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most
