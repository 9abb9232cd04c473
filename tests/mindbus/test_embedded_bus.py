"""The broker in an event loop: replies, cancellation, deadlines and the end."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import zmq

from broker.admission import Settings
from broker.core import Core
from broker.switch import Switch
from mindbus.embedded_bus import EmbeddedBus
from protocol import head as heads
from protocol.native import decode_failure
from tests.broker.helpers import ready, reply, request

DEADLINE_S = 10.0


class EchoWorker:
    """A worker thread that answers every request with its own body, in reverse order.

    hold: how many requests it collects before it answers.
    """

    def __init__(self, address: str, hold: int = 1) -> None:
        self._address = address
        self._hold = hold
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(self._address)
        socket.send_multipart(ready("slot1", credit=64))
        held: list[tuple[bytes, list[bytes]]] = []
        while not self._stop.is_set():
            if not socket.poll(20):
                continue
            for head, frames in heads.split_parcels(socket.recv_multipart()):
                if head[3] == heads.REQUEST:
                    held.append((head, frames))
            if len(held) >= self._hold:
                answers = [
                    part
                    for head, frames in reversed(held)
                    for part in reply(heads.unpack(head).request_id, frames[0])
                ]
                socket.send_multipart(answers)
                held.clear()
        context.destroy(linger=0)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def directory() -> Iterator[str]:
    path = tempfile.mkdtemp(dir="/tmp", prefix="mb")
    yield path
    shutil.rmtree(path)


def run(
    directory: str, hold: int, scenario: Callable[[EmbeddedBus, Core], Awaitable[None]]
) -> Core:
    """Run a scenario against a bus with one echo worker; the invariants hold at its end."""
    core = Core(Settings())
    switch = Switch(core, [f"ipc://{directory}/p"], f"ipc://{directory}/w")
    worker = EchoWorker(switch.workers_address, hold)

    async def main() -> None:
        bus = EmbeddedBus(switch)
        while not core.registration.workers:
            await asyncio.sleep(0.001)
        try:
            await asyncio.wait_for(scenario(bus, core), DEADLINE_S)
            core.check_invariants()
        finally:
            await bus.close()

    try:
        asyncio.run(main())
    finally:
        worker.stop()
    return core


def parcel(body: bytes, budget_ms: int = 0) -> tuple[bytes, list[bytes]]:
    head, *frames = request(0, body=body, budget_ms=budget_ms, flags=heads.FLAG_COALESCE)
    return head, frames


def test_each_request_gets_its_own_reply_whatever_the_order(directory: str) -> None:
    async def scenario(bus: EmbeddedBus, core: Core) -> None:
        bodies = [b"%d" % number for number in range(32)]
        replies = await asyncio.gather(*(bus.request(*parcel(body)) for body in bodies))
        assert [bytes(frames[0]) for _, frames in replies] == bodies
        assert core.load() == (0, 0)

    run(directory, 32, scenario)


def test_a_large_body_comes_back_unchanged(directory: str) -> None:
    large = bytes(range(256)) * 4096

    async def scenario(bus: EmbeddedBus, _: Core) -> None:
        _, frames = await bus.request(*parcel(large))
        assert bytes(frames[0]) == large

    run(directory, 1, scenario)


def test_cancelling_the_task_cancels_the_request(directory: str) -> None:
    async def scenario(bus: EmbeddedBus, core: Core) -> None:
        task = asyncio.create_task(bus.request(*parcel(b"never")))
        while core.load()[0] == 0:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert core.load() == (0, 0)
        assert core.counters.cancelled == 1

    run(directory, 2, scenario)


def test_the_deadline_answers_while_the_worker_is_silent(directory: str) -> None:
    async def scenario(bus: EmbeddedBus, _: Core) -> None:
        head, frames = await bus.request(*parcel(b"late", budget_ms=30))
        assert heads.unpack(head).status
        assert decode_failure(frames).reason == "deadline_exceeded"

    run(directory, 2, scenario)


def test_closing_tells_everyone_who_waits(directory: str) -> None:
    async def scenario(bus: EmbeddedBus, core: Core) -> None:
        task = asyncio.create_task(bus.request(*parcel(b"never")))
        while core.load()[0] == 0:
            await asyncio.sleep(0)
        await bus.close()
        _, frames = await task
        assert decode_failure(frames).reason == "draining"

    run(directory, 2, scenario)


@pytest.mark.pure
def test_a_refusal_is_answered_without_a_look_at_the_sockets(directory: str) -> None:
    class Watched(Switch):
        turns = 0

        def turn(self, sockets_are_due: bool = True) -> bool:
            self.turns += 1
            return super().turn(sockets_are_due)

    async def main() -> None:
        core = Core(Settings(requests_max=0))
        core.registration.expect(b"add/1", time.monotonic_ns())
        switch = Watched(core, [f"ipc://{directory}/p"], f"ipc://{directory}/w")
        bus = EmbeddedBus(switch)
        await asyncio.sleep(0)
        turns = switch.turns
        for _ in range(100):
            _, frames = await bus.request(*parcel(b"x"))
            assert decode_failure(frames).reason == "queue_full"
        assert switch.turns - turns < 20  # ZeroMQ itself may wake it now and then
        await bus.close()

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


@pytest.mark.pure
def test_a_bug_of_the_broker_ends_it_and_leaves_nobody_waiting(directory: str) -> None:
    class Faulty(Core):
        def handle_timer(self, now_ns: int) -> None:
            if self.load()[0]:
                raise RuntimeError("a mistake of ours")
            super().handle_timer(now_ns)

    async def main() -> None:
        core = Faulty(Settings())
        core.registration.expect(b"add/1", time.monotonic_ns())
        bus = EmbeddedBus(Switch(core, [f"ipc://{directory}/p"], f"ipc://{directory}/w"))
        _, frames = await bus.request(*parcel(b"never"))
        assert decode_failure(frames).reason == "broker_lost"
        assert bus.ended.is_set()
        await bus.close()

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))
