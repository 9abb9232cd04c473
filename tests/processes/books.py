"""When the clients of a server have stopped asking, nothing is held and nothing was lost."""

from __future__ import annotations

from typing import Any

from mindbus.bus_client import BusClient
from mindbus.bus_errors import BusError
from tests.processes.waiting import wait_until


def unsettled(stats: dict[str, Any]) -> str:
    """What the broker's statistics still hold of somebody; empty if nothing."""
    held = {name: stats[name] for name in ("requests", "request_bytes") if stats[name]}
    held |= {f"table of {name}": size for name, size in stats["tables"].items() if size}
    held |= {
        f"in flight at {worker['worker_id']}": worker["in_flight"]
        for worker in stats["workers"]
        if worker["in_flight"]
    }
    return ", ".join(f"{name}: {value}" for name, value in held.items())


def check_books(producers_address: str) -> None:
    """Wait until the broker is idle. Raises AssertionError if it never is, or if its books do not
    balance: accepted = answered + failed + cancelled."""
    with BusClient(producers_address) as client:
        stats = client.stats()

        def is_settled() -> bool:
            nonlocal stats
            stats = client.stats()
            return not unsettled(stats)

        try:
            wait_until(is_settled)
        except (TimeoutError, BusError) as error:
            raise AssertionError(f"the broker still holds {unsettled(stats)}") from error
    counters = stats["counters"]
    ended = counters["answered"] + counters["failed"] + counters["cancelled"]
    assert counters["accepted"] == ended, f"the books do not balance: {counters}"
