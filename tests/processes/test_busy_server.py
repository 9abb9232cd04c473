"""A server with its only worker busy: limits, deadlines, and clients that leave meanwhile."""

from __future__ import annotations

import errno
import http.client
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import zmq

from mindbus.bus_client import BusClient
from mindbus.bus_errors import DeadlineExceeded, Overloaded
from protocol import head as heads
from protocol import ms_service_pb2 as pb
from protocol import native, status
from tests.figures import Figures
from tests.processes.doors import DEADLINE_S, PREDICT, GrpcDoor, RestDoor, tensor
from tests.processes.flood import BusFlood, Flood, GrpcFlood, RestFlood
from tests.processes.probe import probe_server
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

ROW = np.ones(4, np.float32)

#: Instances of `slow` that keep a worker busy for 0.9 s: 30 ms for each 4.
LONG = 120


@pytest.fixture(scope="module", params=["embedded", "standalone"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server of `probe` with one worker, in each mode."""
    with probe_server("--device-ids", "0", "--mode", request.param) as running:
        yield running


def long_request(client: BusClient) -> Any:
    """Keep the worker busy; the future may be cancelled, the worker computes it all the same."""
    future = client.submit("probe", "slow", [{"x": ROW}] * LONG)
    wait_until(lambda: client.stats()["requests"] == 1)
    return future


def long_message(door: GrpcDoor) -> pb.PredictRequest:
    return door.request("slow", [{"x": tensor(ROW)}] * LONG)


def in_flight(client: BusClient) -> int:
    """Requests that the worker still owes, answered ones included."""
    return sum(worker["in_flight"] for worker in client.stats()["workers"])


@pytest.mark.shows("R11", "R12")
@pytest.mark.parametrize("mode", ["embedded", "standalone"])
def test_at_the_limit_every_door_says_so_in_the_known_words(mode: str) -> None:
    text = "Serving Error: enqueued requests count exceeds the limit 1"
    flags = ("--device-ids", "0", "--mode", mode, "--max-enqueued-requests", "1")
    with probe_server(*flags) as server, BusClient(server.producers_address) as client:
        grpc_door = GrpcDoor(server.grpc_address, "probe")
        rest_door = RestDoor(server.rest_address, "probe")
        holder = long_request(client)
        reply = grpc_door.predict(grpc_door.request("double", [{"x": tensor(ROW)}]))
        assert grpc_door.errors(reply) == [(status.MS_FAILED, text)]
        assert rest_door.infer("double", [{"x": ROW.tolist()}]) == {"error_msg": text}
        with pytest.raises(Overloaded, match="exceeds the limit 1"):
            client.infer("probe", "double", {"x": ROW})
        assert not holder.done()
        holder.cancel()
        wait_until(lambda: client.stats()["requests"] == 0)
        reply = grpc_door.predict(grpc_door.request("double", [{"x": tensor(ROW)}]))
        assert grpc_door.errors(reply) == []
        grpc_door.close()
        rest_door.close()


@pytest.mark.shows("F23", "R10")
def test_deadlines_are_kept_whether_a_request_waits_or_runs(
    server: ServerProcess, figures: Figures
) -> None:
    door = GrpcDoor(server.grpc_address, "probe")
    with BusClient(server.producers_address) as client:
        credit = client.stats()["workers"][0]["credit"]
        begin_s = time.monotonic()
        # The first runs, the next ones wait at the worker, the rest waits in the broker.
        budget_s = 5.0
        futures = [client.submit("probe", "slow", [{"x": ROW}] * 24 * LONG, timeout=budget_s)]
        futures += [
            client.submit("probe", "slow", {"x": ROW}, timeout=budget_s) for _ in range(credit + 8)
        ]
        wait_until(lambda: client.stats()["services"][0]["queued"] == 9)
        # Its deadline is the first: when theirs are over, the worker is free for it.
        with pytest.raises(grpc.RpcError) as error:
            door._call(door.request("double", [{"x": tensor(ROW)}]), timeout=0.3)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        for future in futures:
            with pytest.raises(DeadlineExceeded):
                future.result(DEADLINE_S)
            late_ms = (time.monotonic() - begin_s - budget_s) * 1_000
        figures(requests=len(futures), last_answer_after_deadline_ms=late_ms)
        assert time.monotonic() - begin_s < 9, "answered only when the worker was done"
        wait_until(lambda: client.stats()["requests"] == 0)
        wait_until(lambda: in_flight(client) == 0)
    door.close()


def curl(server: ServerProcess, method: str, instances: Any, timeout: str) -> tuple[int, str, int]:
    """HTTP status, `error_msg`, and how long it took in ms."""
    command = [
        *("curl", "-s", "-w", "\\n%{http_code} %{time_total}", "-H", f"Grpc-Timeout: {timeout}"),
        *("-d", json.dumps({"instances": instances})),
        f"http://{server.rest_address}/model/probe:{method}",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    document, _, numbers = output.rpartition("\n")
    code, seconds = numbers.split()
    return int(code), json.loads(document)["error_msg"], int(float(seconds) * 1_000)


@pytest.mark.shows("F23", "R10", "R12")
def test_the_deadline_of_a_rest_request_is_kept_whether_it_waits_or_runs(
    server: ServerProcess, figures: Figures
) -> None:
    row = {"x": ROW.tolist()}
    code, text, _ = curl(server, "double", row, "soon")
    assert code == 400
    assert text.startswith("header grpc-timeout is 'soon', but must be 1 to 99999999 and a unit of")
    code, text, running_ms = curl(server, "slow", [row] * LONG, "300m")
    assert (code, "running (probe/1)" in text) == (504, True), text
    with BusClient(server.producers_address) as client:
        (worker,) = client.stats()["workers"]
        held = [client.submit("probe", "slow", [{"x": ROW}] * 2 * LONG)]
        held += [client.submit("probe", "slow", {"x": ROW}) for _ in range(worker["credit"])]
        wait_until(lambda: client.stats()["services"][0]["queued"] > 0)
        code, text, waiting_ms = curl(server, "mortal", {"x": [666.0] * 4}, "400m")
        assert (code, "waiting (probe/1)" in text) == (504, True), text
        for future in held:
            future.result(DEADLINE_S)
        assert client.stats()["workers"][0]["generation"] == worker["generation"]
        wait_until(lambda: in_flight(client) == 0)
    figures(late_running_ms=running_ms - 300, late_waiting_ms=waiting_ms - 400)
    assert 300 <= running_ms < 300 + 3_000
    assert 400 <= waiting_ms < 400 + 3_000


@pytest.mark.shows("F24", "R13")
def test_whoever_leaves_takes_the_request_out_of_the_broker(server: ServerProcess) -> None:
    door = GrpcDoor(server.grpc_address, "probe")
    with BusClient(server.producers_address) as client:
        before = client.stats()["counters"]["cancelled"]
        leavers = (leave_grpc, leave_grpc_connection, leave_rest, leave_bus_call, leave_bus)
        for leave in leavers:
            leave(server, door, client)
            wait_until(lambda: client.stats()["requests"] == 0)
        # None of them was answered first.
        assert client.stats()["counters"]["cancelled"] == before + len(leavers)
        wait_until(lambda: in_flight(client) == 0)
        assert client.infer("probe", "double", {"x": ROW})[0]["y"].tolist() == [2] * 4
    door.close()


def leave_grpc(server: ServerProcess, door: GrpcDoor, client: BusClient) -> None:
    """Cancel a call of a connection that stays."""
    call = door._call.future(long_message(door))
    wait_until(lambda: client.stats()["requests"] == 1)
    call.cancel()


def leave_grpc_connection(server: ServerProcess, door: GrpcDoor, client: BusClient) -> None:
    """Close the whole channel."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(PREDICT).future(long_message(door).SerializeToString())
        wait_until(lambda: client.stats()["requests"] == 1)
        assert not call.done()


def leave_rest(server: ServerProcess, door: GrpcDoor, client: BusClient) -> None:
    """Close the connection instead of reading the answer."""
    connection = http.client.HTTPConnection(server.rest_address)
    body = json.dumps({"instances": [{"x": ROW.tolist()}] * LONG})
    connection.request("POST", "/model/probe:slow", body)
    wait_until(lambda: client.stats()["requests"] == 1)
    connection.close()


def leave_bus_call(server: ServerProcess, door: GrpcDoor, client: BusClient) -> None:
    """Cancel a future."""
    long_request(client).cancel()


def leave_bus(server: ServerProcess, door: GrpcDoor, client: BusClient) -> None:
    """Close a client of the bus with a call in flight."""
    with BusClient(server.producers_address) as other:
        other.submit("probe", "slow", [{"x": ROW}] * LONG)
        wait_until(lambda: client.stats()["requests"] == 1)


@pytest.mark.shows("F24", "R13")
def test_a_producer_that_vanished_leaves_nothing_behind(server: ServerProcess) -> None:
    with BusClient(server.producers_address) as client:
        credit = client.stats()["workers"][0]["credit"]
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        dealer = context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(server.producers_address)
        frames = native.encode_request([{"x": ROW}] * 4)
        count = credit + 20
        for number in range(count):
            head = heads.Head(
                heads.REQUEST, request_id=number, body_frames=1, service=b"probe/0", method=b"slow"
            )
            dealer.send_multipart([heads.pack(head), *frames])
        wait_until(lambda: client.stats()["requests"] >= count - 8)
        context.destroy(linger=0)  # no word of farewell
        wait_until(lambda: client.stats()["requests"] == 0)
        wait_until(lambda: in_flight(client) == 0)
        assert client.infer("probe", "double", {"x": ROW})[0]["y"].tolist() == [2] * 4


# ---------------------------------------------------------------- a thousand that wait

QUEUED = 1_000

#: The field asks for 1 s; the machine may be busy.
TAKEN_OUT_MS_MAX = 1_000 + 3_000

#: Whatever computes this dies of it.
POISON = ROW * 666

#: Lets what has been queued go out; and then leaves.
Leaving = tuple[Callable[[], Any], Callable[[], Any]]


def cancel_grpc_calls(server: ServerProcess) -> Leaving:
    """Calls of one channel, which stays."""
    channel = grpc.insecure_channel(server.grpc_address)
    call = channel.unary_unary(PREDICT)
    calls = [call.future(poison_message(server)) for _ in range(QUEUED)]
    return bool, lambda: [each.cancel() for each in calls]


def end_grpc_connection(server: ServerProcess) -> Leaving:
    """A connection that ends in the middle of its calls."""
    return flooding(GrpcFlood(server.grpc_address, poison_message(server)))


def end_rest_connections(server: ServerProcess) -> Leaving:
    """A connection for each request."""
    body = json.dumps({"instances": [{"x": POISON.tolist()}]}).encode()
    return flooding(RestFlood(server.rest_address, "/model/probe:mortal", body))


def cancel_bus_calls(server: ServerProcess) -> Leaving:
    """Futures of a client that stays."""
    client = BusClient(server.producers_address)
    futures = [client.submit("probe", "mortal", {"x": POISON}) for _ in range(QUEUED)]
    return bool, lambda: [each.cancel() for each in futures]


def close_bus_client(server: ServerProcess) -> Leaving:
    """A client that says goodbye."""
    client = BusClient(server.producers_address)
    for _ in range(QUEUED):
        client.submit("probe", "mortal", {"x": POISON})
    return bool, client.close


def vanish_from_bus(server: ServerProcess) -> Leaving:
    """A producer that says nothing, as one that was killed."""
    frames = [bytes(frame) for frame in native.encode_request([{"x": POISON}])]
    head = heads.Head(
        heads.REQUEST,
        flags=heads.FLAG_COALESCE,
        body_frames=len(frames),
        service=b"probe/0",
        method=b"mortal",
    )
    return flooding(BusFlood(server.producers_address, head, frames))


def poison_message(server: ServerProcess) -> bytes:
    door = GrpcDoor(server.grpc_address, "probe")
    message: bytes = door.request("mortal", [{"x": tensor(POISON)}]).SerializeToString()
    door.close()
    return message


def flooding(way: Flood) -> Leaving:
    for number in range(QUEUED):
        way.send(number)
    return lambda: list(way.receive(0)), way.close


def writer_of(gate: Path) -> int | None:
    """The end of a FIFO that is written to, once somebody has opened it to read."""
    try:
        return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


@pytest.mark.shows("F24", "R13")
@pytest.mark.parametrize(
    "leave",
    [
        cancel_grpc_calls,
        end_grpc_connection,
        end_rest_connections,
        cancel_bus_calls,
        close_bus_client,
        vanish_from_bus,
    ],
)
def test_a_thousand_that_wait_leave_at_once_and_no_worker_sees_one(
    server: ServerProcess,
    leave: Callable[[ServerProcess], Leaving],
    figures: Figures,
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with BusClient(server.producers_address) as client:
        (worker,) = client.stats()["workers"]
        before = client.stats()["counters"]
        # The worker is busy until the gate opens, and holds as much as it takes.
        held = [client.submit("probe", "gated", {"path": str(gate)})]
        writer = wait_until(lambda: writer_of(gate))  # it has begun: what comes now waits for it
        held += [client.submit("probe", "double", {"x": ROW}) for _ in range(worker["credit"] - 1)]
        wait_until(lambda: in_flight(client) == len(held))
        go_on, go = leave(server)
        wait_until(lambda: go_on() or client.stats()["requests"] == len(held) + QUEUED)
        begin_s = time.monotonic()
        go()
        left_s = time.monotonic()
        wait_until(lambda: client.stats()["requests"] == len(held))
        end_s = time.monotonic()
        figures(
            queued=QUEUED,
            leaving_ms=(left_s - begin_s) * 1_000,
            taken_out_ms=(end_s - begin_s) * 1_000,
        )
        os.write(writer, b"open")
        os.close(writer)
        assert held[0].result(DEADLINE_S)[0]["text"] == "open"
        for future in held[1:]:
            assert future.result(DEADLINE_S)[0]["y"].tolist() == [2] * 4
        stats = client.stats()
        counters = {name: stats["counters"][name] - before[name] for name in before}
        assert (counters["cancelled"], counters["workers_lost"]) == (QUEUED, 0)
        assert counters["answered"] == len(held)
        assert stats["requests"] == 0
        assert [each["generation"] for each in stats["workers"]] == [worker["generation"]]
        assert (end_s - begin_s) * 1_000 < TAKEN_OUT_MS_MAX
