"""Servers of the scripted servable `probe` (tests/processes/servables)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mindbus.bus_client import BusClient
from tests.processes.server_process import ServerProcess

SERVABLES = Path(__file__).resolve().parent / "servables"


def probe_server(*flags: str) -> ServerProcess:
    """A server of `probe` on the numpy backend; flags are more of `mindbus serve`'s."""
    return ServerProcess(SERVABLES, "--servable", "probe", "--backend", "numpy", *flags)


def broker_stats(server: ServerProcess) -> dict[str, Any]:
    """What the broker itself tells."""
    with BusClient(server.producers_address) as client:
        return client.stats()
