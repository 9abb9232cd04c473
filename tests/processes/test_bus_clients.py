"""What the clients of the bus promise, at a real server: retries, keys, calls without an answer."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

from mindbus import AsyncBusClient, BusClient, Retry
from tests.processes.probe import broker_stats, probe_server
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

ROW = np.arange(4, dtype=np.float32)


def counters(server: ServerProcess) -> Any:
    return broker_stats(server)["counters"]


def broker_pid(server: ServerProcess) -> int | None:
    slots = server.status()["slots"]
    return next((slot["pid"] for slot in slots if slot["kind"] == "broker"), None)


def test_what_nobody_waits_for_is_computed_after_its_client_has_left(
    server: ServerProcess,
) -> None:
    before = counters(server)
    with BusClient(server.producers_address) as client:
        for _ in range(100):
            client.send("probe", "slow", {"x": ROW})
        client.send("probe", "nothing", {"x": ROW})
    expected = {"accepted": 101, "answered": 100, "failed": 1, "cancelled": 0}

    def came() -> bool:
        now = counters(server)
        return {name: now[name] - before[name] for name in expected} == expected

    wait_until(came)


def test_a_call_that_is_made_again_under_its_key_is_executed_once(server: ServerProcess) -> None:
    before = counters(server)
    for _ in range(3):
        with BusClient(server.producers_address) as client:
            (result,) = client.infer("probe", "double", {"x": ROW}, key="the same")
            np.testing.assert_array_equal(result["y"], 2 * ROW)
    after = counters(server)
    assert after["accepted"] - before["accepted"] == 1
    assert after["replayed"] - before["replayed"] == 2


def test_urgent_calls_wait_less_than_those_that_are_not(server: ServerProcess) -> None:
    order: list[str] = []
    held = sum(worker["credit"] for worker in broker_stats(server)["workers"])

    async def ask(client: AsyncBusClient, priority: str, name: str) -> None:
        await client.infer("probe", "slow", {"x": ROW}, priority=priority)
        order.append(name)

    async def run() -> None:
        async with AsyncBusClient(server.producers_address) as client:
            first = [
                ask(client, "normal", "held") for _ in range(held)
            ]  # what the workers hold already
            names = [name for name in ("low", "normal", "high") for _ in range(40)]
            then = [ask(client, name, name) for name in names]
            await asyncio.gather(*first, *then)

    asyncio.run(run())
    places = {
        name: sum(at for at, each in enumerate(order) if each == name) / order.count(name)
        for name in ("high", "normal", "low")
    }
    assert places["high"] < places["normal"] < places["low"], places
    assert places["high"] < held + 60, places


def test_with_retries_a_producer_sees_nothing_of_a_broker_that_dies() -> None:
    with probe_server("--mode", "standalone", "--device-ids", "0,1") as server:
        is_over = threading.Event()
        failures: list[BaseException] = []
        answered = [0, 0]

        def ask(number: int) -> None:
            retry = Retry(attempts_max=100, pause_ms=20, pause_ms_max=200)
            with BusClient(server.producers_address, timeout=60, retry=retry) as client:
                while not is_over.is_set():
                    try:
                        (result,) = client.infer("probe", "double", {"x": ROW})
                        assert np.array_equal(result["y"], 2 * ROW)
                        answered[number] += 1
                    except BaseException as failure:
                        failures.append(failure)
                        return

        threads = [threading.Thread(target=ask, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        try:
            for kill in (signal.SIGKILL, signal.SIGTERM):
                goal = min(answered) + 10
                wait_until(lambda: failures or min(answered) > goal)  # noqa: B023
                pid = broker_pid(server)
                assert pid is not None
                os.kill(pid, kill)
                wait_until(lambda: broker_pid(server) not in (None, pid))  # noqa: B023
            goal = min(answered) + 10
            wait_until(lambda: failures or min(answered) > goal)
        finally:
            is_over.set()
            for thread in threads:
                thread.join(30)
        assert not failures, failures
