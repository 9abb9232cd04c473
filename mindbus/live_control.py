"""Log and trace settings of a running server, as one of its gateways follows and changes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindbus.door_tracer import DoorTracer
from mindbus.supervisor_link import SupervisorError, SupervisorLink
from protocol.errors import RequestError
from telemetry.live_settings import LiveSettings
from telemetry.log import environment_level, set_level


class LiveControl:
    """`gateway.oip_settings.SettingsControl`: the supervisor tells every process what was changed.

    link: None where there is no supervisor, and nothing can be changed. is_allowed: whether clients
    may change anything.
    """

    def __init__(
        self, link: SupervisorLink | None, tracer: DoorTracer | None, is_allowed: bool
    ) -> None:
        self.is_allowed = is_allowed and link is not None
        self.has_tracer = tracer is not None
        self._link = link
        self._tracer = tracer
        self._settings = LiveSettings()

    def now(self) -> dict[str, Any]:
        """What is set: log_level 0 to 4, is_tracing, trace_rate."""
        return self._told(self._settings)

    def at_start(self) -> dict[str, Any]:
        """What was set when the server was started."""
        return self._told(LiveSettings())

    def _told(self, settings: LiveSettings) -> dict[str, Any]:
        level = settings.log_level
        return {
            "log_level": environment_level() if level is None else level,
            "is_tracing": settings.is_tracing and self.has_tracer,
            "trace_rate": settings.trace_rate,
        }

    async def change(self, wishes: Mapping[str, Any]) -> None:
        """Have some of it changed in the whole server. Raises RequestError."""
        assert self._link is not None, "REQUIRES: is_allowed"
        try:
            await self._link.ask({"command": "settings", **wishes})
        except SupervisorError as error:
            reason = "invalid_inputs" if error.is_refusal else "broker_lost"
            raise RequestError(reason, f"settings: {error}") from None
        self.follow(wishes)  # before the supervisor's own word comes, which says the same

    def follow(self, changes: Mapping[str, Any]) -> None:
        """The supervisor says what is set now. Raises LiveSettingError."""
        self._settings = self._settings.changed(changes)
        set_level(self._settings.log_level)
        if self._tracer is not None:
            self._tracer.set_rate(self._settings.trace_rate if self._settings.is_tracing else 0)
