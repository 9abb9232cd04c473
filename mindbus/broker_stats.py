"""Asks a broker for what it knows, for the status."""

from __future__ import annotations

from typing import Any

from mindbus.bus_client import BusClient
from mindbus.bus_errors import BusError

#: A broker that is there answers within milliseconds; the status shall not hang on one that is not.
STATS_TIMEOUT_S = 2.0


def read_stats(producers_address: str, timeout_s: float = STATS_TIMEOUT_S) -> dict[str, Any] | None:
    """The broker's answer to STATS, or None if it does not answer in time."""
    with BusClient(producers_address, timeout=timeout_s) as client:
        try:
            return client.stats()
        except BusError:
            return None
