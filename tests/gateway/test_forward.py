"""Requests that are forwarded without a task: their answers, failures, bugs and ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.bus import Bus, Done, Reply
from gateway.exchange import current
from gateway.grpc_calls import Connection, Inbox, budget_ms_of
from gateway.grpc_rpcs import Rpc
from gateway.h2_call import Call
from gateway.http_forward import ForwardedRequest, begin_exchange
from gateway.http_messages import HttpAnswer, HttpRequest
from gateway.journal import Journal
from gateway.oip_rest_handler import OipRestHandler
from gateway.rest_door import RestDoor
from gateway.rest_router import RestRouter
from gateway.restful_handler import RestfulHandler
from protocol import limits
from protocol.errors import RequestError
from protocol.native import Buffer
from tests.gateway.oip_fakes import WorkerBus, server

REQUEST = HttpRequest("POST", b"/x", ((b"x-request-id", b"r1"),), b"body")


class HandBus:
    """A bus that is answered by hand."""

    def __init__(self) -> None:
        self.submitted: list[tuple[bytes, Sequence[Buffer], Done]] = []
        self.cancelled: list[object] = []

    def submit(self, head: bytes, frames: Sequence[Buffer], done: Done) -> object:
        self.submitted.append((head, frames, done))
        return len(self.submitted)

    def cancel(self, submitted: object) -> None:
        self.cancelled.append(submitted)

    async def request(self, head: bytes, frames: Sequence[Buffer]) -> Reply:
        raise AssertionError("nothing is awaited here")


class Scripted:
    """A forwarder that does what it is told, and remembers which exchange was the current one."""

    def __init__(self, bus: Bus, asks: Exception | None = None, tells: Any = None) -> None:
        self.bus = bus
        self.asks = asks
        self.tells = tells
        self.seen: list[object] = []

    def look(self, request: HttpRequest) -> str | None:
        return "the plan"

    def ask(
        self, request: HttpRequest, plan: str, budget_ms: int | None
    ) -> tuple[bytes, list[Buffer]]:
        assert plan == "the plan"
        self.seen.append(current())
        if self.asks is not None:
            raise self.asks
        return b"head", [request.body or b""]

    def told(self, head: bytes, frames: Sequence[Buffer]) -> HttpAnswer:
        self.seen.append(current())
        if isinstance(self.tells, Exception):
            raise self.tells
        return HttpAnswer(200, bytes(frames[0]))

    def failed(self, plan: str, error: RequestError) -> HttpAnswer:
        self.seen.append(current())
        return HttpAnswer(400, error.message.encode())


class Way:
    """One request on its way; `answers` are what its connection got."""

    def __init__(self, **script: Any) -> None:
        self.bus = HandBus()
        self.forwarder = Scripted(self.bus, **script)
        self.journal = Journal()
        self.exchange = begin_exchange(self.journal, REQUEST, "me")
        self.answers: list[HttpAnswer | None] = []
        self.forwarded = ForwardedRequest(
            self.forwarder, "the plan", self.exchange, self.journal, self.answers.append
        )
        self.forwarded.begin(REQUEST, None)

    def reply(self, body: bytes) -> None:
        ((_, _, done),) = self.bus.submitted
        done(b"head", [body])

    @property
    def codes(self) -> dict[str, int]:
        door = self.journal.numbers.doors["rest"]
        assert door.inflight == 1 - sum(door.codes.values())
        return door.codes


def test_the_reply_of_the_bus_is_the_answer_and_each_step_finds_its_exchange() -> None:
    way = Way()
    assert [(head, list(frames)) for head, frames, _ in way.bus.submitted] == [(b"head", [b"body"])]
    assert (way.answers, way.forwarded.is_over, way.codes, current()) == ([], False, {}, None)
    way.reply(b"42")
    assert way.answers == [HttpAnswer(200, b"42", ((b"x-request-id", b"r1"),))]
    assert (way.forwarded.is_over, way.codes, current()) == (True, {"OK": 1}, None)
    assert way.forwarder.seen == [way.exchange] * 2


def test_what_is_wrong_with_a_request_is_answered_at_once() -> None:
    way = Way(asks=RequestError("invalid_inputs", "no such priority"))
    assert not way.bus.submitted
    assert [answer and answer[:2] for answer in way.answers] == [(400, b"no such priority")]
    assert (way.forwarded.is_over, current()) == (True, None)
    assert way.forwarder.seen == [way.exchange] * 2


def test_a_failure_that_the_reply_tells_is_the_answer() -> None:
    way = Way(tells=RequestError("queue_full", "too much"))
    way.reply(b"")
    assert [answer and answer[:2] for answer in way.answers] == [(400, b"too much")]


@pytest.mark.parametrize("script", [{"asks": KeyError("a bug")}, {"tells": KeyError("a bug")}])
def test_a_bug_is_told_and_counted(script: dict[str, Any]) -> None:
    way = Way(**script)
    if way.bus.submitted:
        way.reply(b"")
    assert (way.answers, way.codes, current()) == ([None], {"INTERNAL": 1}, None)


def test_who_goes_away_takes_his_request_along() -> None:
    way = Way()
    way.forwarded.cancel()
    assert (way.bus.cancelled, way.codes) == ([1], {"CANCELLED": 1})
    assert way.answers == []


@pytest.mark.process
def test_a_client_that_goes_away_cancels_what_was_forwarded_for_it() -> None:
    def request(number: int) -> bytes:
        data = b",".join([b"%d" % number] * 2)
        body = b'{"inputs":[{"name":"x1","shape":[1,2],"datatype":"FP32","data":[%s]},' % data
        body += b'{"name":"x2","shape":[1,2],"datatype":"FP32","data":[%s]}]}' % data
        head = b"POST /v2/models/add/infer HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n"
        return head % len(body) + body

    async def play() -> None:
        bus = WorkerBus()
        oip = OipRestHandler(bus, server(bus), limits.MIB)
        router = RestRouter(RestfulHandler(bus, limits.MIB), oip, b"{}")
        door = await RestDoor.open(router, "127.0.0.1:0", 1)
        host, port = door.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(3):  # then its head is known, and whom it is for
            writer.write(request(11))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(size)
        before = asyncio.all_tasks()
        writer.write(request(99))
        await asyncio.wait_for(bus.waiting.wait(), 10)
        ours = {"_answer", "handle", "_infer"}
        assert not ours & {task.get_coro().__name__ for task in asyncio.all_tasks() - before}  # type: ignore[union-attr]
        writer.close()
        await asyncio.wait_for(bus.cancelled.wait(), 10)
        await door.close(0)

    asyncio.run(play())


@pytest.mark.parametrize(("left_ns", "budget_ms"), [(10_000_001, 11), (10_000_000, 10), (-5, 1)])
def test_of_what_a_client_waits_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, left_ns: int, budget_ms: int
) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 7_000_000_000)
    inbox = Inbox(Rpc(_answers_nothing))
    assert budget_ms_of(inbox) is None
    inbox.deadline_ns = 7_000_000_000 + left_ns
    assert budget_ms_of(inbox) == budget_ms


async def _answers_nothing(connection: Connection, call: Call, inbox: Inbox) -> None:
    """No call comes here."""
