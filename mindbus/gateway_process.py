"""The gateway as a process: doors, and the broker in the same event loop or at the end of a wire.

`python -m mindbus.gateway_process` reads one JSON document on stdin

    {"mode": "embedded" | "remote", "producers_addresses": [address, …], "workers_address": address,
     "requests_max": n, "services": ["add/1", …],
     "drain_patience_ms": n, "control_path": path, "model_control": bool, "parent_pid": pid,
     "slot": name, "has_access_log": false | null, "tells_numbers": false,
     "npu_smi": program | null, "settings_control": bool, "packs_replies": bool}

(`control_path`: of the supervisor's control socket; without it, readiness is what the broker says.
`model_control`, `settings_control`: whether clients may have versions loaded, or change log and
trace settings. `services`: those whose workers run
already, because this gateway takes the place of another one)
and takes commands, one JSON line each, on the socket whose descriptor is in MINDBUS_CONTROL_FD:

    {"id": 1, "command": "open_grpc" | "open_rest", "address": "127.0.0.1:5500",
     "max_msg_mb_size": 100, "tls": {…} | null}
                                                       -> {"id": 1, "ok": true, "address": bound}
    {"id": 2, "command": "limits", "requests_max": n}  -> {"id": 2, "ok": true}
    {"id": 3, "command": "settings", "log_level": n | null, "is_tracing": true, "trace_rate": n}
                                                       -> {"id": 3, "ok": true}
    {"id": 4, "command": "drain", "grace_ms": n,
     "leave": {"idle_ms": n} | null}
                                                       -> {"id": 4, "ok": true}

Both of `open_…` may carry a listening socket as ancillary data (SCM_RIGHTS), a copy of another
gateway's, and then has `"fds": 1`; so has the answer, with a copy of the one that it listens with.
`leave`: other gateways listen at the same addresses, and get the clients: see `leave` of the doors.

A command that fails is answered with {"id": n, "ok": false, "error": text}. After the start it
says {"event": "started", "producers": [address, …], "workers": address | null}; with
`tells_numbers`, {"event": "numbers", "numbers": {…}} once a second if they have changed, so that
every gateway can show those of all. The end of the commands ends the process.
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
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from broker.admission import Settings
from broker.core import Core
from broker.switch import Switch
from gateway.doors import DoorError
from gateway.grpc_door import GrpcDoor
from gateway.health import HealthService
from gateway.journal import Journal
from gateway.ms_service_handler import MsServiceHandler
from gateway.off_loop import off_loop
from gateway.oip_handler import OipHandler
from gateway.oip_rest_handler import OipRestHandler
from gateway.openapi import openapi_document
from gateway.reflection import ReflectionService
from gateway.remote_bus import RemoteBus
from gateway.rest_door import RestDoor
from gateway.rest_router import RestRouter
from gateway.restful_handler import RestfulHandler
from gateway.tls import TlsSettings
from mindbus.door_tracer import DoorTracer
from mindbus.embedded_bus import EmbeddedBus
from mindbus.live_control import LiveControl
from mindbus.own_version import version
from mindbus.scrape import Scraper
from mindbus.supervisor_link import SupervisorLink, make_oip_server
from protocol import limits
from protocol.client_session import ClientSettings
from telemetry.allocator import keep_blocks
from telemetry.collector import collect_seldom
from telemetry.live_settings import LiveSettings
from telemetry.log import configure, get_logger, write_access
from telemetry.tracing import open_tracer
from workers.orphan import die_with_parent
from workers.supervisor.child import FDS_MAX, RECEIVE_BYTES
from workers.supervisor.json_lines import LineReader, encode_line

log = get_logger("GATEWAY")

#: A drained gateway looks this often whether direct producers still wait for replies.
DRAIN_POLL_S = 0.02

#: What is left of the grace after SIGTERM from outside, when nobody names one.
GRACE_MS_DEFAULT = 10_000

#: `on`: a line in the log for each request, where `mindbus serve --access-log` says nothing.
ACCESS_LOG = "MINDBUS_ACCESS_LOG"

#: How often a gateway tells what it has counted.
TELL_S = 1.0

#: Exit code after a bug of the broker; the supervisor starts another gateway.
EXIT_FAILED = 70


class Gateway:
    """Doors around one bus. Make, use and close it on one running event loop."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Start the bus. Raises OSError if the broker's sockets cannot be bound."""
        self._doors: list[GrpcDoor | RestDoor] = []
        self.producers_addresses: list[str] = document["producers_addresses"]
        self.workers_address: str | None = None
        self._packs_replies: bool = document.get("packs_replies", False)
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
            settings = ClientSettings(is_patient=True)
            if "drain_patience_ms" in document:
                patience_ms = document["drain_patience_ms"]
                settings = replace(settings, drain_patience_ms=patience_ms)
            self._bus = RemoteBus(self.producers_addresses[0], settings)
        control_path = document.get("control_path")
        link = None if control_path is None else SupervisorLink(Path(control_path))
        self._tracer = open_tracer("gateway", os.environ)
        tracer = None if self._tracer is None else DoorTracer(self._tracer)
        self._journal = Journal(write_access if _has_access_log(document) else None, tracer)
        #: Log and trace settings.
        self.live = LiveControl(link, tracer, document.get("settings_control", False))
        self._oip = make_oip_server(self._bus, link, self.live, document)
        self._health = HealthService(self._oip)
        name = document.get("slot", "gateway/0")
        self._scraper = Scraper(
            name, self._bus.stats, self.numbers, control_path, document.get("npu_smi")
        )

    async def open_grpc(
        self,
        address: str,
        max_msg_mb_size: int,
        tls: TlsSettings | None,
        listener: socket.socket | None = None,
    ) -> GrpcDoor:
        """Open the gRPC door, perhaps with a listening socket that is there. Raises DoorError."""
        oip = OipHandler(self._bus, self._oip)
        door = await GrpcDoor.open(
            MsServiceHandler(self._bus),
            address,
            max_msg_mb_size,
            tls,
            rpcs=oip.rpcs() | self._health.rpcs() | ReflectionService().rpcs(),
            listener=listener,
            journal=self._journal,
        )
        self._doors.append(door)
        log.info("door opened", address=door.address)
        return door

    async def open_rest(
        self,
        address: str,
        max_msg_mb_size: int,
        tls: TlsSettings | None,
        listener: socket.socket | None = None,
    ) -> RestDoor:
        """Open the REST door, perhaps with a listening socket that is there. Raises DoorError."""
        body_bytes_max = max_msg_mb_size * limits.MIB
        handler = RestRouter(
            RestfulHandler(self._bus, body_bytes_max),
            OipRestHandler(self._bus, self._oip, body_bytes_max),
            openapi_document(version()),
        )
        door = await RestDoor.open(
            handler,
            address,
            max_msg_mb_size,
            tls,
            listener=listener,
            journal=self._journal,
            metrics=self._scraper.scrape,
            packs_replies=self._packs_replies,
        )
        self._doors.append(door)
        log.info("door opened", address=door.address)
        return door

    def numbers(self) -> dict[str, Any]:
        """What this gateway has counted of its doors: plain values."""
        rest = [door for door in self._doors if isinstance(door, RestDoor)]
        grpc = [door for door in self._doors if isinstance(door, GrpcDoor)]
        return self._journal.numbers.describe(
            sum(door.connections() for door in rest), sum(door.unread_bytes() for door in grpc)
        )

    def set_requests_max(self, requests_max: int) -> None:
        """Change the broker's limit of requests, where the broker is ours."""
        if self._embedded is not None:
            self._embedded.set_requests_max(requests_max)

    async def wait_failed(self) -> None:
        """Wait until a bug ended the broker; for ever if it is another process."""
        ended = asyncio.Event() if self._embedded is None else self._embedded.ended
        await ended.wait()

    async def leave(self, idle_ms: int) -> None:
        """Leave the clients to other gateways, as long as that takes; then `drain`."""
        self._health.leave()
        await asyncio.gather(*(door.leave(idle_ms / 1_000) for door in self._doors))

    async def drain(self, grace_ms: int) -> None:
        """Close the doors, let running requests finish within the grace. Idempotent."""
        self._health.leave()
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
        self._scraper.close()
        await self._bus.close()
        if self._tracer is not None:
            await off_loop(self._tracer.close)


class CommandChannel:
    """The supervisor's end of a gateway: commands in, answers out, a JSON line each.

    Not a stream of asyncio's: descriptors come and go with the lines.
    """

    def __init__(self, gateway: Gateway, channel: socket.socket) -> None:
        """channel: non-blocking."""
        self._gateway = gateway
        self._channel = channel
        self._lines = LineReader()
        self._fds: deque[int] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        #: The supervisor says no more.
        self.ended = asyncio.Event()
        self._loop.add_reader(channel, self._receive)

    def _receive(self) -> None:
        try:
            chunk, fds, _, _ = socket.recv_fds(self._channel, RECEIVE_BYTES, FDS_MAX)
        except BlockingIOError:
            return
        except ConnectionError:
            chunk, fds = b"", []
        self._fds.extend(fds)
        if not chunk:
            self._loop.remove_reader(self._channel)
            self.ended.set()
            return
        for command in self._lines.receive(chunk):
            task = self._loop.create_task(self._answer(command))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, command: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": command.get("id")}
        fds: list[int] = []
        try:
            more, fds = await self._run(command)
            answer |= {"ok": True} | more
        except (DoorError, OSError, KeyError, ValueError, TypeError) as error:
            answer |= {"ok": False, "error": str(error)}
        self.say(answer, fds)

    async def _run(self, command: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """What to add to the answer, and the descriptors that go with it."""
        gateway = self._gateway

        def listener() -> socket.socket | None:
            return self._take_listener() if command.get("fds") else None

        match command["command"]:
            case "open_grpc":
                grpc_door = await gateway.open_grpc(*_door_settings(command), listener())
                return {"address": grpc_door.address, "fds": 1}, [grpc_door.listener.fileno()]
            case "open_rest":
                door = await gateway.open_rest(*_door_settings(command), listener())
                return {"address": door.address, "fds": 1}, [door.listener.fileno()]
            case "limits":
                gateway.set_requests_max(command["requests_max"])
            case "settings":
                gateway.live.follow({name: command[name] for name in LiveSettings._fields})
            case "drain":
                if leave := command.get("leave"):
                    await gateway.leave(leave["idle_ms"])
                await gateway.drain(command["grace_ms"])
            case name:
                raise ValueError(f"command {name!r} is unknown")
        return {}, []

    def _take_listener(self) -> socket.socket:
        listener = socket.socket(fileno=self._fds.popleft())
        listener.setblocking(False)
        return listener

    def say(self, line: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one line to the supervisor; it is small, and the supervisor always reads."""
        with contextlib.suppress(ConnectionError, BlockingIOError):
            socket.send_fds(self._channel, [encode_line(line)], list(fds))


def _has_access_log(document: dict[str, Any]) -> bool:
    """What the server was told; else what the environment says, for servers of start scripts."""
    told = document.get("has_access_log")
    return os.environ.get(ACCESS_LOG) == "on" if told is None else bool(told)


def _door_settings(command: dict[str, Any]) -> tuple[str, int, TlsSettings | None]:
    tls = TlsSettings.from_document(command.get("tls"))
    return command["address"], command["max_msg_mb_size"], tls


async def _tell_numbers(
    gateway: Gateway, commands: CommandChannel, document: dict[str, Any]
) -> None:
    told: dict[str, Any] = {}
    while document.get("tells_numbers"):
        numbers = gateway.numbers()
        if numbers != told:
            told = numbers
            commands.say({"event": "numbers", "numbers": numbers})
        await asyncio.sleep(TELL_S)


async def serve(document: dict[str, Any], channel: socket.socket) -> int:
    """Run a gateway until its commands end or SIGTERM drained it. Returns the exit code."""
    channel.setblocking(False)
    try:
        gateway = Gateway(document)
    except OSError as error:
        log.error("gateway could not start", error=str(error))
        channel.send(encode_line({"event": "failed", "error": str(error)}))
        return 3
    commands = CommandChannel(gateway, channel)
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    commands.say(
        {
            "event": "started",
            "producers": gateway.producers_addresses,
            "workers": gateway.workers_address,
        }
    )
    tells = asyncio.create_task(_tell_numbers(gateway, commands, document))
    ends = asyncio.create_task(commands.ended.wait())
    stops = asyncio.create_task(terminated.wait())
    fails = asyncio.create_task(gateway.wait_failed())
    await asyncio.wait((ends, stops, fails), return_when=asyncio.FIRST_COMPLETED)
    code = EXIT_FAILED if fails.done() else 0
    if terminated.is_set():
        await gateway.drain(GRACE_MS_DEFAULT)
    for task in (tells, ends, stops, fails):
        task.cancel()
    await gateway.close()
    return code


def main() -> int:
    """Entry of the process; see the module."""
    document = json.load(sys.stdin)
    die_with_parent(document["parent_pid"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides when it is over
    configure("mindbus_gateway", level=document.get("log_level"))
    channel = socket.socket(fileno=int(os.environ["MINDBUS_CONTROL_FD"]))
    collect_seldom()
    keep_blocks()
    return uvloop.run(serve(document, channel))


if __name__ == "__main__":
    sys.exit(main())
