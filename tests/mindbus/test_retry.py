"""Calls that are made again, batches, and calls without an answer, of both clients."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mindbus import bus_errors
from mindbus.async_bus_client import AsyncBusClient
from mindbus.bus_calls import Options, encode_call
from mindbus.bus_client import BusClient
from mindbus.bus_errors import error_of
from mindbus.retry import Attempts, Retry
from protocol import head as heads
from protocol import limits, status
from tests.gateway.fakes import FakeBroker, fake_broker, in_thread

WAIT_S = 10
MS = 1_000_000
QUICK = Retry(attempts_max=4, pause_ms=1, pause_ms_max=2)


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with fake_broker() as broker:
        yield broker


def attempts(retry: Retry, timeout: float = 10.0) -> Attempts:
    head, _ = encode_call("add", "m", {"x": 1}, 0, timeout)
    return Attempts(retry, head, 0, random.Random(1))


# ---------------------------------------------------------------- the policy


@pytest.mark.parametrize("reason", status.REASONS)
def test_what_is_tried_again_is_what_the_table_of_reasons_says(reason: str) -> None:
    pause_ns = attempts(Retry()).pause_ns(error_of(reason, "text"), 0)
    assert (pause_ns is not None) == status.REASONS[reason].retry


def test_an_outcome_that_a_worker_gave_is_final() -> None:
    error = error_of("no_worker", "text", [error_of("no_worker", "text")])
    assert attempts(Retry()).pause_ns(error, 0) is None


def test_pauses_double_up_to_the_longest_and_half_of_each_is_left_to_chance() -> None:
    calls = attempts(Retry(attempts_max=6, pause_ms=100, pause_ms_max=500))
    error = error_of("queue_full", "text")
    for longest_ms in (100, 200, 400, 500, 500):
        pauses = [calls.pause_ns(error, 0) or 0 for _ in range(200)]
        assert longest_ms / 2 * MS <= min(pauses) < 0.6 * longest_ms * MS
        assert 0.9 * longest_ms * MS < max(pauses) <= longest_ms * MS
        calls.begin_next(0)
    assert calls.pause_ns(error, 0) is None


def test_nothing_is_tried_again_after_the_timeout_and_attempts_share_one_budget() -> None:
    calls = attempts(Retry(pause_ms=100), timeout=1.0)
    error = error_of("no_worker", "text")
    assert calls.pause_ns(error, 950 * MS) is None
    assert calls.pause_ns(error, 800 * MS) is not None
    calls.begin_next(900 * MS)
    head = heads.unpack(calls.head)
    assert (head.budget_ms, head.method, head.service) == (100, b"m", b"add/0")


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ({"attempts_max": 0}, "attempts_max must be at least 1, not 0"),
        ({"pause_ms": -1}, "pause_ms must be at least 0, not -1"),
        ({"pause_ms": 100, "pause_ms_max": 99}, "pause_ms_max must be at least 100, not 99"),
        ({"attempts_max": 1.5}, "attempts_max must be an int, not 1.5"),
    ],
)
def test_a_policy_out_of_range_is_refused(named: dict[str, Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        Retry(**named)


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ({"priority": "top"}, "priority must be one of high, normal, low, not 'top'"),
        ({"priority": None}, "priority must be one of"),
        ({"key": ""}, "key of 0 B"),
        ({"key": "ü" * 33}, "key of 66 B is not of 1 to key_bytes_max 64 B"),
        ({"key": 7}, "key must be a str or bytes, not 7"),
    ],
)
def test_options_that_cannot_be_sent_are_named(named: dict[str, Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        encode_call("add", "m", {"x": 1}, 0, 1.0, Options(**named))


def test_options_become_flags_and_the_key_the_last_frame() -> None:
    head, frames = encode_call("add", "m", {"x": 1}, 0, 1.0, Options("low", "grün", True))
    expected = heads.FLAG_COALESCE | heads.FLAG_LOW | heads.FLAG_KEYED | heads.FLAG_ONE_WAY
    assert heads.unpack(head).flags == expected
    assert heads.unpack(head).body_frames == len(frames) == 2
    assert frames[1] == "grün".encode()
    assert limits.KEY_BYTES_MAX == 64


# ---------------------------------------------------------------- both clients


def test_a_call_is_made_again_until_it_succeeds(broker: FakeBroker) -> None:
    with BusClient(broker.address, timeout=WAIT_S, retry=QUICK) as client:
        future = client.submit("add", "m", {"x": 1}, key="k", priority="high")
        budgets = []
        for reason in ("queue_full", "draining", "no_worker"):
            asked = broker.receive()
            budgets.append(asked.head.budget_ms)
            assert asked.frames[-1] == b"k"
            broker.fail(asked, reason, "text")
        asked = broker.receive()
        assert asked.head.flags & heads.FLAGS_PRIORITY == heads.FLAG_HIGH
        broker.answer_native(asked, [{"y": 1}])
        assert future.result(WAIT_S)[0]["y"] == 1
    assert budgets[0] <= WAIT_S * 1_000
    assert budgets == sorted(budgets, reverse=True)


@pytest.mark.parametrize("reason", ["invalid_inputs", "worker_lost", "deadline_exceeded"])
def test_what_will_not_pass_fails_at_once(broker: FakeBroker, reason: str) -> None:
    with BusClient(broker.address, timeout=WAIT_S, retry=QUICK) as client:
        future = client.submit("add", "m", {"x": 1})
        broker.fail(broker.receive(), reason, "text")
        with pytest.raises(bus_errors.BusError) as failed:
            future.result(WAIT_S)
        assert failed.value.reason == reason


def test_after_the_last_attempt_the_caller_is_told(broker: FakeBroker) -> None:
    with BusClient(broker.address, timeout=WAIT_S, retry=QUICK) as client:
        future = client.submit("add", "m", {"x": 1})
        for _ in range(QUICK.attempts_max):
            broker.fail(broker.receive(), "queue_full", "text")
        with pytest.raises(bus_errors.Overloaded):
            future.result(WAIT_S)
        assert not broker.router.poll(50)


def test_without_a_policy_a_call_is_made_once(broker: FakeBroker) -> None:
    with BusClient(broker.address, timeout=WAIT_S) as client:
        future = client.submit("add", "m", {"x": 1})
        broker.fail(broker.receive(), "queue_full", "text")
        with pytest.raises(bus_errors.Overloaded):
            future.result(WAIT_S)


def test_a_broker_that_is_restarted_is_bridged_and_one_that_stays_away_is_no_hang(
    broker: FakeBroker,
) -> None:
    retry = Retry(attempts_max=50, pause_ms=20, pause_ms_max=50)
    with BusClient(broker.address, timeout=WAIT_S, retry=retry) as client:
        future = client.submit("add", "m", {"x": 1})
        broker.receive()
        broker.stop()
        broker.start()
        broker.answer_native(broker.receive(), [{"y": 1}])
        assert future.result(WAIT_S)[0]["y"] == 1
        broker.stop()
        begin = time.monotonic()
        with pytest.raises((bus_errors.Unavailable, bus_errors.DeadlineExceeded)):
            client.infer("add", "m", {"x": 1}, timeout=0.5)
        assert time.monotonic() - begin < 5
        broker.start()


def test_a_call_in_its_pause_can_be_cancelled_and_ends_with_its_client(
    broker: FakeBroker,
) -> None:
    retry = Retry(pause_ms=60_000, pause_ms_max=60_000)
    with BusClient(broker.address, timeout=1_000, retry=retry) as client:
        cancelled, left = (client.submit("add", "m", {"x": n}) for n in range(2))
        for _ in range(2):
            broker.fail(broker.receive(), "queue_full", "text")
        done = client.submit("add", "m", {"x": 1})
        broker.answer_native(broker.receive(), [{"y": 1}])
        done.result(WAIT_S)
        assert cancelled.cancel()
    with pytest.raises(bus_errors.Unavailable, match="was closed"):
        left.result(WAIT_S)


def test_a_batch_leaves_in_one_go_and_each_has_its_own_answer(broker: FakeBroker) -> None:
    with BusClient(broker.address, timeout=WAIT_S) as client:
        futures = client.submit_many("add", "m", [{"x": n} for n in range(20)], priority="low")
        for number in range(20):
            asked = broker.receive()
            assert asked.head.flags & heads.FLAGS_PRIORITY == heads.FLAG_LOW
            broker.answer_native(asked, [{"y": number}])
        assert [each.result(WAIT_S)[0]["y"] for each in futures] == list(range(20))
        with pytest.raises(TypeError):
            client.submit_many("add", "m", [{"x": 1}, {"x": object()}])
        assert not broker.router.poll(50)


def test_a_call_without_an_answer_returns_when_it_is_on_its_way(broker: FakeBroker) -> None:
    client = BusClient(broker.address, timeout=WAIT_S)
    for number in range(3):
        client.send("add", "m", {"x": number})
    client.close()
    for _ in range(3):
        asked = broker.receive()
        assert asked.head.command == heads.REQUEST
        assert asked.head.flags & heads.FLAG_ONE_WAY
    nobody = BusClient("ipc:///tmp/no-such-directory/producers.ipc", timeout=0.2)
    with nobody, pytest.raises(bus_errors.Unavailable):
        nobody.send("add", "m", {"x": 1})


def test_the_asyncio_client_does_the_same(broker: FakeBroker) -> None:
    async def run() -> None:
        async with AsyncBusClient(broker.address, timeout=WAIT_S, retry=QUICK) as client:
            call = asyncio.create_task(client.infer("add", "m", {"x": 1}, key=b"k"))
            for reason in ("queue_full", "no_worker"):
                asked = await in_thread(broker.receive)
                assert asked.frames[-1] == b"k"
                broker.fail(asked, reason, "text")
            broker.answer_native(await in_thread(broker.receive), [{"y": 1}])
            assert (await call)[0]["y"] == 1
            call = asyncio.create_task(client.infer("add", "m", {"x": 1}))
            broker.fail(await in_thread(broker.receive), "invalid_inputs", "text")
            with pytest.raises(bus_errors.InvalidInputs):
                await call
            await client.send("add", "m", {"x": 1}, priority="low")
            asked = await in_thread(broker.receive)
            assert asked.head.flags & heads.FLAG_ONE_WAY
            assert asked.head.flags & heads.FLAG_LOW

    asyncio.run(run())
