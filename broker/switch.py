"""The shell of the broker: two ROUTER sockets around the core.

One `turn` receives what has come, lets the core act, and sends everything that is ready in one
pass. Who calls it is up to the host: `python -m broker` polls, a gateway that embeds the broker
calls it from its event loop, the sockets being registered there.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Protocol

import zmq

from broker import mdp_door
from broker.core import Core
from broker.departures import Departures
from broker.links import Links
from broker.unread import UnreadReplies
from protocol import head as heads
from protocol import limits, mdp, native, status
from protocol.link_path import link_path
from protocol.sockets import Again, receive_frames, send_frames
from telemetry.log import get_logger

log = get_logger("BROKER")

#: Messages taken from one socket before the others and the outboxes get their turn.
RECEIVE_PER_TURN_MAX = 256

#: Between two looks at who has read what; a client that gets more is looked at anyway.
SETTLE_INTERVAL_NS = 1_000_000_000

#: Of the path of an ipc address.
IPC_PATH_BYTES_MAX = limits.UNIX_PATH_BYTES_MAX

#: Frames and bytes of an envelope: REQ makes up to 2 frames (an id, an empty one), each ROUTER of a
#: proxy on the way one more.
ENVELOPE_FRAMES_MAX = 8
ENVELOPE_BYTES_MAX = 1_024

#: How often libzmq asks each client whether it lives. There may be thousands, and a question costs
#: its thread 0.1 ms: 3,333 clients that were asked each second took 0.4 of a core.
PRODUCERS_HEARTBEAT_MS = 5_000

#: Peers that open a connection and stay mute are closed after this long (libzmq: 30 s).
HANDSHAKE_MS = 5_000


class LocalClient(Protocol):
    """A client in this process: replies are handed over instead of sent."""

    def deliver(self, parts: list[Any]) -> None:
        """Take one message: parcels of replies. Must not block or call back into the switch."""


class Switch:
    """The sockets of one broker. Not thread-safe: everything happens on the host's thread.

    producers_addresses: where clients connect (`ipc://…`, `tcp://host:port`, port 0 = any).
    workers_address: where workers and the supervisor connect.
    unread_bytes_max: of one client's replies (`limits.UNREAD_BYTES_MAX`).
    Raises: OSError naming the address if it cannot be bound.
    """

    def __init__(
        self,
        core: Core,
        producers_addresses: list[str],
        workers_address: str,
        unread_bytes_max: int = limits.UNREAD_BYTES_MAX,
    ) -> None:
        self.core = core
        self.unread = UnreadReplies(unread_bytes_max)
        self._unread_bytes_max = unread_bytes_max
        self._settle_ns = 0
        self._context = zmq.Context()
        self.producers = self._router(limits.UNREAD_MESSAGES_MAX, PRODUCERS_HEARTBEAT_MS)
        self.workers = self._router(0, limits.HEARTBEAT_INTERVAL_MS)
        self._departures = Departures(self.producers)
        #: what a host waits for: the sockets, and the links of workers of this host, if there are
        self.sockets = (self.producers, self.workers, self._departures.monitor)
        self.links: Links | None = None
        #: a socket was used, which may have swallowed the sign that something came; a host that
        #: waits for such signs clears it, and asks the sockets
        self.is_touched = False
        try:
            self.producers_addresses = [_bind(self.producers, a) for a in producers_addresses]
            self.workers_address = _bind(self.workers, workers_address)
            path = link_path(self.workers_address)
            if path is not None:
                self.links = Links(path)
        except OSError:
            self.close()
            raise

    def _router(self, send_hwm: int, heartbeat_ms: int) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        router.linger = 0
        router.set(zmq.ROUTER_MANDATORY, 1)
        router.set(zmq.SNDHWM, send_hwm)
        router.set(zmq.MAXMSGSIZE, limits.BODY_BYTES_MAX)
        router.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        router.set(zmq.HEARTBEAT_IVL, heartbeat_ms)
        router.set(zmq.HEARTBEAT_TIMEOUT, limits.HEARTBEAT_INTERVAL_MS * limits.HEARTBEAT_LIVENESS)
        return router

    # ------------------------------------------------------------ one turn

    def turn(self, sockets_are_due: bool = True) -> bool:
        """Receive, act, send. Returns whether a socket may hold more: then call again soon.

        sockets_are_due: False: only the links are looked at. They come first: what a worker said
        last counts before what its supervisor says of its death.
        """
        now_ns = time.monotonic_ns()
        if self.links is not None:
            self.links.receive(self.core.receive_from_worker, self._lose_worker, now_ns)
        more = False
        if sockets_are_due:
            self.is_touched = True
            more = self._receive(self.workers, self.core.receive_from_worker, now_ns)
            more |= self._receive(self.producers, self._receive_from_client, now_ns)
            for client in self._departures.look(self.core, now_ns):
                self._lose(client)
        self.core.handle_timer(time.monotonic_ns())
        self.flush()
        if self.unread and now_ns >= self._settle_ns:
            self._settle_ns = now_ns + SETTLE_INTERVAL_NS
            self.unread.settle()
        return more

    def next_timer_ns(self) -> int | None:
        """When `turn` wants to be called, or None while nothing is watched."""
        times = (self.core.next_timer_ns(), self._departures.due_ns)
        return min((time for time in times if time is not None), default=None)

    def poll_timeout_ms(self) -> int | None:
        """How long a host may sleep on the sockets, None for as long as it likes."""
        next_ns = self.next_timer_ns()
        if next_ns is None:
            return None
        return max(0, -(-(next_ns - time.monotonic_ns()) // 1_000_000))

    def _receive(
        self,
        socket: zmq.Socket[bytes],
        receive: Callable[[Any, list[Any], int], None],
        now_ns: int,
    ) -> bool:
        for _ in range(RECEIVE_PER_TURN_MAX):
            try:
                parts = receive_frames(socket, has_address=True)
            except Again:
                return False
            receive(parts[0], parts[1:], now_ns)
        return True

    def _receive_from_client(self, routing_id: bytes, parts: list[Any], now_ns: int) -> None:
        if parts and parts[0][:2] == heads.MAGIC:
            self.core.receive_from_client(routing_id, parts, now_ns)
            return
        if parts and parts[0][:4] == mdp.MAGIC:
            mdp_door.receive(self.core, (routing_id,), parts, now_ns)
            return
        # A REQ socket puts an empty frame before its message (and an id frame before that, with
        # REQ_CORRELATE): the envelope is remembered as part of the address and given back.
        for at, part in enumerate(parts[:ENVELOPE_FRAMES_MAX]):
            if not len(part) and sum(map(len, parts[:at])) <= ENVELOPE_BYTES_MAX:
                client = (routing_id, *map(bytes, parts[: at + 1]))
                rest = parts[at + 1 :]
                if rest and rest[0][:4] == mdp.MAGIC:
                    mdp_door.receive(self.core, client, rest, now_ns)
                else:
                    self.core.receive_from_client(client, rest, now_ns)
                return
        self.core.counters.malformed += 1

    # ------------------------------------------------------------ sending

    def flush(self) -> None:
        """Send what the core has ready; what cannot be delivered comes back as new input."""
        links = self.links
        while self.core.outbox:
            to_clients, to_workers = self.core.outbox.take()
            for client, parts in to_clients:
                if isinstance(client, bytes):
                    self.is_touched = True
                    self._send_to_client(client, (client,), parts)
                elif isinstance(client, tuple):
                    self.is_touched = True
                    self._send_to_client(client, client, parts)
                elif isinstance(client, mdp.Caller):
                    self.is_touched = True
                    self._send_to_caller(client, parts)
                else:
                    client.deliver(parts)  # type: ignore[attr-defined]
            for routing_id, parts in to_workers.items():
                if links is not None and routing_id in links:
                    links.send(routing_id, parts)
                else:
                    self.is_touched = True
                    self._send_to_worker(routing_id, parts)

    def _send_to_client(
        self, client: Hashable, envelope: tuple[bytes, ...], parts: list[Any]
    ) -> None:
        size = sum(map(len, parts))
        try:
            if size < limits.TENSOR_INLINE_BYTES_MAX:
                send_frames(self.producers, [*envelope, *parts])
            elif self.unread.has_room(envelope[0], size):
                self._send_watched(envelope, parts, size)
            else:
                self.core.counters.replies_dropped += 1
                self._send_failures(envelope, parts)
        except zmq.Again:
            self.core.counters.replies_dropped += 1
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._lose(client)

    def _send_to_caller(self, caller: mdp.Caller, parts: list[Any]) -> None:
        message = mdp.encode_reply(caller, parts)
        size, routing_id = sum(map(len, message)), caller.address[0]
        if size >= limits.TENSOR_INLINE_BYTES_MAX and not self.unread.has_room(routing_id, size):
            self.core.counters.replies_dropped += 1
            failures = _failures(parts, "unread_bytes_full", self._unread_text(routing_id))
            message = mdp.encode_reply(caller, failures)
        self._send_to_client(caller, caller.address, message)

    def _lose(self, client: Hashable) -> None:
        self.core.counters.clients_gone += 1
        now_ns = time.monotonic_ns()
        self.core.client_lost(client, now_ns)
        if isinstance(client, mdp.Caller):
            for caller in mdp_door.callers_of(self.core, client.address[0]):
                self.core.client_lost(caller, now_ns)

    def _send_watched(self, envelope: tuple[bytes, ...], parts: list[Any], size: int) -> None:
        # ZeroMQ frees the frames of a message in their order, so the last one tells of all.
        last = parts[-1].buffer if isinstance(parts[-1], zmq.Frame) else parts[-1]
        watched = zmq.Frame(last, track=True, copy=False, copy_threshold=0)
        departure = watched.tracker
        assert departure is not None
        message = [*envelope, *parts[:-1], watched]
        send_frames(self.producers, message, is_copied=False)
        self.unread.add(envelope[0], size, departure)

    def _send_failures(self, envelope: tuple[bytes, ...], parts: list[Any]) -> None:
        failures = _failures(parts, "unread_bytes_full", self._unread_text(envelope[0]))
        if failures:
            send_frames(self.producers, [*envelope, *failures])

    def _unread_text(self, routing_id: bytes) -> str:
        return (
            f"the reply is dropped: this client leaves {self.unread.bytes_of(routing_id)} B of "
            f"replies unread, unread_bytes_max is {self._unread_bytes_max}"
        )

    def _send_to_worker(self, routing_id: bytes, parts: list[Any]) -> None:
        try:
            is_copied = not isinstance(parts[-1], zmq.Frame)
            send_frames(self.workers, [routing_id, *parts], is_copied)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self._lose_worker(routing_id)

    def _lose_worker(self, routing_id: bytes) -> None:
        worker = self.core.registration.workers.get(routing_id)
        if worker is not None:
            log.info("worker unreachable", worker_id=worker.worker_id)
            self.core.worker_unreachable(worker, time.monotonic_ns())

    def close(self, linger_ms: int = 0) -> None:
        """Close both sockets and the context. linger_ms: for what was sent and has not left."""
        if self.links is not None:
            self.links.close()
        self.producers.disable_monitor()
        self._context.destroy(linger=linger_ms)


def _failures(parts: list[Any], reason: str, text: str) -> list[Any]:
    """A failure in the place of each reply of a message. What is no reply is left out."""
    frames = native.encode_failure(None, reason, text)
    code = status.REASONS[reason].grpc
    failures: list[Any] = []
    for packed, _ in heads.split_parcels(parts):
        head = heads.unpack(packed)
        if head.command == heads.REPLY:
            failed = heads.Head(
                heads.REPLY, status=code, request_id=head.request_id, body_frames=len(frames)
            )
            failures += [heads.pack(failed), *frames]
    return failures


def _bind(socket: zmq.Socket[bytes], address: str) -> str:
    """Bind and return the address as bound. A new ipc socket is for its owner only."""
    path = address.removeprefix("ipc://") if address.startswith("ipc://") else None
    if path is not None:
        if len(os.fsencode(path)) > IPC_PATH_BYTES_MAX:
            raise OSError(
                f"ipc path of {len(os.fsencode(path))} B exceeds {IPC_PATH_BYTES_MAX} B: {path}"
            )
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if address.startswith("tcp://") and address.endswith(":0"):
        address = address[:-1] + "*"
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise OSError(f"cannot bind {address}: {error}") from None
    if path is not None:
        Path(path).chmod(stat.S_IRUSR | stat.S_IWUSR)
        return address
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return bound.decode().rstrip("\0")
