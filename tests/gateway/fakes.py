"""Fakes of the other side: a bus with scripted replies, a broker's ROUTER, and key material."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from gateway.bus import Done, Reply, request_by
from gateway.tls import TlsSettings
from protocol import head as heads
from protocol import native, status
from protocol.native import Buffer

#: A wait in a test may take this long before the test fails.
WAIT_MS = 10_000


def reply_head(dialect: int, code: int = status.OK, request_id: int = 0) -> bytes:
    """The head of a reply with one body frame."""
    return heads.pack(
        heads.Head(heads.REPLY, dialect=dialect, status=code, request_id=request_id, body_frames=1)
    )


def bus_failure(reason: str, message: str) -> tuple[bytes, list[Buffer]]:
    """A reply in which the bus itself fails the request."""
    head = reply_head(heads.DIALECT_NATIVE, status.REASONS[reason].grpc)
    return head, native.encode_failure(None, reason, message)


class AwaitedBus(ABC):
    """A bus whose replies a coroutine makes. Replies to what is cancelled never come."""

    @abstractmethod
    async def reply(self, head: bytes, frames: Sequence[Buffer]) -> Reply:
        """The reply to a request."""

    def submit(self, head: bytes, frames: Sequence[Buffer], done: Done) -> object:
        task = asyncio.get_running_loop().create_task(self.reply(head, frames))

        def hand_over(task: asyncio.Task[Reply]) -> None:
            if not task.cancelled():
                done(*task.result())

        task.add_done_callback(hand_over)
        return task

    def cancel(self, submitted: object) -> None:
        assert isinstance(submitted, asyncio.Task)
        submitted.cancel()

    def request(self, head: bytes, frames: Sequence[Buffer]) -> Awaitable[Reply]:
        return request_by(self, head, frames)


class FakeBus(AwaitedBus):
    """A bus that records what it is asked and answers with what it was given.

    answer: a reply, or a function of the request's head and frames that makes one; None: no reply
    ever comes, and a cancelled request sets `cancelled`.
    """

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[tuple[heads.Head, list[Buffer]]] = []
        self.cancelled = asyncio.Event()
        self.arrived = asyncio.Event()

    async def reply(self, head: bytes, frames: Sequence[Buffer]) -> Reply:
        self.asked.append((heads.unpack(head), list(frames)))
        self.arrived.set()
        if self.answer is None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if callable(self.answer):
            made: Reply = self.answer(head, frames)
            return made
        head, frames = self.answer
        return head, frames


class Asked(NamedTuple):
    """One parcel as it came to the fake broker."""

    client: bytes
    head: heads.Head
    frames: list[bytes]


class FakeBroker:
    """A ROUTER that a test reads and answers by hand. Every wait ends after WAIT_MS."""

    def __init__(self, address: str | None = None) -> None:
        self.directory = None
        if address is None:
            # The socket's path must stay below 108 bytes, which pytest's own directories are not.
            self.directory = tempfile.mkdtemp(dir="/tmp", prefix="mindbus-")
            address = f"ipc://{self.directory}/producers.ipc"
        self.address = address
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.start()

    def start(self) -> None:
        self.router = self._context.socket(zmq.ROUTER)
        self.router.linger = 0
        self.router.set(zmq.ROUTER_MANDATORY, 1)
        self.router.bind(self.address)

    def stop(self) -> None:
        """As if the process had died: every connection breaks."""
        self.router.close(linger=0)

    def receive(self) -> Asked:
        assert self.router.poll(WAIT_MS), "nothing came to the broker"
        client, *parts = self.router.recv_multipart()
        ((head, frames),) = heads.split_parcels(parts)
        return Asked(client, heads.unpack(head), frames)

    def agree(self) -> None:
        """A patient client asks whether this broker drains: it does not."""
        asked = self.receive()
        assert asked.head.command == heads.DRAIN
        self.router.send_multipart([asked.client, heads.pack(heads.Head(heads.HEARTBEAT))])

    def reply(self, client: bytes, *parcels: tuple[int, bytes, list[bytes]]) -> None:
        """Send one message of replies, each (request id, head, frames)."""
        message = [client]
        for request_id, head, frames in parcels:
            message += [heads.restamp(head, request_id, 0), *frames]
        self.router.send_multipart(message)

    def answer_native(self, asked: Asked, results: list[dict[str, Any]]) -> None:
        """Answer a native request with named values."""
        frames: list[Buffer] = [b""]
        items = [{k: native.encode_value(v, frames) for k, v in row.items()} for row in results]
        frames[0] = native.pack_meta({"instances": items})
        self.answer_frames(asked, frames)

    def answer_frames(self, asked: Asked, frames: Sequence[Buffer]) -> None:
        head = heads.Head(heads.REPLY, status=status.OK, body_frames=len(frames))
        self.reply(asked.client, (asked.head.request_id, heads.pack(head), list(frames)))

    def fail(self, asked: Asked, reason: str, message: str) -> None:
        head, frames = bus_failure(reason, message)
        self.reply(asked.client, (asked.head.request_id, head, [bytes(f) for f in frames]))

    def close(self) -> None:
        self._context.destroy(linger=0)
        if self.directory is not None:
            shutil.rmtree(self.directory)


@contextmanager
def fake_broker(address: str | None = None) -> Iterator[FakeBroker]:
    broker = FakeBroker(address)
    try:
        yield broker
    finally:
        broker.close()


class KeyMaterial(NamedTuple):
    """PEM files of two authorities and of what they signed, for `localhost`.

    `foreign_…` is of the other authority. Keys are of prime256v1, those of `rsa_…` are RSA keys.
    """

    ca: str
    other_ca: str
    server_key: str
    server_certificate: str
    client_key: str
    client_certificate: str
    foreign_key: str
    foreign_certificate: str
    rsa_key: str
    rsa_certificate: str

    def tls(self, **changes: Any) -> TlsSettings:
        settings: dict[str, Any] = {
            "certificate": self.server_certificate,
            "private_key": self.server_key,
        }
        return TlsSettings(**(settings | changes))


def make_key_material(directory: Path) -> KeyMaterial:
    """Make keys and certificates with the openssl program."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-batch")
    for name in ("ca", "other_ca"):
        openssl(
            "req", "-x509", *curve, "-days", "2", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.pem",
        )  # fmt: skip
    (directory / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    rsa = ("-newkey", "rsa:2048", "-nodes", "-batch")
    for name, ca, kind in (
        ("server", "ca", curve),
        ("client", "ca", curve),
        ("foreign", "other_ca", curve),
        ("rsa", "ca", rsa),
    ):
        openssl(
            "req", *kind, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"
        )
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key",
            "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", f"{name}.pem",
        )  # fmt: skip
    paths = [
        "ca.pem", "other_ca.pem", "server.key", "server.pem",
        "client.key", "client.pem", "foreign.key", "foreign.pem",
        "rsa.key", "rsa.pem",
    ]  # fmt: skip
    return KeyMaterial(*(str(directory / path) for path in paths))


@contextmanager
def busy_port() -> Iterator[int]:
    """A port of 127.0.0.1 that somebody else listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run what blocks beside the event loop, but not for ever."""
    return await asyncio.wait_for(asyncio.to_thread(function, *arguments), timeout=WAIT_MS / 1000)
