"""Log and trace settings of the whole server: changed while it runs, and told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telemetry.log import environment_level, set_level
from workers.supervisor.crew import Crew


def change_settings(crew: Crew, command: Mapping[str, Any]) -> None:
    """Have every process, of now and later, log and trace as a command says; so do we.

    Raises: LiveSettingError.
    """
    wishes = {name: value for name, value in command.items() if name != "command"}
    crew.settings = crew.settings.changed(wishes)
    set_level(crew.settings.log_level)
    crew.tell_all({"id": -1, "command": "settings", **crew.settings._asdict()})


def settings_status(crew: Crew) -> dict[str, Any]:
    """What is set, for the status: plain values."""
    return {**crew.settings._asdict(), "environment_log_level": environment_level()}
