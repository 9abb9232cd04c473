"""Whether a server is ready and live, from what supervisor and broker know. Pure.

live    the supervisor answers: nothing has to be killed from outside, it does that itself
ready   every servable that was asked for has a worker that takes requests and makes progress, the
        broker answers, and every door is open somewhere; a server without servables is not ready
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Nothing of this was asked of the broker.
BROKER_AWAY = "the broker does not answer"


def why_servables_not_ready(
    status: Mapping[str, Any], stats: Mapping[str, Any] | None
) -> dict[str, str | None]:
    """Each servable that has a slot, and why it is not ready; None if it is.

    status: the supervisor's. stats: the broker's, None if it does not answer.
    """
    names = [slot["servable"] for slot in status["slots"] if slot["servable"]]
    if stats is None:
        return dict.fromkeys(names, BROKER_AWAY)
    versions = {each["servable"]: each["version"] for each in stats["servables"]}
    services = {each["service"]: each["not_ready"] for each in stats["services"]}
    return {
        name: services[f"{name}/{versions[name]}"] if name in versions else f"{name} has no worker"
        for name in names
    }


def why_not_ready(
    status: Mapping[str, Any], stats: Mapping[str, Any] | None, servable: str | None = None
) -> str | None:
    """Why a server, or one servable of it, is not ready; None if it is."""
    if status["state"] != "serving":
        return f"the server is {status['state']}"
    servables = why_servables_not_ready(status, stats)
    if servable is not None and servable not in servables:
        return f"no servable {servable} is there"
    if not servables:
        return "no servable is there"
    if not status["doors"]:
        return "no door is open"
    asked = servables.values() if servable is None else [servables[servable]]
    return next((reason for reason in asked if reason is not None), None)
