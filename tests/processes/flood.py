"""An open-loop load that costs its sender little: bytes made once, sockets without a library.

A client library takes as long for a request as the server does for its refusal; on two cores such
clients are what is measured. Here a request costs about 0.1 ms, most of it for looking what came.

open_loop(GrpcFlood(address, body), {reply: "served", …}.__getitem__, 1_300, 5) -> Tally
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import zmq

from gateway.grpc_door import PREDICT
from protocol import head as heads
from tests.gateway.http2_client import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)

#: What is given up: answers later than this after the last request.
PATIENCE_S = 30.0

#: Connections over REST; a server that is kept from its processor would make them too many.
CONNECTIONS_MAX = 1_500

#: Number of a request, and the bytes of its answer.
Answers = Iterable[tuple[int, bytes]]

#: What an answer is: one of the few outcomes that are expected, or else what it says.
Outcome = Callable[[bytes], str]


@dataclass
class Tally:
    """What came back: per outcome, how long each answer took in ms."""

    offered: int = 0
    #: from the first request to the last answer
    seconds: float = 0.0
    #: from the first request to the last one
    offering_s: float = 0.0
    took_ms: dict[str, list[float]] = field(default_factory=dict)

    def per_s(self, outcome: str) -> float:
        """How many ended so, per second: what was queued at the end is answered later, and this
        time counts as well."""
        return len(self.took_ms.get(outcome, ())) / self.seconds


class Flood(ABC):
    """Requests over one door, by their number."""

    @abstractmethod
    def send(self, number: int) -> None:
        """Send the request with this number; never waits."""

    @abstractmethod
    def receive(self, timeout_ms: int) -> Answers:
        """What has come, or comes within this time."""

    @abstractmethod
    def close(self) -> None:
        """End every connection."""


def open_loop(way: Flood, outcome: Outcome, rate: float, seconds: float) -> Tally:
    """Send at a rate that heeds no answer, then wait for what is still to come."""
    return _run(way, outcome, seconds, lambda tally, passed_s, _: passed_s * rate > tally.offered)


def closed_loop(way: Flood, outcome: Outcome, count: int, seconds: float) -> Tally:
    """Keep `count` requests under way, each followed by the next."""
    return _run(way, outcome, seconds, lambda _, __, under_way: under_way < count)


def _run(
    way: Flood, outcome: Outcome, seconds: float, is_due: Callable[[Tally, float, int], bool]
) -> Tally:
    tally = Tally()
    sent_s: dict[int, float] = {}
    begin_s = now_s = time.monotonic()
    while (passed_s := now_s - begin_s) < seconds or sent_s:
        if passed_s < seconds:
            while is_due(tally, passed_s, len(sent_s)):
                sent_s[tally.offered] = time.monotonic()
                way.send(tally.offered)
                tally.offered += 1
            tally.offering_s = passed_s
        assert passed_s < seconds + PATIENCE_S, f"{len(sent_s)} requests without an answer"
        answers = way.receive(1)
        now_s = time.monotonic()
        for number, answer in answers:
            took_ms = (now_s - sent_s.pop(number)) * 1_000
            tally.took_ms.setdefault(outcome(answer), []).append(took_ms)
    tally.seconds = now_s - begin_s
    return tally


# ---------------------------------------------------------------- the bus


class BusFlood(Flood):
    """One DEALER; its numbers are the request ids."""

    def __init__(self, address: str, head: heads.Head, frames: list[bytes]) -> None:
        self._head, self._frames = heads.pack(head), frames
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.set(zmq.SNDHWM, 0)
        self._dealer.set(zmq.RCVHWM, 0)
        self._dealer.connect(address)

    def send(self, number: int) -> None:
        stamped = self._head[:8] + heads.REQUEST_ID.pack(number) + self._head[16:]
        self._dealer.send_multipart([stamped, *self._frames])

    def receive(self, timeout_ms: int) -> Answers:
        while self._dealer.poll(timeout_ms):
            timeout_ms = 0
            for head, frames in heads.split_parcels(self._dealer.recv_multipart()):
                if head[3] != heads.REPLY:
                    continue
                (number,) = heads.REQUEST_ID.unpack_from(head, heads.REQUEST_ID_OFFSET)
                yield number, b"".join(frames)

    def close(self) -> None:
        self._context.destroy(linger=0)


# ---------------------------------------------------------------- HTTP


class _Connection:
    """A non-blocking connection: what could not leave waits, what came and is not whole stays."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = bytearray()
        self.came = bytearray()

    def write(self, content: bytes = b"") -> None:
        self.unsent += content
        with contextlib.suppress(BlockingIOError):
            del self.unsent[: self.socket.send(self.unsent)]

    def read(self) -> None:
        chunk = self.socket.recv(1 << 18)
        assert chunk, "the server closed a connection"
        self.came += chunk


class _HttpFlood(Flood):
    """Connections that are watched by one epoll."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}

    def _connect(self) -> _Connection:
        connection = _Connection(self._address)
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, select.EPOLLIN)
        return connection

    def receive(self, timeout_ms: int) -> Answers:
        for fd, _ in self._epoll.poll(timeout_ms / 1_000):
            connection = self._connections[fd]
            connection.read()
            yield from self._answers(connection)
        for connection in self._connections.values():
            if connection.unsent:
                connection.write()

    @abstractmethod
    def _answers(self, connection: _Connection) -> Answers:
        """Take whole answers out of what came."""

    def close(self) -> None:
        self._epoll.close()
        for connection in self._connections.values():
            connection.socket.close()


class RestFlood(_HttpFlood):
    """Kept connections, as many as there are requests under way; beyond a limit requests wait."""

    def __init__(self, address: str, target: str, body: bytes) -> None:
        super().__init__(address)
        head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self._message = head.encode() + body
        self._free: deque[_Connection] = deque()
        self._waiting: deque[int] = deque()
        self._numbers: dict[_Connection, int] = {}

    def send(self, number: int) -> None:
        if self._free:
            self._send_on(self._free.popleft(), number)
        elif len(self._connections) < CONNECTIONS_MAX:
            self._send_on(self._connect(), number)
        else:
            self._waiting.append(number)

    def _send_on(self, connection: _Connection, number: int) -> None:
        self._numbers[connection] = number
        connection.write(self._message)

    def _answers(self, connection: _Connection) -> Answers:
        came = connection.came
        if (begin := came.find(b"\r\n\r\n") + 4) < 4:
            return
        length = bytes(came[:begin]).lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        if len(came) < begin + int(length):
            return
        answer = bytes(came[begin:])
        came.clear()
        yield self._numbers.pop(connection), answer
        if self._waiting:
            self._send_on(connection, self._waiting.popleft())
        else:
            self._free.append(connection)


class GrpcFlood(_HttpFlood):
    """Streams of one HTTP/2 connection (RFC 9113), with no more of it than the server needs."""

    def __init__(self, address: str, body: bytes) -> None:
        super().__init__(address)
        fields = {
            b":method": b"POST",
            b":scheme": b"http",
            b":path": PREDICT.encode(),
            b":authority": b"localhost",
            b"content-type": b"application/grpc",
            b"te": b"trailers",
        }
        # HPACK: literals that nobody remembers, with new names (RFC 7541, 6.2.2).
        self._block = b"".join(
            b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
            for name, value in fields.items()
        )
        self._body = b"\0" + struct.pack("!I", len(body)) + body
        self._came: dict[int, bytes] = {}
        self._connection = self._connect()
        self._connection.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(SETTINGS, 0, 0, b"")
            + _frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", (1 << 31) - 65_536))
        )

    def send(self, number: int) -> None:
        stream = 2 * number + 1
        self._came[stream] = b""
        self._connection.write(
            _frame(HEADERS, END_HEADERS, stream, self._block)
            + _frame(DATA, END_STREAM, stream, self._body)
        )

    def _answers(self, connection: _Connection) -> Answers:
        came = connection.came
        at = 0
        while len(came) >= at + 9:
            size, kind, flags = int.from_bytes(came[at : at + 3]), came[at + 3], came[at + 4]
            stream = int.from_bytes(came[at + 5 : at + 9])
            if len(came) < at + 9 + size:
                break
            payload = bytes(came[at + 9 : at + 9 + size])
            at += 9 + size
            if kind in (SETTINGS, PING) and not flags & ACK:
                connection.write(_frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == DATA:
                self._came[stream] += payload
            ends = kind == RST_STREAM or (kind in (HEADERS, DATA) and flags & END_STREAM)
            if ends and stream in self._came:  # a reset may follow its end
                yield (stream - 1) // 2, self._came.pop(stream)[5:]
        del came[:at]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + struct.pack("!I", stream) + payload
