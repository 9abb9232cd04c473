"""The socket of client sessions, against a real router that closes and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from protocol import head as heads
from protocol import status
from protocol.client_session import ClientSession, ClientSettings
from protocol.dealer import Dealer

WAIT_MS = 10_000
REQUEST = heads.pack(
    heads.Head(heads.REQUEST, budget_ms=60_000, body_frames=1, service=b"add/1", method=b"add")
)
OK = heads.Head(heads.REPLY, status=status.OK, body_frames=1)


class Broker:
    """A ROUTER that answers when it is told to."""

    def __init__(self, address: str) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.bind(address)

    def receive(self) -> list[bytes]:
        """Client, head and frames of the next message."""
        assert self.router.poll(WAIT_MS)
        return self.router.recv_multipart()

    def answer(self, client: bytes, head: bytes, *frames: bytes) -> None:
        """Answer one request with its own frames."""
        request_id = heads.unpack(head).request_id
        reply = heads.pack(OK._replace(request_id=request_id))
        self.router.send_multipart([client, reply, *frames])

    def close(self) -> None:
        """Go, after all that was sent has left."""
        self.context.destroy(linger=WAIT_MS)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/producers.ipc"


@pytest.fixture
def dealer(address: str) -> Iterator[Dealer]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = Dealer(context, address)
    yield dealer
    dealer.close()
    context.term()


def turn_until_connected(dealer: Dealer, session: ClientSession) -> None:
    until_s = time.monotonic() + WAIT_MS / 1_000
    while not session.is_connected:
        assert time.monotonic() < until_s
        dealer.monitor.poll(100)
        dealer.receive_into(session)


def test_replies_that_came_before_the_broker_closed_count(address: str, dealer: Dealer) -> None:
    session, broker = ClientSession(ClientSettings()), Broker(address)
    turn_until_connected(dealer, session)
    for number in range(50):
        session.submit(REQUEST, [b"%d" % number], time.monotonic_ns())
    assert dealer.send_from(session)
    for _ in range(50):
        broker.answer(*broker.receive())
    broker.close()
    assert dealer.monitor.poll(WAIT_MS)
    time.sleep(0.05)  # libzmq tells of the end first, and then acts on it
    while dealer.receive_into(session):
        pass
    assert [(heads.unpack(head).status, frames) for _, head, frames in session.completed] == [
        (status.OK, [b"%d" % number]) for number in range(50)
    ]
    assert not session.is_connected


def test_what_was_queued_for_a_broker_that_is_gone_does_not_reach_the_next_one(
    address: str, dealer: Dealer
) -> None:
    session, broker = ClientSession(ClientSettings()), Broker(address)
    turn_until_connected(dealer, session)
    broker.close()
    assert dealer.monitor.poll(WAIT_MS)
    # Nobody has looked at the monitor yet: the session believes that it is connected.
    session.submit(REQUEST, [b"for the old one"], time.monotonic_ns())
    assert dealer.send_from(session)
    dealer.receive_into(session)
    [(_, head, _)] = session.completed
    assert heads.unpack(head).status == status.UNAVAILABLE
    broker = Broker(address)
    session.submit(REQUEST, [b"for the new one"], time.monotonic_ns())
    turn_until_connected(dealer, session)
    assert dealer.send_from(session)
    assert broker.receive()[2:] == [b"for the new one"]
    broker.close()
