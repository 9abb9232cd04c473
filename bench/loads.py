"""Closed-loop load on one door: n requests in flight, each followed by the next.

Every load checks each reply's bytes against the first one, which the caller has checked by value.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import grpc.aio
import zmq

from protocol import head as heads

PREDICT = "/mindspore.serving.proto.MSService/Predict"


class Figures(NamedTuple):
    """What a load of some seconds gave."""

    requests: int
    seconds: float
    latencies_ms: list[float]

    def line(self) -> str:
        """req/s, p50 and p99 in ms."""
        ordered = sorted(self.latencies_ms)
        p50, p99 = (ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
        return f"{self.requests / self.seconds:9.0f} req/s   p50 {p50:7.2f}   p99 {p99:7.2f} ms"


async def run_load(
    call: Callable[[], Awaitable[bytes]], concurrency: int, seconds: float, expected: bytes
) -> Figures:
    """Keep `concurrency` calls in flight for some seconds. Raises AssertionError on a wrong one."""
    latencies_ms: list[float] = []
    begin = time.perf_counter()

    async def one_after_the_other() -> None:
        while (sent := time.perf_counter()) - begin < seconds:
            answer = await call()
            assert answer == expected, answer
            latencies_ms.append((time.perf_counter() - sent) * 1_000)

    await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
    return Figures(len(latencies_ms), time.perf_counter() - begin, latencies_ms)


async def rest_load(address: str, body: bytes, expected: bytes, n: int, seconds: float) -> Figures:
    """REST, one kept connection per request in flight."""
    host, _, port = address.rpartition(":")
    head = (
        f"POST /model/small:add HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    message = head.encode() + body
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call() -> bytes:
        connection = free.pop() if free else await asyncio.open_connection(host, int(port))
        reader, writer = connection
        writer.write(message)
        answer_head = await reader.readuntil(b"\r\n\r\n")
        length = int(answer_head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        answer = await reader.readexactly(length)
        free.append(connection)
        return answer

    figures = await run_load(call, n, seconds, expected)
    for _, writer in free:
        writer.close()
    return figures


async def grpc_load(address: str, body: bytes, expected: bytes, n: int, seconds: float) -> Figures:
    """MSService over grpcio's asyncio client, one channel."""
    async with grpc.aio.insecure_channel(address) as channel:
        predict = channel.unary_unary(PREDICT)
        return await run_load(lambda: predict(body), n, seconds, expected)


def bus_load(address: str, parts: list[bytes], expected: bytes, n: int, seconds: float) -> Figures:
    """The native dialect straight over ZeroMQ: a window of n requests on one DEALER."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(address)
    head, *frames = parts
    sent: dict[int, float] = {}
    latencies_ms: list[float] = []
    begin = time.perf_counter()
    request_id = 0

    def send() -> None:
        nonlocal request_id
        request_id += 1
        sent[request_id] = time.perf_counter()
        stamped = head[:8] + heads.REQUEST_ID.pack(request_id) + head[16:]
        socket.send_multipart([stamped, *frames])

    for _ in range(n):
        send()
    while sent:
        for answer_head, body in heads.split_parcels(socket.recv_multipart()):
            if answer_head[3] != heads.REPLY:
                continue
            (answered,) = heads.REQUEST_ID.unpack_from(answer_head, heads.REQUEST_ID_OFFSET)
            assert body[0] == expected, body
            now = time.perf_counter()
            latencies_ms.append((now - sent.pop(answered)) * 1_000)
            if now - begin < seconds:
                send()
    elapsed = time.perf_counter() - begin
    context.destroy(linger=0)
    return Figures(len(latencies_ms), elapsed, latencies_ms)
