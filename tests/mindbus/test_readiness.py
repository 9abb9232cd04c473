"""What makes a server ready, in each state that it can be in."""

from __future__ import annotations

from typing import Any

import pytest

from mindbus.readiness import why_not_ready

DOORS = [{"kind": "grpc", "address": "h:1"}]


def status(*servables: str | None, state: str = "serving", doors: Any = DOORS) -> dict[str, Any]:
    slots = [{"servable": name, "state": "READY"} for name in (None, *servables)]
    return {"state": state, "slots": slots, "doors": doors}


def stats(**not_ready: str | None) -> dict[str, Any]:
    return {
        "servables": [{"servable": name, "version": 3} for name in not_ready],
        "services": [
            {"service": f"{name}/3", "not_ready": reason} for name, reason in not_ready.items()
        ],
    }


@pytest.mark.shows("R5")
@pytest.mark.parametrize(
    ("seen", "told", "servable", "reason"),
    [
        (status("add"), stats(add=None), None, None),
        (status("add", "net"), stats(add=None, net=None), None, None),
        (status(), stats(), None, "no servable is there"),
        (status("add", doors=[]), stats(add=None), None, "no door is open"),
        (status("add", state="starting"), stats(add=None), None, "the server is starting"),
        (status("add", state="stopping"), stats(add=None), None, "the server is stopping"),
        (status("add"), None, None, "the broker does not answer"),
        (status("add"), stats(), None, "add has no worker"),
        (status("add", "net"), stats(add=None, net="net hangs"), None, "net hangs"),
        (status("add", "net"), stats(add=None, net="net hangs"), "add", None),
        (status("add", "net"), stats(add=None, net="net hangs"), "net", "net hangs"),
        (status("add"), stats(add=None), "nobody", "no servable nobody is there"),
    ],
)
def test_a_server_is_ready_only_if_every_servable_is(
    seen: dict[str, Any], told: dict[str, Any] | None, servable: str | None, reason: str | None
) -> None:
    assert why_not_ready(seen, told, servable) == reason
