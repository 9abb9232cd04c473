"""Real workers and a real broker with a bad network between them: cut, slow, in crumbs, reset."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.remote_bus import RemoteBus
from mindbus.bus_client import BusClient
from protocol import head as heads
from protocol import native
from tests.broker.test_broker_process import Broker
from tests.figures import Figures
from tests.processes.fault_proxy import BACK, FORTH, FaultProxy, Weather
from tests.processes.load import Ask, load
from tests.processes.waiting import DEADLINE_S, wait_reader, wait_until
from tests.workers.fake_broker import Place, WorkerProcess

pytestmark = pytest.mark.process

#: A worker that is silent for this long is lost.
HEARTBEATS = ("--heartbeat-interval-ms", "300", "--heartbeat-liveness", "5")
SILENCE_MS = 1_500

#: What the field asks for, and what a busy machine may add.
DETECTED_MS_MAX = 3_000 + 2_000

ZEROS = np.zeros((2, 2), np.float32)


class Net:
    """A broker, one worker beside it, and one behind a network that can be made bad."""

    def __init__(self, place: Place, *flags: str, has_near: bool = True) -> None:
        """has_near: there is a worker beside the broker from the beginning."""
        self.place = place
        self.broker = Broker(str(place.path), *flags)
        self.broker.report()
        self.proxy = FaultProxy(f"ipc://{place.path}/far", self.broker.workers)
        self.producers_proxy = FaultProxy(f"ipc://{place.path}/farp", self.broker.producers)
        self.client = BusClient(self.broker.producers, timeout=60)
        self.workers: list[WorkerProcess] = []
        self._add_worker("far", f"ipc://{place.path}/far")
        if has_near:
            self.add_near()
        names = {"near", "far"} if has_near else {"far"}
        wait_until(lambda: self.registered() == names)

    def add_near(self) -> None:
        """Start the worker beside the broker."""
        self._add_worker("near", self.broker.workers)

    def _add_worker(self, name: str, address: str) -> None:
        document = self.place.document(worker_id=name, workers_address=address)
        self.workers.append(WorkerProcess(document))

    def registered(self) -> set[str]:
        return {worker["worker_id"] for worker in self.client.stats()["workers"]}

    def counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.client.stats()["counters"]
        return counters

    def check_books(self) -> None:
        """Everything accepted has ended in exactly one way."""
        wait_until(lambda: self.client.stats()["requests"] == 0)
        counters = self.counters()
        ended = counters["answered"] + counters["failed"] + counters["cancelled"]
        assert counters["accepted"] == ended, counters
        assert counters["failed"] == 0, counters

    def close(self) -> None:
        self.client.close()
        for worker in self.workers:
            worker.close()
        self.proxy.close()
        self.producers_proxy.close()
        self.broker.close()


@pytest.fixture
def make_net() -> Iterator[Callable[..., Net]]:
    place = Place()
    nets: list[Net] = []

    def make(*flags: str, has_near: bool = True) -> Net:
        nets.append(Net(place, *flags, has_near=has_near))
        return nets[-1]

    yield make
    for net in nets:
        net.close()
    place.remove()


_numbers = itertools.count(1)
_lock = threading.Lock()


def asking(client: BusClient, answered: list[float]) -> Callable[[int], Ask]:
    """Requests that differ, each answer checked. answered: how long each took, in ms."""

    def ask() -> Any:
        with _lock:
            number = next(_numbers)
        begin_s = time.monotonic()
        (result,) = client.infer("add", "add", {"x1": ZEROS + number, "x2": ZEROS})
        answered.append((time.monotonic() - begin_s) * 1_000)
        values = result["y"].reshape(-1).tolist()
        return None if values == [number] * 4 else (number, values)

    return lambda _: ask


@pytest.mark.shows("F11")
@pytest.mark.parametrize("directions", [(FORTH, BACK), (FORTH,)], ids=["both", "to_broker"])
def test_a_worker_behind_a_cut_network_is_a_dead_one_and_comes_back(
    make_net: Callable[..., Net], directions: tuple[str, ...], figures: Figures, is_full: bool
) -> None:
    net = make_net(*HEARTBEATS)
    took_ms: list[float] = []
    with load(asking(net.client, took_ms), clients=8) as running:
        wait_until(lambda: len(took_ms) > 100)
        begin_s = time.monotonic()
        net.proxy.cut(*directions)
        wait_until(lambda: net.registered() == {"near"})
        detected_ms = (time.monotonic() - begin_s) * 1_000
        threading.Event().wait((60 if is_full else 5) - detected_ms / 1_000)
        assert net.registered() == {"near"}
        answered_in_the_cut = len(took_ms)
        healed_s = time.monotonic()
        net.proxy.heal()
        wait_until(lambda: net.registered() == {"near", "far"})
        back_ms = (time.monotonic() - healed_s) * 1_000
        wait_until(lambda: len(took_ms) > answered_in_the_cut + 100)
    assert running.failures == []
    net.check_books()
    counters = net.counters()
    assert counters["workers_lost"] >= 1
    assert counters["redispatched"] >= 1
    assert counters["malformed"] == 0
    assert net.client._session.replies_late == 0, "an id got two replies"
    assert all(worker.process.poll() is None for worker in net.workers)
    assert detected_ms < DETECTED_MS_MAX
    figures(
        detected_ms=detected_ms,
        back_ms=back_ms,
        slowest_reply_ms=max(took_ms),
        replies_stale=counters["replies_stale"],
    )


@pytest.mark.shows("F2", "F11")
def test_the_reply_of_a_worker_that_was_given_up_is_counted_and_not_delivered(
    make_net: Callable[..., Net], figures: Figures
) -> None:
    net = make_net(*HEARTBEATS, has_near=False)
    gate = Path(net.place.gate())
    future = net.client.submit("add", "gated", {"path": str(gate)})
    held = wait_reader(gate)
    net.proxy.cut()
    os.write(held, b"far")  # its reply is on its way, and held back
    os.close(held)
    wait_until(lambda: net.registered() == set())
    net.add_near()
    wait_until(lambda: [each["in_flight"] for each in net.client.stats()["workers"]] == [1])
    # The near worker computes the request again when the reply of the far one comes.
    healed_s = time.monotonic()
    net.proxy.heal()
    wait_until(lambda: net.counters()["replies_stale"] == 1)
    stale_ms = (time.monotonic() - healed_s) * 1_000
    wait_until(lambda: net.registered() == {"near", "far"})
    assert not future.done()
    gate.write_text("near")
    (result,) = future.result(DEADLINE_S)
    assert result["text"] == "near"
    net.check_books()
    counters = net.counters()
    assert (counters["accepted"], counters["answered"], counters["redispatched"]) == (1, 1, 1)
    assert (counters["replies_stale"], counters["malformed"]) == (1, 0)
    assert net.client._session.replies_late == 0, "an id got two replies"
    figures(stale_after_heal_ms=stale_ms)


@pytest.mark.shows("F11")
def test_a_cut_shorter_than_the_silence_that_is_allowed_only_costs_time(
    make_net: Callable[..., Net], figures: Figures
) -> None:
    net = make_net()
    took_ms: list[float] = []
    with load(asking(net.client, took_ms), clients=8) as running:
        wait_until(lambda: len(took_ms) > 100)
        net.proxy.cut()
        threading.Event().wait(3)
        net.proxy.heal()
        done = len(took_ms)
        wait_until(lambda: len(took_ms) > done + 100)
    assert running.failures == []
    net.check_books()
    assert net.counters()["workers_lost"] == 0
    assert net.proxy.connections == 1
    figures(slowest_reply_ms=max(took_ms))


@pytest.mark.shows("F12")
@pytest.mark.parametrize(
    "weather",
    [
        Weather(delay_ms=10, jitter_ms=20),
        Weather(slice_bytes=3),
        Weather(bytes_per_s=100_000),
    ],
    ids=["jitter", "crumbs", "narrow"],
)
def test_bad_weather_costs_time_and_nothing_else(
    make_net: Callable[..., Net], weather: Weather, figures: Figures
) -> None:
    net = make_net()
    net.proxy.weather = weather
    before = net.proxy.passed_bytes[BACK]
    took_ms: list[float] = []
    with load(asking(net.client, took_ms), clients=8) as running:
        wait_until(lambda: len(took_ms) > 300 and net.proxy.passed_bytes[BACK] > before + 2_000)
    assert running.failures == []
    net.check_books()
    counters = net.counters()
    assert (counters["malformed"], counters["workers_lost"]) == (0, 0)
    assert net.proxy.connections == 1
    figures(slowest_reply_ms=max(took_ms), median_ms=float(np.median(took_ms)))


@pytest.mark.shows("F12")
def test_connections_that_are_reset_are_made_again_and_nothing_is_lost(
    make_net: Callable[..., Net], figures: Figures
) -> None:
    net = make_net(*HEARTBEATS)
    took_ms: list[float] = []
    back_ms = []
    with load(asking(net.client, took_ms), clients=8) as running:
        for _ in range(3):
            done, connections = len(took_ms), net.proxy.connections
            wait_until(lambda done=done: len(took_ms) > done + 50)  # type: ignore[misc]
            begin_s = time.monotonic()
            net.proxy.reset()
            # Work of the far worker over a new connection.
            wait_until(lambda seen=connections: net.proxy.connections > seen)  # type: ignore[misc]
            passed = net.proxy.passed_bytes[FORTH]
            wait_until(lambda seen=passed: net.proxy.passed_bytes[FORTH] > seen + 2_000)  # type: ignore[misc]
            back_ms.append((time.monotonic() - begin_s) * 1_000)
    assert running.failures == []
    net.check_books()
    assert net.registered() == {"near", "far"}
    assert net.counters()["malformed"] == 0
    figures(back_ms=max(back_ms), slowest_reply_ms=max(took_ms))


@pytest.mark.shows("F11")
def test_a_gateway_cut_off_from_the_broker_answers_within_the_budget_and_serves_again(
    make_net: Callable[..., Net], figures: Figures
) -> None:
    net = make_net()
    budget_ms = 500
    took_ms: list[float] = []

    async def ask(bus: RemoteBus, number: int) -> Any:
        frames = native.encode_request([{"x1": ZEROS + number, "x2": ZEROS}])
        request = heads.Head(
            heads.REQUEST,
            budget_ms=budget_ms,
            body_frames=len(frames),
            service=b"add/0",
            method=b"add",
        )
        begin_s = time.monotonic()
        head, answer = await bus.request(heads.pack(request), frames)
        took_ms.append((time.monotonic() - begin_s) * 1_000)
        if heads.unpack(head).status:
            return native.decode_failure(answer).reason
        (result,) = native.decode_reply(answer)
        return result["y"].reshape(-1).tolist() == [number] * 4

    async def play() -> None:
        bus = RemoteBus(net.producers_proxy.address)
        try:
            assert await ask(bus, 1) is True
            net.producers_proxy.cut()
            took_ms.clear()
            answers = await asyncio.gather(*(ask(bus, number) for number in range(50)))
            assert set(answers) == {"deadline_exceeded"}
            figures(answered_ms=max(took_ms), budget_ms=budget_ms)
            assert max(took_ms) < budget_ms + bus.session.settings.slack_ms + 2_000
            net.producers_proxy.heal()
            until_s = time.monotonic() + 20
            while (answer := await ask(bus, 7)) is not True:
                assert answer in ("deadline_exceeded", "broker_lost")
                assert time.monotonic() < until_s
            assert bus.session.outstanding_count == 0
        finally:
            await bus.close()

    asyncio.run(play())
    wait_until(lambda: net.client.stats()["requests"] == 0)
