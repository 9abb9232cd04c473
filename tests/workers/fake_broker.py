"""A ROUTER that plays the broker, a worker process under test, and the servable that it serves."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zmq

from protocol import control, head, native
from protocol.link_path import link_path
from protocol.link_socket import LinkLostError, LinkSocket, listen
from protocol.values import Failure

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30

#: Inputs of method `add`.
X1 = np.asarray([[1, 2], [3, 4]], np.float32)
X2 = np.asarray([[10, 20], [30, 40]], np.float32)

SERVABLE_CONFIG = """
import numpy as np
from workers.servable.registry import add_stage, declare_model, register_method

model = declare_model("add.json", "mindir")
executions = 0


def count(x):
    global executions
    executions += 1
    return np.int32(executions)


def wait_for_gate(path):
    with open(path) as gate:
        return gate.read()


def lengths(instances):
    return [np.int32(len(instances)) for _ in instances]


def give(size):
    return np.zeros(int(size), np.uint8)


@register_method(output_names=["y"])
def add(x1, x2):
    return add_stage(model, x1, x2, outputs_count=1)


@register_method(output_names=["executions"])
def counted(x):
    return add_stage(count, x, outputs_count=1)


@register_method(output_names=["text"])
def gated(path):
    return add_stage(wait_for_gate, path, outputs_count=1)


@register_method(output_names=["length"])
def batch_length(x):
    return add_stage(lengths, x, outputs_count=1, batch_size=8)


@register_method(output_names=["zeros"])
def zeros(size):
    return add_stage(give, size, outputs_count=1)
"""

MODEL = {
    "inputs": [
        {"name": "x1", "dtype": "float32", "shape": [4, 2, 2]},
        {"name": "x2", "dtype": "float32", "shape": [4, 2, 2]},
    ],
    "outputs": [{"name": "y", "dtype": "float32", "shape": [4, 2, 2]}],
    "op": "add",
}


class DeadlineError(Exception):
    """Something that must happen did not."""


class Place:
    """A short temporary directory with a servable `add`, version 1, and room for sockets."""

    def __init__(self, has_link: bool = False) -> None:
        self._has_link = has_link
        self.path = Path(tempfile.mkdtemp(dir="/tmp", prefix="mb"))
        version = self.path / "add" / "1"
        version.mkdir(parents=True)
        self.config = self.path / "add" / "servable_config.py"
        self.config.write_text(SERVABLE_CONFIG)
        self.model = version / "add.json"
        self.model.write_text(json.dumps(MODEL))
        self.address = f"ipc://{self.path}/workers.ipc"

    def gate(self) -> str:
        """Path of a FIFO; method `gated` waits until `open_gate` writes to it."""
        path = str(self.path / "gate")
        os.mkfifo(path)
        return path

    def document(self, **changes: object) -> dict[str, object]:
        document = {
            "servable_directory": str(self.path),
            "servable_name": "add",
            "version": 1,
            "version_asked": 1,
            "device_target": "CPU",
            "device_id": 0,
            "backend": "numpy",
            "workers_address": self.address,
            "worker_id": "add/1/device0",
            "generation": 1,
            "dec_key": None,
            "dec_mode": "AES-GCM",
            "parent_pid": os.getpid(),
            "batch_sizes": None,
        }
        if self._has_link:
            document["link_path"] = link_path(self.address)
        return document | changes

    def remove(self) -> None:
        shutil.rmtree(self.path)


class FakeBroker:
    """The broker's end of the worker leg, one worker at a time."""

    def __init__(self, address: str, interval_ms: int = 100, liveness: int = 50) -> None:
        self.welcome = control.Welcome(interval_ms, liveness)
        self._address = address
        self._context = zmq.Context()
        self._parcels: list[tuple[head.Head, list[bytes]]] = []
        self.worker = b""
        self._bind()

    def _bind(self) -> None:
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._socket.bind(self._address)

    def restart(self) -> None:
        """Close the socket and bind a new one, as a broker that was killed and started again."""
        self._socket.close()
        self._parcels.clear()
        deadline_ns = time.monotonic_ns() + DEADLINE_S * 10**9
        while True:
            try:
                self._bind()
                return
            except zmq.ZMQError as error:  # libzmq closes in the background
                if error.errno != zmq.EADDRINUSE or time.monotonic_ns() > deadline_ns:
                    raise
                self._socket.close()

    def close(self) -> None:
        self._context.destroy(linger=0)

    def receive(self, *commands: int) -> tuple[head.Head, list[bytes]]:
        """The next parcel with one of the commands; parcels of other commands are dropped."""
        end = time.monotonic() + DEADLINE_S
        while True:
            while self._parcels:
                parcel = self._parcels.pop(0)
                if parcel[0].command in commands:
                    return parcel
            parts = self._next_message(max(0, int((end - time.monotonic()) * 1000)))
            if parts is None:
                names = [head.COMMANDS[command] for command in commands]
                raise DeadlineError(f"none of {names} came in {DEADLINE_S} s")
            self._parcels = [(head.unpack(h), frames) for h, frames in head.split_parcels(parts)]

    def _next_message(self, wait_ms: int) -> list[bytes] | None:
        if not self._socket.poll(wait_ms):
            return None
        self.worker, *parts = self._socket.recv_multipart()
        return parts

    def send(self, *parts: bytes) -> None:
        self._socket.send_multipart([self.worker, *parts])

    def admit(self) -> control.Ready:
        """Wait for READY and answer WELCOME."""
        _, frames = self.receive(head.READY)
        self.send(*control.pack(self.welcome))
        return control.unpack_ready(frames)

    def reply(self) -> tuple[head.Head, list[bytes]]:
        return self.receive(head.REPLY)

    def message(self) -> list[tuple[head.Head, list[bytes]]]:
        """All replies of the next message that has any."""
        replies = [self.reply()]
        replies += [parcel for parcel in self._parcels if parcel[0].command == head.REPLY]
        self._parcels.clear()
        return replies

    def replies(self, count: int) -> dict[int, tuple[head.Head, list[bytes]]]:
        """The next replies, by ticket; each ticket exactly once."""
        replies = {}
        for _ in range(count):
            fields, frames = self.reply()
            assert fields.request_id not in replies
            replies[fields.request_id] = (fields, frames)
        return replies

    def ask(
        self, ticket: int, method: str, *instances: dict[str, object], **fields: object
    ) -> tuple[head.Head, list[bytes]]:
        """Send a request and take its reply."""
        self.send(*request(ticket, method, *instances, **fields))
        reply, frames = self.reply()
        assert reply.request_id == ticket
        return reply, frames

    def wait_until_busy(self, busy_ms: int = 0) -> None:
        """Wait for a heartbeat of a worker that computes; all that was sent before has arrived."""
        while True:
            _, frames = self.receive(head.HEARTBEAT)
            beat = control.unpack_heartbeat(frames)
            if beat.batch_seq and beat.busy_ms > busy_ms:
                return

    def drain(self) -> None:
        """Acknowledge the DRAIN of an idle worker and see it off."""
        self.receive(head.DRAIN)
        self.send(*control.pack(control.Drain()))
        self.receive(head.DISCONNECT)


class LinkBroker(FakeBroker):
    """The same over a link. The worker that connected last is the one that is spoken to."""

    def _bind(self) -> None:
        self._listening = listen(link_path(self._address))
        self._links: list[LinkSocket] = []
        self._messages: list[list[bytes]] = []

    def restart(self) -> None:
        self.close()
        self._parcels.clear()
        self._bind()

    def close(self) -> None:
        for each in (self._listening, *self._links):
            each.close()

    def _next_message(self, wait_ms: int) -> list[bytes] | None:
        end = time.monotonic() + wait_ms / 1000
        while not self._messages:
            left_s = end - time.monotonic()
            if left_s <= 0:
                return None
            waiting = [each for each in self._links if each.has_unsent]
            ready, writable, _ = select.select([self._listening, *self._links], waiting, [], left_s)
            for link in writable:
                link.send_rest()
            for each in ready:
                if each is self._listening:
                    self._links.append(LinkSocket(self._listening.accept()[0]))
                    continue
                try:
                    self._messages += each.receive()
                except LinkLostError:
                    self._links.remove(each)
        return self._messages.pop(0)

    @property
    def worker(self) -> LinkSocket | None:
        """The link of the worker that is spoken to."""
        return self._links[-1] if self._links else None

    @worker.setter
    def worker(self, _routing_id: bytes) -> None:
        """There is none here."""

    def send(self, *parts: bytes) -> None:
        self._links[-1].send(parts)


def request(ticket: int, method: str, *instances: dict[str, object], **fields: object):
    """A parcel: a native request for the servable `add`, asked for as its latest version."""
    return parcel(ticket, method, native.encode_request(instances), **fields)


def parcel(ticket: int, method: str, frames: list[bytes], **fields: object) -> list[bytes]:
    fixed = {"budget_ms": 60_000, "service": b"add/0", "body_frames": len(frames)} | fields
    made = head.Head(head.REQUEST, request_id=ticket, method=method.encode(), **fixed)
    return [head.pack(made), *frames]


def values_of(frames: list[bytes]) -> list[object]:
    """The results of a native reply as plain values; failures as they are."""
    return [
        result if isinstance(result, Failure) else {name: v.tolist() for name, v in result.items()}
        for result in native.decode_reply(frames)
    ]


def failure_of(frames: list[bytes]) -> tuple[str, str]:
    """Reason and message of a native reply to a request that failed as a whole."""
    error = native.decode_failure(frames)
    return error.reason, error.message


def open_gate(path: str, text: str) -> None:
    """Let method `gated` go on, which answers `text`."""
    Path(path).write_text(text)


class WorkerProcess:
    """A real `python -m workers`, its reports and its output."""

    def __init__(self, document: dict[str, object]) -> None:
        read_end, write_end = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers"],
            bufsize=0,  # lines that are read ahead would be hidden from `select`
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[write_end],
            env=os.environ | {"MINDBUS_REPORT_FD": str(write_end), "PYTHONPATH": str(ROOT)},
        )
        os.close(write_end)
        self._reports = os.fdopen(read_end, "rb", buffering=0)
        self.process.stdin.write(json.dumps(document).encode())
        self.process.stdin.close()
        self.process.stdin = None

    def report(self) -> dict[str, object]:
        """The next report."""
        ready, _, _ = select.select([self._reports], [], [], DEADLINE_S)
        if not ready:
            raise DeadlineError(f"no report in {DEADLINE_S} s")
        return json.loads(self._reports.readline())

    def output_line(self) -> str:
        """The next line of standard output."""
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
        if not ready:
            raise DeadlineError(f"no output in {DEADLINE_S} s")
        return self.process.stdout.readline().decode()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit(self) -> tuple[int, str, str]:
        """Exit code, rest of stdout, stderr, of a process that ends by itself."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out.decode(), err.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)
        self._reports.close()
