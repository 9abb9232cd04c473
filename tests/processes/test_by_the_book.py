"""Clients made only from documents: the field table, protoc's stubs, curl, PROTOCOL.md."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.processes.server_process import ServerProcess

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
WIRE = Path(__file__).resolve().parent / "wire"


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


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the modules that protoc makes of both releases' messages."""
    directory = tmp_path_factory.mktemp("stubs")
    for release in ("1_2", "2_0"):  # one by one: both define the same names
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", f"-I{WIRE}"),
                *(f"--python_out={directory}", f"--grpc_python_out={directory}"),
                str(WIRE / f"ms_service_{release}.proto"),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
    return directory


def stub_answers(server: ServerProcess, stubs: Path, release: str) -> Any:
    """What a client with the stub of a release is answered, see `stub_client.py`."""
    run = subprocess.run(
        [sys.executable, str(WIRE / "stub_client.py"), server.grpc_address, release],
        env={**os.environ, "PYTHONPATH": str(stubs)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


NEGATIVE = (
    "Call Function 'probe.positive' Failed, method: 'checked', stage index(begin with 1): 1, "
    "error msg: x is -1.0, not positive"
)


@pytest.mark.parametrize("release", ["1_2", "2_0"])
def test_a_stub_generated_for_each_release_gets_the_right_answers(
    server: ServerProcess, stubs: Path, release: str
) -> None:
    answers = stub_answers(server, stubs, release)
    assert answers.pop("sums") == {
        "spec": ["probe", "add", 1],
        "instances": [
            {"y": [11, [2, 2], struct.pack("<4f", n + 1, 3, 4, 4 + n).hex(), []]} for n in range(3)
        ],
        "errors": [],
    }
    text, content = "grüße".encode().hex(), b"\xff\x00".hex()
    assert answers.pop("text")["instances"] == [{"x": [13, [1], "", [text]]}]
    assert answers.pop("bytes")["instances"] == [{"x": [14, [1], "", [content]]}]
    assert answers.pop("mixed") == {
        "spec": ["probe", "checked", 0],
        "instances": [{"y": [11, [], struct.pack("<f", 5).hex(), []]}, {}],
        "errors": [[0, ""], [3, NEGATIVE]],
    }
    if release == "2_0":
        (code, text), *others = answers.pop("shared input")["errors"]
        assert (code, others) == (2, [])
        assert text.endswith("input shared memory is not supported on a network port")
        (code, text), *others = answers.pop("shared output")["errors"]
        assert (code, others) == (2, [])
        assert text.startswith("Output buffers in shared memory are not supported")
    errors = {name: (answer["errors"], answer["instances"]) for name, answer in answers.items()}
    assert errors == {
        "refused": ([[3, NEGATIVE]], []),
        "unknown": (
            [[2, "Request servable(probe) method(add)  version(7) , servable is not available"]],
            [],
        ),
        "nothing": (
            [[2, "Instances count of request cannot be 0, servable: probe, method: add"]],
            [],
        ),
    }


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
