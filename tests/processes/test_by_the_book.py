"""Clients written only from documents: the field table, a curl line, PROTOCOL.md."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.processes.server_process import ServerProcess

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]


def varint(number: int) -> bytes:
    """protobuf's base-128 number."""
    out = b""
    while number >= 0x80:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    """A varint field."""
    return varint(number << 3) + varint(value)


def float_tensor(values: list[float], dims: list[int]) -> bytes:
    """Tensor: shape = 1 (dims = 1, packed), dtype = 2 (MS_FLOAT32 = 11), data = 3."""
    shape = field(1, b"".join(map(varint, dims)))
    return (
        field(1, shape) + number_field(2, 11) + field(3, struct.pack(f"<{len(values)}f", *values))
    )


def add_request(instances_field: int) -> bytes:
    """PredictRequest by its field numbers; instances moved from 3 (1.1, 1.2) to 2."""
    spec = field(1, b"probe") + field(2, b"add") + number_field(3, 0)
    entry = b"".join(
        field(1, field(1, name) + field(2, float_tensor([1, 2, 3, 4], [2, 2])))
        for name in (b"x1", b"x2")
    )
    return field(1, spec) + field(instances_field, entry)


@pytest.mark.parametrize("instances_field", [2, 3])
def test_a_client_of_the_field_table_gets_the_right_answer(
    server: ServerProcess, instances_field: int
) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary("/mindspore.serving.proto.MSService/Predict")
        reply = call(add_request(instances_field), timeout=60)
    output = field(3, struct.pack("<4f", 2, 4, 6, 8))
    assert output in reply
    assert reply.startswith(field(1, field(1, b"probe") + field(2, b"add")))


def test_curl_gets_the_right_answer(server: ServerProcess) -> None:
    body = '{"instances":[{"x1":[[1.0,2.0],[3.0,4.0]],"x2":[[1.0,1.0],[1.0,1.0]]}]}'
    url = f"http://{server.rest_address}/model/probe:add"
    command = ["curl", "--silent", "--show-error", "--max-time", "60", "-d", body, url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert json.loads(run.stdout) == {"instances": [{"y": [[2.0, 3.0], [4.0, 5.0]]}]}


def test_the_producer_of_the_protocol_document_gets_the_right_answers(
    server: ServerProcess,
) -> None:
    script = ROOT / "examples" / "zmq_producer.py"
    assert len(script.read_text().splitlines()) <= 40, "README says so"
    command = [sys.executable, str(script), server.producers_address, "probe", "add"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert run.stdout.splitlines() == ["float32 [2, 2] (2.0, 3.0, 4.0, 5.0)"] * 2
