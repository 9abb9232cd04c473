"""`python -m broker` as an operator starts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import zmq

from protocol import head as heads
from tests.broker.helpers import ready, reply, request

pytestmark = pytest.mark.process

DEADLINE_MS = 20_000


@pytest.fixture
def directory() -> Iterator[str]:
    path = tempfile.mkdtemp(dir="/tmp", prefix="mb")
    yield path
    shutil.rmtree(path)


class Broker:
    """A broker process and sockets to it."""

    def __init__(self, directory: str, *flags: str) -> None:
        self.producers, self.workers = f"ipc://{directory}/p", f"ipc://{directory}/w"
        self._reports, report_fd = os.pipe()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "broker"),
                *("--producers", self.producers, "--workers", self.workers, *flags),
            ],
            env=os.environ | {"MINDBUS_REPORT_FD": str(report_fd)},
            pass_fds=[report_fd],
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(report_fd)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def report(self) -> dict[str, object]:
        """The line that tells that the sockets are bound."""
        line: dict[str, object] = json.loads(os.read(self._reports, 4096))
        return line

    def socket(self, address: str) -> zmq.Socket[bytes]:
        peer = self.context.socket(zmq.DEALER)
        peer.linger = 0
        peer.set(zmq.RCVTIMEO, DEADLINE_MS)
        peer.connect(address)
        return peer

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._reports)
        self.context.destroy(linger=0)


@pytest.fixture
def broker(directory: str) -> Iterator[Broker]:
    running = Broker(directory)
    yield running
    running.close()


@pytest.mark.shows("F31", "R21")
def test_it_carries_a_request_and_drains_on_sigterm_without_losing_it(broker: Broker) -> None:
    assert broker.report()["state"] == "ready"
    worker, client = broker.socket(broker.workers), broker.socket(broker.producers)
    worker.send_multipart(ready("slot1"))
    assert worker.recv_multipart()[0][3] == heads.WELCOME
    client.send_multipart(request(1))
    head = worker.recv_multipart()[0]
    broker.process.send_signal(signal.SIGTERM)
    client.send_multipart(request(2))
    refused = heads.unpack(client.recv_multipart()[0])
    assert refused.request_id == 2
    assert refused.status
    worker.send_multipart(reply(heads.unpack(head).request_id))
    answered = heads.unpack(client.recv_multipart()[0])
    assert (answered.request_id, answered.status) == (1, 0)
    assert broker.process.wait(DEADLINE_MS / 1_000) == 0


def test_a_second_signal_ends_it_at_once(broker: Broker) -> None:
    broker.report()
    worker, client = broker.socket(broker.workers), broker.socket(broker.producers)
    worker.send_multipart(ready("slot1"))
    worker.recv_multipart()
    client.send_multipart(request(1))
    worker.recv_multipart()
    broker.process.send_signal(signal.SIGTERM)
    client.send_multipart(request(2))
    client.recv_multipart()
    broker.process.send_signal(signal.SIGINT)
    assert broker.process.wait(DEADLINE_MS / 1_000) == 0


def test_a_client_that_asks_again_and_again_does_not_keep_it(directory: str) -> None:
    broker = Broker(directory, "--grace-ms", "600000")
    broker.report()
    client = broker.socket(broker.producers)
    client.send_multipart(request(1))  # of a servable that nobody knows
    client.recv_multipart()
    broker.process.send_signal(signal.SIGTERM)
    until_s = time.monotonic() + DEADLINE_MS / 1_000
    while broker.process.poll() is None and time.monotonic() < until_s:
        with suppress(zmq.Again):  # it is gone
            client.send_multipart(request(1), zmq.DONTWAIT)
        client.poll(10)
    assert broker.process.poll() == 0
    broker.close()


def test_an_address_that_cannot_be_bound_is_one_clear_line(directory: str) -> None:
    long = "ipc:///tmp/" + "x" * 200
    broker = Broker(directory, "--producers", long)
    assert broker.process.wait(DEADLINE_MS / 1_000) == 1
    assert broker.process.stderr is not None
    message = broker.process.stderr.read()
    assert message.startswith("mindbus broker: ipc path of")
    assert message.count("\n") == 1
    broker.close()
