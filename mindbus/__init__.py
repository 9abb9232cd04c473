"""MindBus: serves MindSpore models over gRPC, REST and ZeroMQ. Here: its clients for the bus."""

from mindbus.async_bus_client import AsyncBusClient
from mindbus.bus_client import BusClient
from mindbus.bus_errors import BusError

__all__ = ["AsyncBusClient", "BusClient", "BusError"]
