"""A client that reads nothing: the broker's memory stays bounded, and others are served."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from protocol import head as heads
from protocol import limits
from protocol.native import decode_failure
from tests.broker.helpers import ready, request

pytestmark = pytest.mark.process

DEADLINE_S = 60.0
UNREAD_BYTES_MAX = 64 * limits.MIB
BODY = bytes(4 * limits.MIB)
REQUESTS = 200

#: What a broker needs besides the unread replies: what it has just received, and its allocator.
SLACK_BYTES = 192 * limits.MIB


class World:
    """A broker process; this process plays its worker and its clients."""

    def __init__(self, directory: str) -> None:
        self.producers, workers = f"ipc://{directory}/p", f"ipc://{directory}/w"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.broker.small_broker"),
                *(self.producers, workers, str(UNREAD_BYTES_MAX)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "bound\n"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.worker = self._dealer(workers)
        self.worker.send_multipart(ready("slot1", credit=4))
        assert self.worker.recv_multipart()[0][3] == heads.WELCOME

    def _dealer(self, address: str, receive_hwm: int = 1_000) -> zmq.Socket[bytes]:
        dealer = self.context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.rcvtimeo = int(DEADLINE_S * 1_000)
        dealer.rcvhwm = receive_hwm
        dealer.connect(address)
        return dealer

    def client(self) -> zmq.Socket[bytes]:
        """A client that leaves all but one message in its connection until it is read."""
        return self._dealer(self.producers, receive_hwm=1)

    def work(self, count: int, body: bytes = BODY) -> None:
        """Answer so many requests."""
        answered = 0
        until_s = time.monotonic() + DEADLINE_S
        while answered < count:
            assert time.monotonic() < until_s, f"{answered} of {count} requests came"
            parts = self.worker.recv_multipart()
            at = 0
            while at < len(parts):
                asked = heads.unpack(parts[at])
                at += 1 + asked.body_frames
                if asked.command == heads.REQUEST:
                    answer = heads.Head(
                        heads.REPLY,
                        flags=heads.FLAG_BODY_LARGE,
                        request_id=asked.request_id,
                        body_frames=1,
                    )
                    self.worker.send_multipart([heads.pack(answer), body])
                    answered += 1

    def memory_bytes(self) -> int:
        """What the broker holds in memory now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4096

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mb") as directory:
        made = World(directory)
        yield made
        made.close()


@pytest.mark.shows("F10")
def test_a_client_that_never_reads_costs_bounded_memory_and_others_are_served(
    world: World,
) -> None:
    before = world.memory_bytes()
    slow, quick = world.client(), world.client()
    for number in range(REQUESTS):
        slow.send_multipart(request(number))
        world.work(1)
        if number % 50 == 49:
            quick.send_multipart(request(number))
            world.work(1)
            assert quick.recv_multipart()[1] == BODY
    assert world.memory_bytes() - before < UNREAD_BYTES_MAX + SLACK_BYTES < REQUESTS * len(BODY)
    answers = [slow.recv_multipart() for _ in range(REQUESTS)]
    assert [heads.unpack(head).request_id for head, _ in answers] == list(range(REQUESTS))
    # What its connection took leaves room for some more.
    whole = [body == BODY for _, body in answers]
    assert UNREAD_BYTES_MAX // len(BODY) <= sum(whole) < REQUESTS // 4
    assert all(whole[: UNREAD_BYTES_MAX // len(BODY)])
    assert not any(whole[REQUESTS // 2 :])
    failure = decode_failure(answers[-1][1:])
    assert failure.reason == "unread_bytes_full"
    assert failure.message.endswith(f"unread_bytes_max is {UNREAD_BYTES_MAX}")
    slow.send_multipart(request(REQUESTS))
    world.work(1)
    assert slow.recv_multipart()[1] == BODY


def test_many_small_replies_in_one_message_count_like_a_large_one(world: World) -> None:
    # Coalesced: the client allows several replies in one message.
    slow = world.client()
    body = bytes(60_000)
    for start in range(0, 4_000, 4):
        parcels = [request(start + at, flags=heads.FLAG_COALESCE) for at in range(4)]
        slow.send_multipart([part for parcel in parcels for part in parcel])
        world.work(4, body)
    assert world.memory_bytes() < UNREAD_BYTES_MAX + 2 * SLACK_BYTES
