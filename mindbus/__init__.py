"""MindBus: serves MindSpore models over gRPC, REST and ZeroMQ. Here: its clients for the bus."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import compiled

if TYPE_CHECKING:
    from mindbus.async_bus_client import AsyncBusClient
    from mindbus.bus_client import BusClient
    from mindbus.bus_errors import BusError
    from mindbus.retry import Retry

compiled.use()

__all__ = ["AsyncBusClient", "BusClient", "BusError", "Retry"]

_MODULES = {
    "AsyncBusClient": "mindbus.async_bus_client",
    "BusClient": "mindbus.bus_client",
    "BusError": "mindbus.bus_errors",
    "Retry": "mindbus.retry",
}


def __getattr__(name: str) -> Any:
    """A client, imported when it is first asked for: the command line shall answer at once."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
