"""The bus over ZeroMQ, against a ROUTER that the test reads and answers by hand."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from gateway.remote_bus import RemoteBus
from protocol import head as heads
from protocol import limits, native, status
from protocol.client_session import ClientSettings
from protocol.errors import RequestError
from tests.gateway.fakes import FakeBroker, fake_broker, in_thread, reply_head

HEAD = heads.pack(
    heads.Head(
        heads.REQUEST,
        flags=heads.FLAG_COALESCE,
        dialect=heads.DIALECT_RESTFUL,
        body_frames=1,
        service=b"add/1",
        method=b"m",
    )
)
LARGE = heads.pack(heads.unpack(HEAD)._replace(flags=heads.FLAG_COALESCE | heads.FLAG_BODY_LARGE))
OK = reply_head(heads.DIALECT_RESTFUL)

PATIENT = ClientSettings(is_patient=True)

RUNNERS = [asyncio.run, uvloop.run]


def on_loop(scene: Callable[[RemoteBus, FakeBroker], Awaitable[None]], run=asyncio.run) -> None:  # type: ignore[no-untyped-def]
    """Run a scene with a connected bus; afterwards its session must be sound."""

    async def play() -> None:
        with fake_broker() as broker:
            bus = RemoteBus(broker.address)
            try:
                assert await bus.wait_connected(10)
                await scene(bus, broker)
                bus.session.check_invariants()
            finally:
                await bus.close()

    run(play())


@pytest.mark.parametrize("run", RUNNERS)
def test_a_reply_finds_its_request_whatever_the_order(run) -> None:  # type: ignore[no-untyped-def]
    async def scene(bus: RemoteBus, broker: FakeBroker) -> None:
        calls = [asyncio.create_task(bus.request(HEAD, [b"%d" % i])) for i in range(20)]
        asked = [await in_thread(broker.receive) for _ in calls]
        assert [a.frames for a in asked] == [[b"%d" % i] for i in range(20)]
        assert asked[0].head.service == b"add/1"
        for one in reversed(asked):
            broker.reply(one.client, (one.head.request_id, OK, [b"re " + one.frames[0]]))
        replies = await asyncio.gather(*calls)
        assert [frames[0] for _, frames in replies] == [b"re %d" % i for i in range(20)]

    on_loop(scene, run)


def test_several_replies_in_one_message_reach_their_requests() -> None:
    async def scene(bus: RemoteBus, broker: FakeBroker) -> None:
        calls = [asyncio.create_task(bus.request(HEAD, [b"%d" % i])) for i in range(3)]
        asked = [await in_thread(broker.receive) for _ in calls]
        broker.reply(
            asked[0].client,
            *((one.head.request_id, OK, [b"re " + one.frames[0]]) for one in asked),
        )
        replies = await asyncio.gather(*calls)
        assert [frames[0] for _, frames in replies] == [b"re 0", b"re 1", b"re 2"]

    on_loop(scene)


@pytest.mark.parametrize("run", RUNNERS)
def test_a_large_body_comes_back_as_it_was_sent(run) -> None:  # type: ignore[no-untyped-def]
    body = bytes(range(256)) * 40_000

    async def scene(bus: RemoteBus, broker: FakeBroker) -> None:
        call = asyncio.create_task(bus.request(LARGE, [body]))
        asked = await in_thread(broker.receive)
        large = heads.pack(heads.unpack(OK)._replace(flags=heads.FLAG_BODY_LARGE))
        broker.reply(asked.client, (asked.head.request_id, large, asked.frames))
        _, frames = await call
        assert bytes(frames[0]) == body

    on_loop(scene, run)


@pytest.mark.parametrize("run", RUNNERS)
def test_thousands_of_requests_at_once_are_all_answered(run) -> None:  # type: ignore[no-untyped-def]
    async def scene(bus: RemoteBus, broker: FakeBroker) -> None:
        def echo() -> None:
            for _ in range(3_000):
                asked = broker.receive()
                broker.reply(asked.client, (asked.head.request_id, OK, asked.frames))

        echoing = asyncio.create_task(in_thread(echo))
        calls = [bus.request(HEAD, [b"%d" % i]) for i in range(3_000)]
        replies = await asyncio.wait_for(asyncio.gather(*calls), 10)
        await echoing
        assert [frames[0] for _, frames in replies] == [b"%d" % i for i in range(3_000)]

    on_loop(scene, run)


def test_cancelling_a_request_sends_cancel_and_drops_the_late_reply() -> None:
    async def scene(bus: RemoteBus, broker: FakeBroker) -> None:
        call = asyncio.create_task(bus.request(HEAD, [b"a"]))
        asked = await in_thread(broker.receive)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        cancel = await in_thread(broker.receive)
        assert cancel.head.command == heads.CANCEL
        assert cancel.head.request_id == asked.head.request_id
        broker.reply(asked.client, (asked.head.request_id, OK, [b"late"]))
        second = asyncio.create_task(bus.request(HEAD, [b"b"]))
        asked = await in_thread(broker.receive)
        broker.reply(asked.client, (asked.head.request_id, OK, [b"B"]))
        assert (await second)[1] == [b"B"]
        assert bus.session.replies_late == 1

    on_loop(scene)


def reason_of(reply: tuple[bytes, object]) -> str:
    head, frames = reply
    fields = heads.unpack(head)
    reason = native.decode_failure(frames).reason  # type: ignore[arg-type]
    assert (fields.dialect, fields.status) == (
        heads.DIALECT_NATIVE,
        status.REASONS[reason].grpc,
    )
    return reason


@pytest.mark.parametrize("run", RUNNERS)
def test_a_broker_that_goes_away_fails_what_is_outstanding_and_may_come_back(run) -> None:  # type: ignore[no-untyped-def]
    async def scene(bus: RemoteBus, broker: FakeBroker) -> None:
        calls = [asyncio.create_task(bus.request(HEAD, [b"a"])) for _ in range(2)]
        await in_thread(broker.receive)
        broker.stop()
        replies = await asyncio.wait_for(asyncio.gather(*calls), 10)
        assert [reason_of(reply) for reply in replies] == ["broker_lost"] * 2
        early = asyncio.create_task(bus.request(HEAD, [b"early"]))
        await asyncio.sleep(0)
        broker.start()
        assert await bus.wait_connected(10)
        asked = await in_thread(broker.receive)
        assert asked.frames == [b"early"]
        broker.reply(asked.client, (asked.head.request_id, OK, [b"E"]))
        assert (await early)[1] == [b"E"]

    on_loop(scene, run)


def test_a_broker_that_never_was_there_fails_a_request_after_the_patience() -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory(dir="/tmp") as directory:
            bus = RemoteBus(f"ipc://{directory}/none.ipc", ClientSettings(patience_ms=20))
            try:
                reply = await asyncio.wait_for(bus.request(HEAD, [b"a"]), 10)
                assert reason_of(reply) == "broker_lost"
                assert not await bus.wait_connected(0)
            finally:
                await bus.close()

    asyncio.run(play())


def test_a_broker_that_never_answers_is_given_up_after_the_budget() -> None:
    async def play() -> None:
        with fake_broker() as broker:
            settings = ClientSettings(budget_ms_default=10, slack_ms=10)
            bus = RemoteBus(broker.address, settings)
            try:
                assert await bus.wait_connected(10)
                reply = await asyncio.wait_for(bus.request(HEAD, [b"a"]), 10)
                assert reason_of(reply) == "deadline_exceeded"
            finally:
                await bus.close()

    asyncio.run(play())


def test_closing_fails_what_is_outstanding_and_all_that_follows() -> None:
    async def scene(bus: RemoteBus, broker: FakeBroker) -> None:
        call = asyncio.create_task(bus.request(HEAD, [b"a"]))
        await in_thread(broker.receive)
        await bus.close()
        assert reason_of(await call) == "broker_lost"
        assert reason_of(await bus.request(HEAD, [b"b"])) == "broker_lost"

    on_loop(scene)


def test_statistics_come_as_a_map() -> None:
    async def scene(bus: RemoteBus, broker: FakeBroker) -> None:
        asking = asyncio.create_task(bus.stats())
        asked = await in_thread(broker.receive)
        assert asked.head.command == heads.STATS
        head = heads.pack(heads.Head(heads.STATS, body_frames=1))
        body = native.pack_meta({"workers": 2})
        broker.reply(asked.client, (asked.head.request_id, head, [body]))
        assert await asking == {"workers": 2}
        asking = asyncio.create_task(bus.stats())
        await in_thread(broker.receive)
        broker.stop()
        with pytest.raises(RequestError) as lost:
            await asking
        assert lost.value.reason == "broker_lost"

    on_loop(scene)


def test_bytes_that_are_no_protocol_are_counted_and_harm_nothing() -> None:
    async def scene(bus: RemoteBus, broker: FakeBroker) -> None:
        call = asyncio.create_task(bus.request(HEAD, [b"a"]))
        asked = await in_thread(broker.receive)
        broker.router.send_multipart([asked.client, b"GET / HTTP/1.1"])
        broker.router.send_multipart([asked.client, b"", b""])
        broker.reply(asked.client, (asked.head.request_id, OK, [b"A"]))
        assert (await call)[1] == [b"A"]
        assert bus.session.messages_malformed == 2

    on_loop(scene)


def test_an_address_that_is_none_is_refused_at_once() -> None:
    async def play() -> None:
        with pytest.raises(ValueError, match="nonsense"):
            RemoteBus("nonsense")

    asyncio.run(play())


def test_nothing_stays_open_after_close() -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def play() -> None:
        before = open_files()
        for _ in range(3):
            bus = RemoteBus("ipc:///tmp/mindbus-nobody.ipc")
            await bus.close()
            await bus.close()
        assert open_files() == before

    asyncio.run(play())


def test_what_a_draining_broker_refuses_goes_to_the_next_one() -> None:
    async def play() -> None:
        with fake_broker() as broker:
            bus = RemoteBus(broker.address, PATIENT)
            await in_thread(broker.agree)
            assert await bus.wait_connected(10)
            calls = [asyncio.create_task(bus.request(HEAD, [b"0"]))]
            broker.fail(await in_thread(broker.receive), "draining", "it goes down")
            while bus.session.is_connected:
                await asyncio.sleep(0)
            calls += [asyncio.create_task(bus.request(HEAD, [b"%d" % i])) for i in (1, 2)]
            await asyncio.sleep(0)
            broker.stop()
            broker.start()
            await in_thread(broker.agree)
            asked = [await in_thread(broker.receive) for _ in calls]
            assert sorted(one.frames[0] for one in asked) == [b"0", b"1", b"2"]
            assert len({one.head.request_id for one in asked}) == 3
            assert 0 < asked[0].head.budget_ms <= limits.BUDGET_MS_DEFAULT
            for one in asked:
                broker.reply(one.client, (one.head.request_id, OK, [b"re " + one.frames[0]]))
            replies = [await call for call in calls]
            assert [frames for _, frames in replies] == [[b"re %d" % i] for i in range(3)]
            bus.session.check_invariants()
            await bus.close()

    asyncio.run(play())


def test_what_a_draining_broker_refuses_does_not_outlive_its_budget() -> None:
    async def play() -> None:
        with fake_broker() as broker:
            bus = RemoteBus(broker.address, PATIENT)
            await in_thread(broker.agree)
            assert await bus.wait_connected(10)
            short = heads.pack(heads.unpack(HEAD)._replace(budget_ms=200))
            call = asyncio.create_task(bus.request(short, [b"x"]))
            broker.fail(await in_thread(broker.receive), "draining", "it goes down")
            head, frames = await asyncio.wait_for(call, 10)
            assert head[heads.STATUS_OFFSET] == status.UNAVAILABLE
            assert native.decode_failure(frames).reason == "broker_lost"
            await bus.close()

    asyncio.run(play())
