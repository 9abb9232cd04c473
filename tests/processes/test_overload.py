"""Ten times the capacity, in an open loop: who is refused hears so at once, and the rest is served.

The servable's capacity is a pause of its model, not the processor, which the clients share.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mindbus.async_bus_client import AsyncBusClient
from mindbus.bus_errors import Overloaded
from protocol import ms_service_pb2 as pb
from protocol import status
from tests.figures import Figures
from tests.processes.doors import PREDICT, GrpcDoor, tensor
from tests.processes.probe import probe_server
from tests.processes.server_process import ServerProcess

pytestmark = pytest.mark.process

ROW = np.ones(4, np.float32)
#: Of one request: a batch of `slow` for itself, 30 ms, so that the clients have little to do.
INSTANCES = 4
REQUESTS_MAX = 32
FULL_TEXT = f"enqueued requests count exceeds the limit {REQUESTS_MAX}"

#: Clients of the closed loop that measures the capacity: no more than are let in.
CLOSED_CLIENTS = 24
SHORT_S = 2.0

SERVED, REFUSED = "served", "refused"


@dataclass
class Tally:
    """What clients heard: how long each outcome took, in ms, and what was neither."""

    took_ms: dict[str, list[float]] = field(default_factory=lambda: {SERVED: [], REFUSED: []})
    others: Counter[str] = field(default_factory=Counter)


class GrpcAsk:
    """Requests on one channel; every answer has status OK, as MindSpore Serving has it."""

    def __init__(self, server: ServerProcess) -> None:
        self._channel = grpc.aio.insecure_channel(server.grpc_address)
        self._call = self._channel.unary_unary(PREDICT)
        door = GrpcDoor(server.grpc_address, "probe")
        self._body = door.request("slow", [{"x": tensor(ROW)}] * INSTANCES).SerializeToString()
        door.close()

    async def ask(self) -> str:
        reply = pb.PredictReply.FromString(await self._call(self._body))
        if not reply.error_msg:
            data = b"".join(instance.items["y"].data for instance in reply.instances)
            values = np.frombuffer(data, np.float32).tolist()
            return SERVED if values == [2] * 4 * INSTANCES else f"wrong {values}"
        (error,) = reply.error_msg
        text = error.error_msg.decode()
        expected = (status.MS_FAILED, f"Serving Error: {FULL_TEXT}")
        return REFUSED if (error.error_code, text) == expected else text

    async def close(self) -> None:
        await self._channel.close()


class RestAsk:
    """Requests on kept connections; every answer has status 200, as MindSpore Serving has it."""

    def __init__(self, server: ServerProcess) -> None:
        self._host, port = server.rest_address.rsplit(":", 1)
        self._port = int(port)
        body = json.dumps({"instances": [{"x": ROW.tolist()}] * INSTANCES})
        head = f"POST /model/probe:slow HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self._message = (head + body).encode()
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self) -> str:
        if not self._free:
            self._free.append(await asyncio.open_connection(self._host, self._port))
        reader, writer = connection = self._free.pop()
        writer.write(self._message)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        self._free.append(connection)
        if answer == {"error_msg": f"Serving Error: {FULL_TEXT}"}:
            return REFUSED
        return SERVED if answer == {"instances": [{"y": [2.0] * 4}] * INSTANCES} else str(answer)

    async def close(self) -> None:
        for _, writer in self._free:
            writer.close()


class BusAsk:
    """Requests of one client of the bus."""

    def __init__(self, server: ServerProcess) -> None:
        self._client = AsyncBusClient(server.producers_address)

    async def ask(self) -> str:
        try:
            results = await self._client.infer("probe", "slow", [{"x": ROW}] * INSTANCES)
        except Overloaded as error:
            return REFUSED if FULL_TEXT in str(error) else str(error)
        values = [result["y"].tolist() for result in results]
        return SERVED if values == [[2] * 4] * INSTANCES else f"wrong {values}"

    async def close(self) -> None:
        await self._client.close()


async def ask_once(asker: Any, tally: Tally) -> None:
    begin_s = time.monotonic()
    outcome = await asker.ask()
    if outcome in tally.took_ms:
        tally.took_ms[outcome].append((time.monotonic() - begin_s) * 1_000)
    else:
        tally.others[outcome] += 1


async def closed_loop(asker: Any, seconds: float) -> tuple[float, Tally]:
    """As many requests at once as are let in. Returns the capacity per second."""
    tally = Tally()
    begin_s = time.monotonic()

    async def client() -> None:
        while time.monotonic() < begin_s + seconds:
            await ask_once(asker, tally)

    await asyncio.gather(*(client() for _ in range(CLOSED_CLIENTS)))
    return len(tally.took_ms[SERVED]) / (time.monotonic() - begin_s), tally


async def open_loop(asker: Any, rate: float, seconds: float) -> tuple[float, float, Tally]:
    """A rate that heeds no answer. Returns what was offered and what was served per second."""
    tally = Tally()
    running: set[asyncio.Task[None]] = set()
    begin_s = time.monotonic()
    offered = 0
    while (passed_s := time.monotonic() - begin_s) < seconds:
        while offered < passed_s * rate:
            task = asyncio.create_task(ask_once(asker, tally))
            running.add(task)
            task.add_done_callback(running.discard)
            offered += 1
        await asyncio.sleep(0.002)
    rate_offered = offered / (time.monotonic() - begin_s)
    if running:
        await asyncio.gather(*running)
    # What was still queued when the offers ended was served later: its time counts as well.
    return rate_offered, len(tally.took_ms[SERVED]) / (time.monotonic() - begin_s), tally


def rss_mb(pids: set[int]) -> float:
    """Memory of the largest of these processes."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return max(pages) * 4_096 / 1e6


@pytest.mark.shows("F21", "R11", "R12")
@pytest.mark.parametrize("asking", [GrpcAsk, RestAsk, BusAsk], ids=["grpc", "rest", "bus"])
def test_ten_times_the_capacity_is_refused_quickly_and_costs_no_throughput(
    asking: Any, figures: Figures, is_full: bool
) -> None:
    async def play(server: ServerProcess) -> None:
        asker = asking(server)
        capacity, _ = await closed_loop(asker, SHORT_S)
        pids = {slot["pid"] for slot in server.status()["slots"] if slot["kind"] != "worker"}
        before_mb = rss_mb(pids)
        seconds = 60.0 if is_full else 5.0
        offered, goodput, tally = await open_loop(asker, 10 * capacity, seconds)
        grown_mb = rss_mb(pids) - before_mb
        after, calm = await closed_loop(asker, SHORT_S)
        await asker.close()
        refused_ms = np.array(tally.took_ms[REFUSED])
        figures(
            capacity_per_s=capacity,
            offered_per_s=offered,
            goodput_of_capacity=goodput / capacity,
            refused_p50_ms=float(np.median(refused_ms)),
            refused_p99_ms=float(np.percentile(refused_ms, 99)),
            grown_mb=grown_mb,
            capacity_after_per_s=after,
        )
        assert not tally.others, tally.others
        assert not calm.took_ms[REFUSED]
        assert not calm.others
        assert offered > 5 * capacity, "the clients were too slow to be an overload"
        assert np.median(refused_ms) < 50
        assert goodput > 0.6 * capacity
        assert after > 0.6 * capacity
        assert grown_mb < 150

    flags = ("--device-ids", "0", "--max-enqueued-requests", str(REQUESTS_MAX))
    with probe_server(*flags) as server:
        asyncio.run(play(server))
