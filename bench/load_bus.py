"""Load on the native bus: a window of requests on one DEALER, in Python, on the same cores.

Its own ceiling, the same loop against an echo, is measured beside it (`bench.ceilings`).
"""

from __future__ import annotations

import time

import zmq

from bench.endpoint import Endpoint
from bench.figures import Figures, of_latencies
from protocol import head as heads

#: A socket from which nothing comes for so long has lost its server.
SILENCE_MS_MAX = 60_000


def call_bus(endpoint: Endpoint) -> bytes:
    """Send one request; returns the body frames of the answer as one. Raises AssertionError."""
    return _Loop(endpoint).run(1, 0.0)[1]


def load_bus(endpoint: Endpoint, window: int, seconds: float) -> Figures:
    """Keep `window` requests in flight; every answer must have the bytes of the first one."""
    return _Loop(endpoint).run(window, seconds)[0]


class _Loop:
    """One DEALER and what is in flight on it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._head, *self._frames = endpoint.parts
        self._request_id = 0
        self._sent: dict[int, float] = {}
        #: Large frames are handed over without a copy.
        self._copy = sum(map(len, self._frames)) < zmq.COPY_THRESHOLD

    def run(self, window: int, seconds: float) -> tuple[Figures, bytes]:
        """Figures, and the first answer."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.rcvtimeo = SILENCE_MS_MAX
        socket.sndhwm = socket.rcvhwm = 0
        socket.connect(self._endpoint.address)
        try:
            return self._run(socket, window, seconds)
        finally:
            context.destroy(linger=0)

    def _run(self, socket: zmq.Socket[bytes], window: int, seconds: float) -> tuple[Figures, bytes]:
        latencies_ms: list[float] = []
        first: list[bytes] | None = None
        failed = 0
        begin = time.perf_counter()
        for _ in range(window):
            self._send(socket)
        while self._sent:
            parts = socket.recv_multipart() if self._copy else _receive_views(socket)
            for answer_head, body in heads.split_parcels(parts):
                if answer_head[3] != heads.REPLY:
                    continue
                (answered,) = heads.REQUEST_ID.unpack_from(answer_head, heads.REQUEST_ID_OFFSET)
                now = time.perf_counter()
                latencies_ms.append((now - self._sent.pop(answered)) * 1_000)
                first = first or body
                failed += answer_head[heads.STATUS_OFFSET] or not self._is_same(body, first)
                if now - begin < seconds:
                    self._send(socket)
        elapsed = time.perf_counter() - begin
        return of_latencies(latencies_ms, elapsed, failed), b"".join(first or ())

    def _send(self, socket: zmq.Socket[bytes]) -> None:
        self._request_id += 1
        self._sent[self._request_id] = time.perf_counter()
        stamped = self._head[:8] + heads.REQUEST_ID.pack(self._request_id) + self._head[16:]
        socket.send_multipart([stamped, *self._frames], copy=self._copy)

    def _is_same(self, body: list[bytes], first: list[bytes]) -> bool:
        """Whether two answers are equal; of large ones lengths and ends are compared."""
        if not self._endpoint.is_exact:
            return list(map(len, body)) == list(map(len, first))
        if self._copy:
            return body == first
        return _ends(body) == _ends(first)


def _ends(frames: list[bytes]) -> list[tuple[int, bytes]]:
    return [(len(frame), bytes(frame[-64:])) for frame in frames]


def _receive_views(socket: zmq.Socket[bytes]) -> list[bytes]:
    """A message whose first frame is bytes and whose others are views of what ZeroMQ holds."""
    head, *frames = socket.recv_multipart(copy=False)
    return [head.bytes, *(frame.buffer for frame in frames)]  # type: ignore[list-item]
