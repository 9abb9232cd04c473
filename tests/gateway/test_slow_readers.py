"""Clients of the doors that do not read their replies."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import pytest
import uvloop

from gateway.grpc_door import PREDICT, GrpcDoor
from gateway.http_messages import HttpAnswer, HttpRequest
from gateway.http_service import Patience
from gateway.rest_door import RestDoor
from gateway.tls import TlsSettings
from protocol import limits
from tests.gateway.fakes import KeyMaterial
from tests.gateway.http2_client import (
    END_STREAM,
    HEADERS,
    RST_STREAM,
    WINDOW_BYTES,
    Http2Client,
)

DEADLINE_S = 30.0
REPLY = bytes(limits.MIB - 1)


class Big:
    """Answers everything with `REPLY`, or with as many bytes as the body says."""

    body_bytes_max = limits.MIB
    forwarder = None

    async def predict(self, body: bytes, budget_ms: int | None) -> bytes:
        return bytes(int(body)) if body else REPLY

    async def handle(self, request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, bytes(int(request.target[1:])))


# ---------------------------------------------------------------- gRPC

CALLS = 40
KEPT = 4


def on_grpc_door(scene: Callable[[GrpcDoor], Awaitable[None]]) -> None:
    async def play() -> None:
        door = await GrpcDoor.open(
            Big(), "127.0.0.1:0", 1, unread_bytes_max=KEPT * len(REPLY) + 1_000
        )
        try:
            await asyncio.wait_for(scene(door), DEADLINE_S)
        finally:
            await door.close(0)

    asyncio.run(play())


@pytest.mark.shows("F10")
def test_a_grpc_client_that_takes_nothing_has_few_replies_held_and_others_are_served() -> None:
    async def scene(door: GrpcDoor) -> None:
        slow = await Http2Client.connect(door.address)
        streams = {slow.call(b"") for _ in range(CALLS)}
        refused: set[int] = set()
        while len(refused) < CALLS - KEPT:
            frame = await slow.receive()
            if frame.kind == HEADERS and frame.flags & END_STREAM:
                assert b"unread_bytes_full" in frame.payload
                refused.add(frame.stream)
        async with grpc.aio.insecure_channel(door.address) as channel:
            assert await channel.unary_unary(PREDICT)(b"") == REPLY
        kept = streams - refused
        assert await replies_of(slow, kept) == dict.fromkeys(kept, len(REPLY) + 5)
        again = slow.call(b"")
        assert await replies_of(slow, {again}) == {again: len(REPLY) + 5}
        slow.close()

    on_grpc_door(scene)


async def replies_of(client: Http2Client, streams: set[int]) -> dict[int, int]:
    """Let the replies of these streams come; how many bytes each had, its 5 of framing too."""
    client.allow(0, len(streams) * 2 * len(REPLY))
    for stream in streams:
        client.allow(stream, 2 * len(REPLY))
    ended: set[int] = set()
    while ended != streams:
        frame = await client.receive()
        assert frame.kind != RST_STREAM
        if frame.stream in streams and frame.flags & END_STREAM:
            ended.add(frame.stream)
    return {stream: client.data_bytes[stream] for stream in streams}


def test_what_a_grpc_client_left_unread_is_forgotten_when_it_goes() -> None:
    async def scene(door: GrpcDoor) -> None:
        for _ in range(3):
            slow = await Http2Client.connect(door.address)
            stream = slow.call(b"")
            while slow.data_bytes[stream] < WINDOW_BYTES:
                await slow.receive()
            assert door.unread_bytes() >= len(REPLY) - WINDOW_BYTES
            slow.close()
        while door.unread_bytes():
            await asyncio.sleep(0.01)

    on_grpc_door(scene)


# ---------------------------------------------------------------- REST

LARGE = 64 * limits.MIB
GET = b"POST /%d HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


def on_rest_door(  # type: ignore[no-untyped-def]
    scene: Callable[[RestDoor], Awaitable[None]], run, idle_s: float, tls: TlsSettings | None = None
) -> None:
    async def play() -> None:
        patience = Patience(idle_s=idle_s)
        door = await RestDoor.open(Big(), "localhost:0", 1, tls, patience)
        try:
            await asyncio.wait_for(scene(door), DEADLINE_S)
        finally:
            await door.close(0)

    run(play())


@pytest.mark.shows("F10", "F20")
@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_http_client_that_takes_nothing_of_its_reply_is_given_up(  # type: ignore[no-untyped-def]
    run, is_encrypted: bool, key_material: KeyMaterial
) -> None:
    async def scene(door: RestDoor) -> None:
        host, _, port = door.address.rpartition(":")
        # The reader takes as much as its limit and no more, until somebody reads from it.
        context = ssl.create_default_context(cafile=key_material.ca) if is_encrypted else None
        reader, writer = await asyncio.open_connection(host, int(port), limit=1_024, ssl=context)
        writer.write(GET % LARGE)
        assert await reader.readuntil(b"\r\n\r\n")
        while door.connections():
            await asyncio.sleep(0.01)
        received = await read_all(reader)
        assert received < LARGE
        writer.close()

    on_rest_door(scene, run, 0.3, key_material.tls() if is_encrypted else None)


@pytest.mark.parametrize("size", [100, LARGE])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_http_client_that_takes_nothing_of_its_last_reply_is_given_up(run, size: int) -> None:  # type: ignore[no-untyped-def]
    async def scene(door: RestDoor) -> None:
        host, _, port = door.address.rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            # What came before fills what the kernel holds; the last one stays here, however small.
            client.sendall(GET % (4 * limits.MIB))
            last = (GET % size).replace(b"Content", b"Connection: close\r\nContent")
            await asyncio.sleep(0.2)
            client.sendall(last)
            while door.connections():
                await asyncio.sleep(0.01)

    on_rest_door(scene, run, idle_s=0.3)


async def read_all(reader: asyncio.StreamReader) -> int:
    received = 0
    try:
        while chunk := await reader.read(1 << 20):
            received += len(chunk)
    except ConnectionResetError:
        pass
    return received


@pytest.mark.long
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_an_http_client_that_reads_slowly_gets_its_whole_reply(
    is_encrypted: bool, key_material: KeyMaterial
) -> None:
    async def scene(door: RestDoor) -> None:
        host, _, port = door.address.rpartition(":")
        context = ssl.create_default_context(cafile=key_material.ca) if is_encrypted else None
        reader, writer = await asyncio.open_connection(host, int(port), limit=1_024, ssl=context)
        writer.write((GET % LARGE).replace(b"Content", b"Connection: close\r\nContent"))
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(16):
            await reader.readexactly(LARGE // 16)
            await asyncio.sleep(0.2)  # the client's pace: all in all more than its patience
        writer.close()

    on_rest_door(scene, uvloop.run, 2.0, key_material.tls() if is_encrypted else None)
