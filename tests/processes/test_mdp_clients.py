"""A real server and clients that speak MDP, one of them written by others."""

from __future__ import annotations

import struct
from typing import Any

import majortomo
import msgpack
import pytest
import zmq

from tests.processes.server_process import ServerProcess

pytestmark = pytest.mark.process

WAIT_MS = 30_000

X1 = struct.pack("<4f", 1, 2, 3, 4)
X2 = struct.pack("<4f", 1, 1, 1, 1)
SUM = struct.pack("<4f", 2, 3, 4, 5)


def add_body(**more: Any) -> bytes:
    inputs = {"x1": ["float32", [2, 2], X1], "x2": ["float32", [2, 2], X2]}
    packed: bytes = msgpack.packb({"method": "add", "instances": [inputs], **more})
    return packed


def ask(socket: zmq.Socket[bytes], parts: list[bytes]) -> list[bytes]:
    socket.send_multipart(parts)
    assert socket.poll(WAIT_MS), "no reply came"
    return socket.recv_multipart()


def test_clients_of_7_mdp_get_the_right_answers(server: ServerProcess) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.linger = 0
        client.set(zmq.REQ_RELAXED, 1)
        client.set(zmq.REQ_CORRELATE, 1)
        client.connect(server.producers_address)
        for number in range(3):
            *prefix, body = ask(client, [b"MDPC01", b"probe", add_body(id=number)])
            assert prefix == [b"MDPC01", b"probe"]
            expected = {"y": ["float32", [2, 2], SUM]}
            assert msgpack.unpackb(body) == {"id": number, "status": 0, "instances": [expected]}
        *_, body = ask(client, [b"MDPC01", b"probe/7", add_body()])
        assert msgpack.unpackb(body)["reason"] == "unknown_service"
        *_, body = ask(client, [b"MDPC01", b"probe", msgpack.packb({"method": "nothing"})])
        assert msgpack.unpackb(body)["reason"] == "unknown_method"
        for service, code in ((b"probe", b"200"), (b"probe/1", b"200"), (b"echo", b"404")):
            reply = ask(client, [b"MDPC01", b"mmi.service", service])
            assert reply == [b"MDPC01", b"mmi.service", code]


def test_large_tensors_travel_in_frames_of_their_own(server: ServerProcess) -> None:
    large = bytes(range(256)) * 4_096
    inputs = {"x": ["uint8", [len(large)], 1]}
    body = msgpack.packb({"instances": [inputs], "method": "echo"})
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.linger = 0
        client.connect(server.producers_address)
        *prefix, meta, tensor = ask(client, [b"MDPC02", b"\1", b"probe/1", body, large])
        assert prefix == [b"MDPC02", b"\3", b"probe/1"]
        assert msgpack.unpackb(meta) == {"status": 0, "instances": [inputs]}
        assert tensor == large


def test_a_client_of_majortomo_gets_the_right_answers(server: ServerProcess) -> None:
    with majortomo.Client(server.producers_address) as client:
        for number in range(3):
            client.send("probe", add_body(id=number))
            (body,) = client.recv_all_as_list(timeout=30)
            answer = msgpack.unpackb(body)
            assert answer["id"] == number
            assert answer["instances"] == [{"y": ["float32", [2, 2], SUM]}]
        client.send("mmi.service", b"probe")
        assert client.recv_all_as_list(timeout=30) == [b"200"]
