"""The gateway as a process: doors, and the broker in the same event loop or at the end of a wire.

`python -m mindbus.gateway_process` reads one JSON document on stdin

    {"mode": "embedded" | "remote", "producers_addresses": [address, …], "workers_address": address,
     "requests_max": n, "services": ["add/1", …], "parent_pid": pid}

(`services`: those whose workers run already, because this gateway takes the place of another one)
and takes commands, one JSON line each, on the socket whose descriptor is in MINDBUS_CONTROL_FD:

    {"id": 1, "command": "open_grpc" | "open_rest", "address": "127.0.0.1:5500",
     "max_msg_mb_size": 100, "tls": {…} | null, "reuse_port": false}
                                                       -> {"id": 1, "ok": true, "address": bound}
    {"id": 2, "command": "limits", "requests_max": n}  -> {"id": 2, "ok": true}
    {"id": 3, "command": "drain", "grace_ms": n}       -> {"id": 3, "ok": true}

A command that fails is answered with {"id": n, "ok": false, "error": text}. After the start it
says {"event": "started", "producers": [address, …], "workers": address | null}. The end of the
commands ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from typing import Any, Protocol

import uvloop

from broker.admission import Settings
from broker.core import Core
from broker.switch import Switch
from gateway.doors import DoorError
from gateway.grpc_door import GrpcDoor
from gateway.ms_service_handler import MsServiceHandler
from gateway.remote_bus import RemoteBus
from gateway.rest_door import RestDoor
from gateway.restful_handler import RestfulHandler
from gateway.tls import TlsSettings
from mindbus.embedded_bus import EmbeddedBus
from protocol import limits
from telemetry.log import configure, get_logger
from workers.orphan import die_with_parent

log = get_logger("GATEWAY")

#: A drained gateway looks this often whether direct producers still wait for replies.
DRAIN_POLL_S = 0.02

#: What is left of the grace after SIGTERM from outside, when nobody names one.
GRACE_MS_DEFAULT = 10_000

#: Exit code after a bug of the broker; the supervisor starts another gateway.
EXIT_FAILED = 70


class Door(Protocol):
    """An open door of either kind."""

    address: str

    async def close(self, grace_s: float) -> None:
        """Accept nothing more, finish what runs within the grace, then close."""


class Gateway:
    """Doors around one bus. Make, use and close it on one running event loop."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Start the bus. Raises OSError if the broker's sockets cannot be bound."""
        self._doors: list[Door] = []
        self.producers_addresses: list[str] = document["producers_addresses"]
        self.workers_address: str | None = None
        self._embedded: EmbeddedBus | None = None
        if document["mode"] == "embedded":
            requests_max = document.get("requests_max", limits.REQUESTS_MAX_DEFAULT)
            ready_ms = document.get("ready_ms", limits.READY_MS)
            core = Core(Settings(requests_max=requests_max, ready_ms=ready_ms))
            for key in document.get("services", ()):
                core.registration.expect(key.encode(), time.monotonic_ns())
            switch = Switch(core, self.producers_addresses, document["workers_address"])
            self.producers_addresses = switch.producers_addresses
            self.workers_address = switch.workers_address
            self._bus: EmbeddedBus | RemoteBus = EmbeddedBus(switch)
            self._embedded = self._bus
        else:
            self._bus = RemoteBus(self.producers_addresses[0])

    async def open_grpc(
        self, address: str, max_msg_mb_size: int, tls: TlsSettings | None, reuse_port: bool = False
    ) -> str:
        """Open the gRPC door; returns the address that it got. Raises DoorError."""
        handler = MsServiceHandler(self._bus)
        door = await GrpcDoor.open(handler, address, max_msg_mb_size, tls, reuse_port=reuse_port)
        return self._opened(door)

    async def open_rest(
        self, address: str, max_msg_mb_size: int, tls: TlsSettings | None, reuse_port: bool = False
    ) -> str:
        """Open the REST door; returns the address that it got. Raises DoorError."""
        handler = RestfulHandler(self._bus, max_msg_mb_size * limits.MIB)
        door = await RestDoor.open(handler, address, max_msg_mb_size, tls, reuse_port=reuse_port)
        return self._opened(door)

    def _opened(self, door: Door) -> str:
        self._doors.append(door)
        log.info("door opened", address=door.address)
        return door.address

    def set_requests_max(self, requests_max: int) -> None:
        """Change the broker's limit of requests, where the broker is ours."""
        if self._embedded is not None:
            self._embedded.set_requests_max(requests_max)

    async def wait_failed(self) -> None:
        """Wait until a bug ended the broker; for ever if it is another process."""
        ended = asyncio.Event() if self._embedded is None else self._embedded.ended
        await ended.wait()

    async def drain(self, grace_ms: int) -> None:
        """Close the doors, let running requests finish within the grace. Idempotent."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + grace_ms / 1_000
        doors, self._doors = self._doors, []
        await asyncio.gather(*(door.close(grace_ms / 1_000) for door in doors))
        if self._embedded is not None:
            self._embedded.drain()
            while self._embedded.requests() and loop.time() < until_s:
                await asyncio.sleep(DRAIN_POLL_S)

    async def close(self) -> None:
        """Close everything at once."""
        await self.drain(0)
        await self._bus.close()


class CommandChannel:
    """The supervisor's end of a gateway: commands in, answers out, a JSON line each."""

    def __init__(self, gateway: Gateway, writer: asyncio.StreamWriter) -> None:
        self._gateway = gateway
        self._writer = writer
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Take commands until their end; each runs beside the others."""
        while line := await reader.readline():
            task = asyncio.get_running_loop().create_task(self._answer(json.loads(line)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, command: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": command.get("id")}
        try:
            answer |= {"ok": True} | await self._run(command)
        except (DoorError, OSError, KeyError, ValueError, TypeError) as error:
            answer |= {"ok": False, "error": str(error)}
        say(self._writer, answer)

    async def _run(self, command: dict[str, Any]) -> dict[str, Any]:
        match command["command"]:
            case "open_grpc" | "open_rest" as name:
                tls = TlsSettings.from_document(command.get("tls"))
                opener = getattr(self._gateway, name)
                size, shared = command["max_msg_mb_size"], command.get("reuse_port", False)
                address = await opener(command["address"], size, tls, shared)
                return {"address": address}
            case "limits":
                self._gateway.set_requests_max(command["requests_max"])
            case "drain":
                await self._gateway.drain(command["grace_ms"])
            case name:
                raise ValueError(f"command {name!r} is unknown")
        return {}


def say(writer: asyncio.StreamWriter, line: dict[str, Any]) -> None:
    """Send one line to the supervisor."""
    writer.write(json.dumps(line).encode() + b"\n")


async def serve(document: dict[str, Any], channel: socket.socket) -> int:
    """Run a gateway until its commands end or SIGTERM drained it. Returns the exit code."""
    reader, writer = await asyncio.open_connection(sock=channel)
    try:
        gateway = Gateway(document)
    except OSError as error:
        log.error("gateway could not start", error=str(error))
        say(writer, {"event": "failed", "error": str(error)})
        await writer.drain()
        return 3
    commands = CommandChannel(gateway, writer)
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    started = {
        "event": "started",
        "producers": gateway.producers_addresses,
        "workers": gateway.workers_address,
    }
    say(writer, started)
    ends = asyncio.create_task(commands.serve(reader))
    stops = asyncio.create_task(terminated.wait())
    fails = asyncio.create_task(gateway.wait_failed())
    await asyncio.wait((ends, stops, fails), return_when=asyncio.FIRST_COMPLETED)
    code = EXIT_FAILED if fails.done() else 0
    if terminated.is_set():
        await gateway.drain(GRACE_MS_DEFAULT)
    for task in (ends, stops, fails):
        task.cancel()
    await gateway.close()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return code


def main() -> int:
    """Entry of the process; see the module."""
    document = json.load(sys.stdin)
    die_with_parent(document["parent_pid"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides when it is over
    configure("mindbus_gateway")
    channel = socket.socket(fileno=int(os.environ["MINDBUS_CONTROL_FD"]))
    return uvloop.run(serve(document, channel))


if __name__ == "__main__":
    sys.exit(main())
