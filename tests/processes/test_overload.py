"""Ten times the capacity, in an open loop: who is refused hears so at once, and the rest is served.

The servable's capacity is a pause of its model, not the processor: the load shares that with the
server. What a gateway can refuse in a second is bounded by what one request costs its door: about
0.65 ms for gRPC, of which grpcio by itself takes two thirds, and 0.25 ms for REST. Where ten times
the capacity is more than that, requests wait in front of the gateway; more gateways help
(`--gateways`). The same happens where others take the processor away, so the server tells how long
it has waited for that, and times are asserted only if it was little.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from protocol import head as heads
from protocol import ms_service_pb2 as pb
from protocol import native, status
from protocol.errors import RemoteProtocolError
from tests.figures import Figures
from tests.processes.doors import GrpcDoor, tensor
from tests.processes.flood import (
    BusFlood,
    Flood,
    GrpcFlood,
    Outcome,
    RestFlood,
    closed_loop,
    open_loop,
)
from tests.processes.probe import probe_server
from tests.processes.scrapes import scraping
from tests.processes.server_process import ServerProcess

pytestmark = pytest.mark.process

ROW = np.ones(4, np.float32)
REQUESTS_MAX = 32
FULL_TEXT = f"enqueued requests count exceeds the limit {REQUESTS_MAX}"

#: Clients of the closed loop that measures the capacity: no more than are let in.
CLOSED_CLIENTS = 24
CLOSED_S = 1.5

#: Of the time of the load: how long gateway and broker may have waited for a processor.
WAITED_MAX = 0.15

SERVED, REFUSED = "served", "refused"


def outcome_of_grpc(answer: bytes) -> str:
    """Every answer has status OK, as MindSpore Serving has it."""
    reply = pb.PredictReply.FromString(answer)
    if not reply.error_msg:
        data = b"".join(instance.items["y"].data for instance in reply.instances)
        values = np.frombuffer(data, np.float32)
        return SERVED if len(values) and (values == 2).all() else f"wrong: {reply}"
    (error,) = reply.error_msg
    expected = (status.MS_FAILED, f"Serving Error: {FULL_TEXT}".encode())
    return REFUSED if (error.error_code, error.error_msg) == expected else str(error)


def outcome_of_rest(answer: bytes) -> str:
    """Every answer has status 200, as MindSpore Serving has it."""
    document = json.loads(answer)
    if document == {"error_msg": f"Serving Error: {FULL_TEXT}"}:
        return REFUSED
    results = document.get("instances", [])
    right = {"instances": [{"y": [2.0] * 4}] * max(1, len(results))}
    return SERVED if document == right else f"wrong: {document}"


def outcome_of_bus(answer: bytes) -> str:
    """A reply, or a failure; both are one frame."""
    try:
        results = native.decode_reply([answer])
    except RemoteProtocolError:
        error = native.decode_failure([answer])
        is_full = (error.reason, error.message) == ("queue_full", FULL_TEXT)
        return REFUSED if is_full else str(error)
    values = np.array([result["y"] for result in results if isinstance(result, dict)])
    return SERVED if values.size and (values == 2).all() else f"wrong: {results}"


def grpc_flood(server: ServerProcess, instances: int) -> Flood:
    """Calls of one connection."""
    door = GrpcDoor(server.grpc_address, "probe")
    body = door.request("slow", [{"x": tensor(ROW)}] * instances).SerializeToString()
    door.close()
    return GrpcFlood(server.grpc_address, body)


def rest_flood(server: ServerProcess, instances: int) -> Flood:
    """Requests on as many connections as it takes."""
    body = json.dumps({"instances": [{"x": ROW.tolist()}] * instances}).encode()
    return RestFlood(server.rest_address, "/model/probe:slow", body)


def bus_flood(server: ServerProcess, instances: int) -> Flood:
    """Requests of one producer."""
    frames = [bytes(frame) for frame in native.encode_request([{"x": ROW}] * instances)]
    head = heads.Head(
        heads.REQUEST,
        flags=heads.FLAG_COALESCE,
        instance_count=instances,
        body_frames=len(frames),
        service=b"probe/0",
        method=b"slow",
    )
    return BusFlood(server.producers_address, head, frames)


class Door(NamedTuple):
    """A way in, and what its answers mean.

    instances: of a request in the short run, and in the full one. A batch of 4 takes 30 ms, so 4
    make a capacity of 33 requests per second, 2 of 66, and 1 of 133.
    """

    flood: Callable[[ServerProcess, int], Flood]
    outcome: Outcome
    instances: tuple[int, int]


DOORS = {
    "grpc": Door(grpc_flood, outcome_of_grpc, (4, 2)),
    "rest": Door(rest_flood, outcome_of_rest, (2, 1)),
    "bus": Door(bus_flood, outcome_of_bus, (1, 1)),
}


def rss_mb(pids: set[int]) -> float:
    """Memory of the largest of these processes."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return max(pages) * 4_096 / 1e6


def waited_s(pids: set[int]) -> float:
    """How long the main threads of these processes could run and had to wait, the longest one."""
    return max(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in pids) / 1e9


@pytest.mark.shows("F21", "R11", "R12")
@pytest.mark.parametrize("mode", ["embedded", "standalone"])
@pytest.mark.parametrize("name", DOORS)
def test_ten_times_the_capacity_is_refused_quickly_and_costs_no_throughput(
    name: str, mode: str, figures: Figures, is_full: bool
) -> None:
    if mode != "embedded" and not is_full:
        pytest.skip("only with --full: a refusal makes one hop more")
    door = DOORS[name]
    instances = door.instances[is_full]
    outcome = functools.cache(door.outcome)
    flags = ("--device-ids", "0", "--max-enqueued-requests", str(REQUESTS_MAX))
    with probe_server(*flags, "--mode", mode) as server:
        pids = {slot["pid"] for slot in server.status()["slots"] if slot["kind"] != "worker"}

        @contextmanager
        def flood() -> Iterator[Flood]:
            way = door.flood(server, instances)
            try:
                yield way
            finally:
                way.close()

        with flood() as way:
            before = closed_loop(way, outcome, CLOSED_CLIENTS, CLOSED_S)
        capacity = before.per_s(SERVED)
        begin_mb, begin_s = rss_mb(pids), waited_s(pids)
        with flood() as way, scraping(server.rest_address) as scrapes_s:
            over = open_loop(way, outcome, 10 * capacity, 60.0 if is_full else 4.0)
        grown_mb, waited = rss_mb(pids) - begin_mb, (waited_s(pids) - begin_s) / over.seconds
        with flood() as way:
            after = closed_loop(way, outcome, CLOSED_CLIENTS, CLOSED_S)
    refused_ms = np.array(over.took_ms[REFUSED])
    figures(
        capacity_per_s=capacity,
        offered_per_s=over.offered / over.offering_s,
        goodput_of_capacity=over.per_s(SERVED) / capacity,
        refused_p50_ms=float(np.median(refused_ms)),
        refused_p99_ms=float(np.percentile(refused_ms, 99)),
        grown_mb=grown_mb,
        capacity_after_per_s=after.per_s(SERVED),
        scrape_p50_ms=float(np.median(scrapes_s)) * 1_000,
        scrape_max_ms=max(scrapes_s) * 1_000,
        waited_of_time=waited,
    )
    assert set(over.took_ms) == {SERVED, REFUSED}
    assert set(before.took_ms) == set(after.took_ms) == {SERVED}
    assert over.offered > 9 * capacity * over.offering_s, "the load was no overload"
    assert grown_mb < 150
    if waited < WAITED_MAX:
        assert np.median(scrapes_s) < 0.1
        assert np.median(refused_ms) < 50
        share = 0.9 if is_full else 0.8  # a short run begins and ends in the middle of batches
        assert over.per_s(SERVED) > share * min(capacity, after.per_s(SERVED))
        assert after.per_s(SERVED) > share * capacity
