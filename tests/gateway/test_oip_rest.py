"""The Open Inference Protocol at the REST door."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.content_coding import unpacked
from gateway.http_messages import HttpAnswer, HttpRequest
from gateway.oip_repository import NOT_ALLOWED
from gateway.oip_rest_handler import OipRestHandler
from gateway.oip_rest_target import OipTarget, parse_oip_target
from gateway.rest_door import RestDoor
from gateway.rest_router import RestRouter
from gateway.restful_handler import RestfulHandler
from protocol import head as heads
from protocol import limits
from protocol.errors import RequestError
from tests.gateway.oip_fakes import FakeControl, WorkerBus, server, stats

INFER = b"/v2/models/add/infer"


def tensor(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [1, 2], **more}


ADD = {"id": "7", "inputs": [tensor("x1", data=[1, 2]), tensor("x2", data=[[3, 4]])]}


class Asker:
    """A handler and the bus behind it."""

    def __init__(self, may_load: bool) -> None:
        self.bus, self.control = WorkerBus(), FakeControl()
        oip = server(self.bus, self.control if may_load else None)
        self.handler = OipRestHandler(self.bus, oip, limits.MIB)

    async def get(self, target: bytes) -> HttpAnswer:
        return await self.handler.handle(HttpRequest("GET", target))

    async def post(
        self, target: bytes = INFER, document: Any = ADD, headers: Any = (), **more: Any
    ) -> HttpAnswer:
        body = document if isinstance(document, bytes | None) else json.dumps(document).encode()
        return await self.handler.handle(HttpRequest("POST", target, headers, body, **more))


Scene = Callable[[Asker], Awaitable[None]]


def play(scene: Scene, may_load: bool = False) -> None:
    async def run() -> None:
        await scene(Asker(may_load))

    asyncio.run(run())


def error(answer: HttpAnswer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["error"]


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/v2", OipTarget("server_metadata")),
        (b"/v2/", OipTarget("server_metadata")),
        (b"/v2?x=1", OipTarget("server_metadata")),
        (b"/v2/health/live", OipTarget("live")),
        (b"/v2/health/ready/", OipTarget("ready")),
        (b"/v2/models", OipTarget("models")),
        (b"/v2/models/add", OipTarget("model_metadata", "add")),
        (b"/v2/models/a%2Fd.m/ready", OipTarget("model_ready", "a/d.m")),
        (b"/v2/models/add/versions/3", OipTarget("model_metadata", "add", "3")),
        (b"/v2/models/add/versions/canary/infer", OipTarget("infer", "add", "canary")),
        (b"/v2/models/add/config?x", OipTarget("model_config", "add")),
        (b"/v2/models/infer/infer", OipTarget("infer", "infer")),
        (b"/v2/models/stats", OipTarget("statistics")),
        (b"/v2/models/add/versions/2/stats", OipTarget("statistics", "add", "2")),
        (b"/v2/repository/index", OipTarget("index")),
        (b"/v2/repository/models/add/load", OipTarget("load", "add")),
        (b"/v2/repository/models/add/unload", OipTarget("unload", "add")),
        (b"/v2/models/add/versions/", None),
        (b"/v2/models/add/other", None),
        (b"/v2/health", None),
        (b"/v2/models/%ff", None),
        (b"/v2/repository/models/add", None),
    ],
)
def test_targets(target: bytes, expected: OipTarget | None) -> None:
    assert parse_oip_target(target) == expected


def test_what_is_not_there_and_other_verbs() -> None:
    async def scene(asker: Asker) -> None:
        assert error(await asker.get(b"/v2/x")) == (404, "nothing is at /v2/x")
        answer = await asker.get(INFER)
        assert error(answer) == (405, "verb GET is not POST")
        assert answer.headers == ((b"allow", b"POST"),)

    play(scene)


# ---------------------------------------------------------------- inference


def test_json_travels_unopened_and_the_reply_comes_back() -> None:
    async def scene(asker: Asker) -> None:
        answer = await asker.post()
        assert (answer.status, answer.content_type, answer.headers) == (
            200,
            b"application/json",
            (),
        )
        assert json.loads(answer.body) == {
            "model_name": "add",
            "model_version": "2",
            "id": "7",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [4, 6]}],
        }
        (head,) = asker.bus.asked
        assert (head.service, head.method) == (b"add/0", b"add")
        assert (head.dialect, head.budget_ms) == (heads.DIALECT_OIP_JSON, 0)

    play(scene)


def test_versions_are_in_the_target() -> None:
    async def scene(asker: Asker) -> None:
        await asker.post(b"/v2/models/add/versions/1/infer")
        await asker.post(b"/v2/models/add.add/versions/stable/infer")
        assert [head.service for head in asker.bus.asked] == [b"add/1", b"add/stable/0"]

    play(scene)


def test_binary_tensors_go_in_and_come_out() -> None:
    row = np.array([1, 2], np.float32).tobytes()
    inputs = [tensor(name, parameters={"binary_data_size": 8}) for name in ("x1", "x2")]
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()

    async def scene(asker: Asker) -> None:
        length = (b"inference-header-content-length", str(len(text)).encode())
        answer = await asker.post(document=text + row + row, headers=[length])
        assert (answer.status, answer.content_type) == (200, b"application/octet-stream")
        ((name, value),) = answer.headers
        assert name == b"inference-header-content-length"
        document = json.loads(answer.body[: int(value)])
        assert document["outputs"][0]["parameters"] == {"binary_data_size": 8}
        assert np.frombuffer(answer.body[int(value) :], np.float32).tolist() == [2, 4]

    play(scene)


@pytest.mark.parametrize("value", [b"x", b"0", b"-1", b"999", b"99999999999"])
def test_a_header_length_that_is_none_is_named(value: bytes) -> None:
    async def scene(asker: Asker) -> None:
        headers = [(b"inference-header-content-length", value)]
        code, text = error(await asker.post(document=b"{}", headers=headers))
        assert code == 400
        assert text == (
            f"header Inference-Header-Content-Length is {value.decode()!r}, the body has 2 B"
        )

    play(scene)


def test_deadlines_come_from_the_header_or_the_parameters() -> None:
    async def scene(asker: Asker) -> None:
        await asker.post(headers=[(b"grpc-timeout", b"5S")], reading_ms=1_000)
        await asker.post(document=ADD | {"parameters": {"timeout": 2_000_000}})
        first, second = (head.budget_ms for head in asker.bus.asked)
        assert 3_000 < first <= 4_000
        assert 1_000 < second <= 2_000
        code, _ = error(await asker.post(headers=[(b"grpc-timeout", b"x")]))
        assert code == 400

    play(scene)


def test_the_priority_is_a_level_as_triton_counts_them() -> None:
    async def scene(asker: Asker) -> None:
        for level in (0, 1, 2, 3, 7, "1"):
            await asker.post(document=ADD | {"parameters": {"priority": level}})
        flags = [head.flags & heads.FLAGS_PRIORITY for head in asker.bus.asked]
        high, low = heads.FLAG_HIGH, heads.FLAG_LOW
        assert flags == [0, high, 0, low, low, high]
        code, text = error(await asker.post(document=ADD | {"parameters": {"priority": "urgent"}}))
        assert code == 400
        assert text.startswith("parameter priority 'urgent' is not a level: 1 (high), 2 or 0 (")

    play(scene)


@pytest.mark.parametrize(
    ("document", "code", "text"),
    [
        (b"", 400, "the body is empty, an inference request has one"),
        (None, 413, "the body exceeds max_msg_mb_size, 1048576 B"),
        (b"[]", 400, "body is not an inference request: the document is a list, not an object"),
        ({"inputs": []}, 400, "input 'x1' of method add of add is missing"),
        (
            {"inputs": [tensor("x1", data=[-1, 2]), tensor("x2", data=[3, 4])]},
            500,
            "negative",
        ),
    ],
)
def test_failures_have_their_code(document: Any, code: int, text: str) -> None:
    async def scene(asker: Asker) -> None:
        answer = await asker.post(document=document)
        assert error(answer) == (code, text)
        assert answer.headers[0][0] == b"mindbus-reason"

    play(scene)


def test_models_that_are_not_there_are_404() -> None:
    async def scene(asker: Asker) -> None:
        assert error(await asker.post(b"/v2/models/x/infer")) == (404, "model 'x' is not served")
        assert (await asker.get(b"/v2/models/x")).status == 404
        assert (await asker.get(b"/v2/models/x/ready")).status == 404
        assert (await asker.get(b"/v2/models/add/versions/9")).status == 404

    play(scene)


@pytest.mark.parametrize(
    ("reason", "code", "retry"),
    [
        ("queue_full", 429, b"1"),
        ("no_worker", 503, b"1"),
        ("deadline_exceeded", 504, None),
        ("worker_lost", 500, None),
    ],
)
def test_refusals_say_whether_to_come_again(reason: str, code: int, retry: bytes | None) -> None:
    async def scene(asker: Asker) -> None:
        await asker.post()
        asker.bus.refusal = RequestError(reason, "because")
        answer = await asker.post()
        assert error(answer) == (code, "because")
        headers = dict(answer.headers)
        assert headers[b"mindbus-reason"] == reason.encode()
        assert headers.get(b"retry-after") == retry

    play(scene)


def test_an_event_stream_has_one_event_with_the_reply_or_the_error() -> None:
    async def scene(asker: Asker) -> None:
        accept = [(b"accept", b"text/event-stream")]
        answer = await asker.post(headers=accept)
        assert (answer.status, answer.content_type) == (200, b"text/event-stream")
        assert answer.body.startswith(b"data: {")
        assert answer.body.endswith(b"}\n\n")
        assert json.loads(answer.body[6:])["outputs"][0]["data"] == [4, 6]
        bad = await asker.post(document={"inputs": []}, headers=accept)
        assert json.loads(bad.body[6:]) == {"error": "input 'x1' of method add of add is missing"}
        binary = ADD | {"parameters": {"binary_data_output": True}}
        refused = await asker.post(document=binary, headers=accept)
        assert error(refused) == (400, "binary outputs do not fit into an event stream")

    play(scene)


# ---------------------------------------------------------------- compressed bodies


def test_compressed_bodies_are_unpacked() -> None:
    text = json.dumps(ADD).encode()

    async def scene(asker: Asker) -> None:
        for encoding, body in (
            (b"gzip", gzip.compress(text, mtime=0)),
            (b"deflate", zlib.compress(text)),
        ):
            answer = await asker.post(document=body, headers=[(b"content-encoding", encoding)])
            assert answer.status == 200
        plain = await asker.post(headers=[(b"content-encoding", b"identity")])
        assert plain.status == 200

    play(scene)


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (gzip.compress(bytes(2_000), mtime=0), b"gzip", "body_too_large"),
        (b"no", b"gzip", "malformed"),
        (gzip.compress(b"x", mtime=0)[:-1], b"gzip", "malformed"),
        (gzip.compress(b"x", mtime=0) + b"y", b"gzip", "malformed"),
        (b"x", b"br", "unsupported"),
    ],
)
def test_what_cannot_be_unpacked_within_the_limit_is_refused(
    body: bytes, encoding: bytes, reason: str
) -> None:
    with pytest.raises(RequestError) as raised:
        unpacked(body, encoding, 1_000)
    assert raised.value.reason == reason


# ---------------------------------------------------------------- health, metadata, repository


def test_health_of_server_and_models() -> None:
    async def scene(asker: Asker) -> None:
        assert (await asker.get(b"/v2/health/live")).status == 200
        assert (await asker.get(b"/v2/health/ready")).body == b'{"ready":true}'
        assert (await asker.get(b"/v2/models/add/ready")).body == b'{"name":"add","ready":true}'
        assert (await asker.get(b"/v2/models/add/versions/2/ready")).status == 200
        assert (await asker.get(b"/v2/models/add/versions/9/ready")).status == 404

    play(scene)


def test_who_is_not_ready_says_why() -> None:
    async def scene(asker: Asker) -> None:
        asker.bus.stats = stats("it drains")
        assert error(await asker.get(b"/v2/health/ready")) == (503, "it drains")
        assert error(await asker.get(b"/v2/models/add/versions/1/ready")) == (503, "it drains")
        assert (await asker.get(b"/v2/models/other.one/ready")).status == 200
        assert (await asker.get(b"/v2/health/live")).status == 200

    play(scene)


def test_metadata_and_configuration() -> None:
    async def scene(asker: Asker) -> None:
        said = json.loads((await asker.get(b"/v2")).body)
        assert (said["name"], said["version"]) == ("mindbus", "1.2.3")
        assert json.loads((await asker.get(b"/v2/models/add")).body) == {
            "name": "add",
            "versions": ["1", "2"],
            "platform": "mindspore",
            "inputs": [
                {"name": "x1", "datatype": "FP32", "shape": [-1, 2]},
                {"name": "x2", "datatype": "FP32", "shape": [-1, 2]},
            ],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        }
        names = json.loads((await asker.get(b"/v2/models")).body)["models"]
        assert names == ["add.add", "add.shout", "other.one.plus"]
        config = json.loads((await asker.get(b"/v2/models/add/config")).body)
        assert config["max_batch_size"] == 8
        assert config["input"][0] == {"name": "x1", "data_type": "TYPE_FP32", "dims": [2]}

    play(scene)


def test_statistics_of_one_model_and_of_all() -> None:
    async def scene(asker: Asker) -> None:
        every = json.loads((await asker.get(b"/v2/models/stats")).body)["model_stats"]
        assert [(each["name"], each["version"]) for each in every] == [
            ("add.add", "1"), ("add.shout", "1"), ("add.add", "2"), ("add.shout", "2"),
            ("other.one.plus", "7"),
        ]  # fmt: skip
        (one,) = json.loads((await asker.get(b"/v2/models/add/versions/2/stats")).body)[
            "model_stats"
        ]
        assert 0 <= time.time() * 1_000 - 1_000 - one.pop("last_inference") < 60_000
        assert one == {
            "name": "add",
            "version": "2",
            "inference_count": 12,
            "execution_count": 5,
            "inference_stats": {
                "success": {"count": 3, "ns": 900},
                "fail": {"count": 1, "ns": 50},
                "queue": {"count": 3, "ns": 300},
                "compute_input": {"count": 3, "ns": 0},
                "compute_infer": {"count": 3, "ns": 600},
                "compute_output": {"count": 3, "ns": 0},
            },
        }
        assert (await asker.get(b"/v2/models/nobody/stats")).status == 404
        assert (await asker.get(b"/v2/models/add/versions/9/stats")).status == 404

    play(scene)


def test_the_repository_over_rest() -> None:
    async def scene(asker: Asker) -> None:
        index = json.loads((await asker.post(b"/v2/repository/index", b"")).body)
        assert [item["version"] for item in index] == ["1", "2", "7"]
        load = b"/v2/repository/models/add/load"
        assert (await asker.post(load, {"parameters": {"version": 3}})).status == 200
        assert (await asker.post(load, b"")).status == 200
        assert asker.control.loaded == [("add", 3), ("add", 0)]
        assert (await asker.post(load, b"{")).status == 400
        assert (await asker.post(b"/v2/repository/index", {"ready": 1})).status == 400
        assert (await asker.post(load, [])).status == 400
        assert (await asker.post(load, {"parameters": []})).status == 400
        assert (await asker.post(b"/v2/repository/models/add/unload", b"")).status == 501

    play(scene, may_load=True)


def test_a_load_that_is_not_allowed_is_403() -> None:
    async def scene(asker: Asker) -> None:
        answer = await asker.post(b"/v2/repository/models/add/load", b"")
        assert error(answer) == (403, NOT_ALLOWED)

    play(scene)


# ---------------------------------------------------------------- the door


def test_curl_reaches_both_interfaces_at_one_door(tmp_path: Path) -> None:
    async def run() -> None:
        bus = WorkerBus()
        router = RestRouter(
            RestfulHandler(bus, limits.MIB), OipRestHandler(bus, server(bus), limits.MIB), b"{}"
        )
        door = await RestDoor.open(router, "127.0.0.1:0", 1)

        async def curl(path: str, *flags: str) -> str:
            command = ["curl", "-sS", "-m", "10", *flags, f"http://{door.address}{path}"]
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, check=True
            )
            return done.stdout

        try:
            said = await curl(INFER.decode(), "-d", json.dumps(ADD))
            assert json.loads(said)["outputs"][0]["data"] == [4, 6]
            said = await curl(INFER.decode(), "-N", "-H", "Accept: text/event-stream",
                              "-d", json.dumps(ADD))  # fmt: skip
            assert said.startswith("data: {")
            said = await curl("/v2/health/ready", "-o", "/dev/null", "-w", "%{http_code}")
            assert said == "200"
            assert "error_msg" in await curl("/model/add", "-d", "{}")
            large = tmp_path / "large"
            large.write_bytes(bytes(limits.MIB + 1))
            flags = ("--data-binary", f"@{large}", "-w", "%{http_code}")
            big = await curl(INFER.decode(), *flags)
            assert big.endswith("413")
        finally:
            await door.close(0)

    asyncio.run(run())
