"""What a server starts besides workers: gateways, and a broker in mode standalone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mindbus.config import EMBEDDED
from workers.supervisor.child import CONTROL_FD, REPORT_FD, ChildSpec
from workers.supervisor.run_directory import CONTROL, RunDirectory
from workers.supervisor.stop_policy import BROKER, GATEWAY, doors_grace_ms

if TYPE_CHECKING:
    from mindbus.server import ServerSettings

#: How long a gateway waits for a broker that takes another's place, beyond the grace of that one.
BROKER_START_MS = 5_000


def infrastructure_specs(
    settings: ServerSettings, directory: RunDirectory, requests_max: int
) -> list[ChildSpec]:
    """The processes to start first. Documents: see `mindbus.gateway_process`."""
    document: dict[str, Any] = {
        "mode": "remote",
        "producers_addresses": [directory.producers_address, *settings.producers_addresses],
        "workers_address": directory.workers_address,
        "requests_max": requests_max,
        "ready_ms": settings.ready_ms,
    }
    doors = {
        "control_path": str(settings.run_directory.absolute() / CONTROL),
        "model_control": settings.model_control,
        "settings_control": settings.settings_control,
        "has_access_log": settings.has_access_log,
        "tells_numbers": settings.gateways > 1,
        "npu_smi": settings.npu_smi,
        "packs_replies": settings.rest_compression,
    }
    commands = settings.commands
    if settings.mode == EMBEDDED:
        embedded = {**document, **doors, "mode": "embedded"}
        return [ChildSpec("gateway/0", GATEWAY, commands.gateway, embedded, CONTROL_FD)]
    # It ends before the server's grace does, which workers and doors have a part of.
    grace_ms = doors_grace_ms(settings.grace_ms)
    broker = {**document, "grace_ms": grace_ms}
    remote = {**document, **doors, "drain_patience_ms": grace_ms + BROKER_START_MS}
    gateways = [
        ChildSpec(f"gateway/{number}", GATEWAY, commands.gateway, remote, CONTROL_FD)
        for number in range(settings.gateways)
    ]
    return [ChildSpec("broker/0", BROKER, commands.broker, broker, REPORT_FD), *gateways]
