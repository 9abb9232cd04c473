"""`mindbus infer`: what is sent, what is printed, and the exit code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindbus import infer_command
from protocol import head as heads
from protocol import native
from protocol.values import BytesValue, StringValue
from tests.gateway.fakes import Asked, FakeBroker, fake_broker
from tests.mindbus.test_bus_client import METHOD, in_background

WAIT_S = 10


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with fake_broker() as broker:
        yield broker


def start(broker: FakeBroker, *arguments: str) -> Future[Any]:
    """Run the command as `mindbus` would; the future has its exit code."""
    parser = argparse.ArgumentParser()
    infer_command.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["infer", "add", "m", "--address", broker.address, *arguments])
    return in_background(parsed.run, parsed)


def sent(asked: Asked, *names: str) -> list[tuple[Any, ...]]:
    return native.decode_request(asked.frames, METHOD._replace(inputs=names))


def test_instances_go_out_and_results_are_printed_as_json(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    call = start(
        broker,
        "--json",
        '[{"x": [[1, 2], [3, 4]], "f": 0.5, "q": [true], "t": "text", "b": {"b64": "AAE="}}]',
        "--version-number",
        "3",
    )
    asked = broker.receive()
    assert (asked.head.service, asked.head.method) == (b"add/3", b"m")
    ((x, f, q, t, b),) = sent(asked, "x", "f", "q", "t", "b")
    assert [(v.dtype.name, v.tolist()) for v in (x, f, q)] == [
        ("int32", [[1, 2], [3, 4]]),
        ("float32", 0.5),
        ("bool", [True]),
    ]
    assert (t, b) == (StringValue("text"), BytesValue(b"\x00\x01"))
    y = np.array([1.5, np.nan], np.float32)
    broker.answer_native(asked, [{"y": y, "n": np.int64(7), "t": "réponse", "b": b"\x00\x01"}])
    assert call.result(WAIT_S) == infer_command.EXIT_OK
    printed = capsys.readouterr().out
    assert json.loads(printed) == [{"y": [1.5, None], "n": 7, "t": "réponse", "b": {"b64": "AAE="}}]
    assert "réponse" in printed


def test_priority_and_key_go_with_the_request(broker: FakeBroker) -> None:
    call = start(broker, "--json", '{"x": 1}', "--priority", "low", "--key", "order-17")
    asked = broker.receive()
    assert asked.head.flags & heads.FLAGS_PRIORITY == heads.FLAG_LOW
    assert bytes(asked.frames[-1]) == b"order-17"
    broker.answer_native(asked, [{"y": np.int64(7)}])
    assert call.result(WAIT_S) == infer_command.EXIT_OK


def test_inputs_come_from_files(
    broker: FakeBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.arange(3, dtype=np.float16))
    (tmp_path / "cat.png").write_bytes(b"\x89PNG")
    call = start(broker, "--input", f"x={tmp_path}/x.npy", "--input", f"image={tmp_path}/cat.png")
    asked = broker.receive()
    ((x, image),) = sent(asked, "x", "image")
    assert (x.dtype.name, x.tolist(), image) == ("float16", [0, 1, 2], BytesValue(b"\x89PNG"))
    broker.answer_native(asked, [{"y": 1}])
    assert call.result(WAIT_S) == infer_command.EXIT_OK
    assert json.loads(capsys.readouterr().out) == {"y": 1}


def test_a_failed_instance_is_printed_in_its_place(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    call = start(broker, "--json", '[{"x": 1}, {"x": 2}]')
    meta = {"instances": [{"y": 5}, None], "errors": [None, [3, "stage failed"]]}
    broker.answer_frames(broker.receive(), [native.pack_meta(meta)])
    assert call.result(WAIT_S) == infer_command.EXIT_FAILED
    assert json.loads(capsys.readouterr().out) == [
        {"y": 5},
        {"error": "stage failed", "reason": "system_error"},
    ]


def test_a_failed_request_is_told_on_stderr(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    call = start(broker, "--json", '{"x": 1}')
    broker.fail(broker.receive(), "unknown_service", "service add/0 is not available")
    assert call.result(WAIT_S) == infer_command.EXIT_FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("mindbus infer: unknown_service: service add/0 is not available\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--json or --input is needed"),
        (["--json", "{"], "--json is not JSON"),
        (["--json", "5"], "--json must be an object, or an array of at least one object"),
        (["--json", "[]"], "--json must be an object, or an array of at least one object"),
        (["--json", '{"x": null}'], "input 'x': null is neither number nor bool"),
        (["--json", '{"x": [1, "a"]}'], "input 'x': [1, \"a\"] is neither number nor bool"),
        (["--json", '{"x": [[1], 2]}'], "input 'x': the array is ragged"),
        (["--json", '{"x": 2147483648}'], "input 'x': an integer is outside of int32"),
        (["--json", '{"x": {"b64": "!"}}'], "input 'x': "),
        (["--json", '{"x": {"b65": ""}}'], "input 'x': an object must be"),
        (["--input", "x"], "--input must be NAME=FILE, not 'x'"),
        (["--input", "x=/nonexistent"], "No such file or directory: '/nonexistent'"),
        (["--json", "{}", "--timeout", "0"], "timeout must be above 0"),
        (["--json", "{}", "--key", "k" * 65], "65"),
    ],
)
def test_a_wrong_command_line_is_told_on_stderr(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert start(broker, *arguments).result(WAIT_S) == infer_command.EXIT_USAGE
    assert text in capsys.readouterr().err
