"""A switch with real sockets, and sockets of its peers."""

from __future__ import annotations

import time
from typing import Any

import zmq

from broker.admission import Settings
from broker.core import Core
from broker.switch import Switch
from protocol import head as heads
from tests.broker.helpers import ready

DEADLINE_S = 10.0


class Peers:
    """A switch and the sockets of its peers, all on one thread."""

    def __init__(self, directory: str) -> None:
        self.producers = f"ipc://{directory}/p"
        self.workers = f"ipc://{directory}/w"
        self.core = Core(Settings())
        self.switch = Switch(self.core, [self.producers, "tcp://127.0.0.1:0"], self.workers)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def socket(self, kind: int, address: str) -> zmq.Socket[bytes]:
        peer = self.context.socket(kind)
        peer.linger = 0
        peer.connect(address)
        return peer

    def receive(self, peer: zmq.Socket[bytes]) -> list[bytes]:
        """Turn the switch until the peer has a message."""
        until_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < until_s:
            self.switch.turn()
            if peer.poll(1):
                return peer.recv_multipart()
        raise AssertionError("no message came")

    def turn_until(self, condition: Any) -> None:
        until_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < until_s, "the condition never held"
            self.switch.turn()

    def worker(self, name: str = "slot1", credit: int = 4) -> zmq.Socket[bytes]:
        worker = self.socket(zmq.DEALER, self.workers)
        worker.send_multipart(ready(name, credit=credit))
        (head, _) = self.receive(worker)
        assert head[3] == heads.WELCOME
        return worker
