"""Rubbish at every port of a real server: nobody dies, good clients do not notice, logs stay short.

Seeded: a failure is found again with the same seed. MINDBUS_FUZZ_ROUNDS makes it longer.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from mindbus.bus_client import BusClient
from protocol import head as heads
from protocol import native
from tests.processes.doors import GrpcDoor, RestDoor, tensor
from tests.processes.probe import probe_server
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

SEED = 20_240_607
ROUNDS = int(os.environ.get("MINDBUS_FUZZ_ROUNDS", "60"))
ROW = np.ones(4, np.float32)

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ZMTP_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)

#: What is nearly HTTP.
HTTP = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x H",
    b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 9\r\n\r\nx",
    b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"e" * 200_000,
    b"POST / HTTP/1.1\r\nA: " + b"a" * 300_000,
    b"POST /" + b"a" * 300_000 + b" HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * 60_000,
    b"POST /model/probe:double HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
    b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"POST / HTTP/9.9\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}" * 50,
    b"\r\n" * 1_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


@pytest.fixture(scope="module", params=["embedded", "standalone"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server of `probe` with one worker; the processes must be the same in the end."""
    with probe_server("--device-ids", "0", "--mode", request.param) as running:
        yield running


class Rubbish:
    """Random bytes, and random damage to what is right."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def noise(self) -> bytes:
        return self.random.randbytes(self.random.choice((0, 1, 7, 47, 48, 60, 500, 5_000)))

    def damaged(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self.random.randrange(4)):
            if changed:
                changed[self.random.randrange(len(changed))] = self.random.randrange(256)
        if self.random.random() < 0.2:
            changed = changed[: self.random.randrange(len(changed) + 1)]
        return bytes(changed)

    def head(self) -> bytes:
        head = heads.Head(
            self.random.randrange(12),
            self.random.choice((0, 1, 4, 5, 8, 16, 24, 32, 64, 96, 65_535)),
            self.random.randrange(5),
            self.random.choice((0, 0, 3, 255)),
            self.random.randrange(1 << 64),
            self.random.choice((0, 0, 5, 0xFFFF_FFFF)),
            self.random.randrange(70_000),
            self.random.choice((0, 1, 1, 1, 2, 255)),
            self.random.choice((b"probe/0", b"probe/1", b"", b"/", b"\xff/1", b"s" * 223)),
            self.random.choice((b"double", b"copy", b"", b"\xff", b"m" * 255)),
        )
        packed = heads.pack(head)
        return self.damaged(packed) if self.random.random() < 0.3 else packed

    def body(self) -> bytes:
        """Meta frames of every kind, right and damaged; now and then a large frame."""
        kind = self.random.randrange(6)
        if kind == 0:
            return self.noise()
        if kind == 1:
            return bytes(100_000)
        if kind == 2:
            return self.damaged(bytes(native.encode_request([{"x": ROW}])[0]))
        tensor_item = [
            self.random.choice(("float32", "bool", "float16", "complex64", 4, None)),
            self.random.choice(([4], [], [-1], [1 << 62, 4], [0, 1 << 62], [1] * 40, "4", None)),
            self.random.choice((b"", bytes(16), 0, 1, 2, -1, 1 << 40, None)),
        ]
        value: Any = self.random.choice((tensor_item, None, "x", b"x", 1, 1 << 63, [], {}, [[]]))
        instances: Any = self.random.choice(([{"x": value}], [{"x": value}] * 3, [], {}, [1], None))
        name = self.random.choice(("instances", "worker_id", "reason", "service", ""))
        packed: bytes = msgpack.packb({name: instances, "errors": value})
        return packed

    def mdp(self) -> list[bytes]:
        """What is nearly a request of an MDP client."""
        starts = ([b"", b"MDPC01"], [b"MDPC02", b"\1"], [b"", b"MDPC02", b"\2"], [b"MDPC", b""])
        services = (b"probe", b"probe/1", b"mmi.service", b"mmi.x", b"\xff", b"s" * 300, b"")
        options = {
            "method": self.random.choice(("double", "copy", "", "m" * 300, 7)),
            "instances": [{"x": ["float32", [4], ROW.tobytes()]}],
            self.random.choice(("id", "key", "budget_ms", "priority", "one_way", "x")): (
                self.random.choice((1, -1, "low", "", True, None, [[]] * 9))
            ),
        }
        body = self.damaged(msgpack.packb(options))
        start = self.random.choice(starts)
        return [
            *start,
            self.random.choice(services),
            body,
            *([self.noise()] * self.random.randrange(2)),
        ]

    def message(self) -> list[bytes]:
        if self.random.random() < 0.25:
            return self.mdp()
        parts: list[bytes] = [b""] if self.random.random() < 0.2 else []
        for _ in range(self.random.randrange(1, 4)):
            parts.append(self.head())
            parts += [self.body() for _ in range(self.random.choice((0, 1, 1, 1, 2, 3)))]
        return parts


def throw(address: tuple[str, int] | str, content: bytes, whole: bool) -> None:
    """Send raw bytes to a TCP port or a unix socket, then leave; whole: wait for the answer."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as raw:
        raw.settimeout(0.05)
        raw.connect(address)
        try:
            raw.sendall(content)
            if whole:
                raw.shutdown(socket.SHUT_WR)
                raw.recv(65_536)
        except OSError:
            pass  # it was refused, or nothing is answered: both are right


def host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def check_health(server: ServerProcess, doors: tuple[GrpcDoor, RestDoor, BusClient]) -> None:
    """Good clients, connected all the time, get right answers."""
    grpc_door, rest_door, bus = doors
    reply = grpc_door.predict(grpc_door.request("double", [{"x": tensor(ROW)}]))
    assert np.frombuffer(reply.instances[0].items["y"].data, np.float32).tolist() == [2] * 4
    assert rest_door.infer("double", [{"x": [1.0] * 4}]) == {"instances": [{"y": [2.0] * 4}]}
    assert bus.infer("probe", "double", {"x": ROW})[0]["y"].tolist() == [2] * 4


def fuzz(server: ServerProcess, round_of: Callable[[Rubbish], None]) -> None:
    """Play rounds of rubbish; check good clients on the way and everything in the end."""
    pids = {slot["slot"]: slot["pid"] for slot in server.status()["slots"]}
    lines_before = len(server.stderr)
    grpc_door = GrpcDoor(server.grpc_address, "probe")
    rest_door = RestDoor(server.rest_address, "probe")
    with BusClient(server.producers_address) as bus:
        rubbish = Rubbish(SEED)
        for number in range(ROUNDS):
            round_of(rubbish)
            if number % 10 == 0:
                check_health(server, (grpc_door, rest_door, bus))
        check_health(server, (grpc_door, rest_door, bus))
        wait_until(lambda: bus.stats()["requests"] == 0)
        stats = bus.stats()
        assert [worker["worker_id"] for worker in stats["workers"]] == ["probe/1/device0"]
    grpc_door.close()
    rest_door.close()
    assert {slot["slot"]: slot["pid"] for slot in server.status()["slots"]} == pids
    assert len(server.stderr) - lines_before < 40, server.stderr[-40:]


@pytest.mark.shows("F16", "R24")
def test_raw_bytes_at_every_port_harm_nobody(server: ServerProcess) -> None:
    addresses = server.addresses()
    grpc_port, rest_port = host_port(server.grpc_address), host_port(server.rest_address)
    sockets = [
        str(address).removeprefix("ipc://")
        for address in (*addresses["producers"], addresses["workers"])
    ]

    def round_of(rubbish: Rubbish) -> None:
        whole = rubbish.random.random() < 0.5
        http = rubbish.random.choice(HTTP)
        throw(rest_port, rubbish.random.choice((http, rubbish.damaged(http))), whole)
        throw(rest_port, rubbish.noise(), whole)
        throw(grpc_port, HTTP2_PREFACE + rubbish.noise(), whole)
        throw(grpc_port, rubbish.random.choice((rubbish.noise(), HTTP[0])), whole)
        for path in sockets:
            throw(path, ZMTP_GREETING + rubbish.noise(), whole)
            throw(path, rubbish.noise(), whole)

    fuzz(server, round_of)


@pytest.mark.shows("F15", "R24")
@pytest.mark.parametrize("leg", ["producers", "workers"])
def test_messages_that_break_the_protocol_harm_nobody(server: ServerProcess, leg: str) -> None:
    where = server.addresses()[leg]
    address = where if isinstance(where, str) else where[0]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def round_of(rubbish: Rubbish) -> None:
        dealer = context.socket(zmq.DEALER)
        dealer.connect(address)
        for _ in range(20):
            dealer.send_multipart(rubbish.message())
        dealer.poll(50)
        dealer.close(linger=1_000 if rubbish.random.random() < 0.8 else 0)

    try:
        fuzz(server, round_of)
    finally:
        context.destroy(linger=0)


@pytest.mark.shows("F15", "R18")
def test_protobuf_and_json_that_are_damaged_are_answered(server: ServerProcess) -> None:
    door = GrpcDoor(server.grpc_address, "probe")
    rest_door = RestDoor(server.rest_address, "probe")
    call = door._channel.unary_unary("/mindspore.serving.proto.MSService/Predict")
    message = door.request("double", [{"x": tensor(ROW)}] * 2).SerializeToString()
    document = b'{"instances":[{"x":[1.0,2.0,3.0,4.0]},{"x":{"b64":"AAAA","type":"int8"}}]}'

    def round_of(rubbish: Rubbish) -> None:
        future = call.future(rubbish.damaged(message), timeout=20)
        assert future.code().name in ("OK", "INVALID_ARGUMENT")
        answer = rest_door.send(rubbish.damaged(document), "/model/probe:copy")
        assert answer.keys() <= {"instances", "error_msg"}

    fuzz(server, round_of)
    door.close()
    rest_door.close()
