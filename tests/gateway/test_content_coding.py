"""Replies that are compressed for clients which accept it; test_oip_rest has the requests."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable

import pytest

from gateway.content_coding import accepted_coding
from gateway.http_messages import HttpAnswer, HttpRequest
from gateway.rest_door import RestDoor
from protocol import limits
from tests.gateway.test_rest_door import ask

TEXT = b'{"instances": [' + b"1.5, " * 1_000 + b"1.5]}"
LONG = TEXT * 20
NOISE = bytes(value * value * 7919 % 65_537 % 256 for value in range(3_000))
SHORT = b"x" * 1_023

BODIES = {b"/text": TEXT, b"/long": LONG, b"/noise": NOISE, b"/short": SHORT}


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        (b"", None),
        (b"gzip", b"gzip"),
        (b"GZip", b"gzip"),
        (b"deflate", b"deflate"),
        (b"deflate, gzip, br", b"gzip"),
        (b"gzip;q=0.5, deflate;q=0.8", b"deflate"),
        (b"*", b"gzip"),
        (b"gzip;q=0, *", b"deflate"),
        (b"gzip;q=0", None),
        (b"gzip; q=0.001", b"gzip"),
        (b"br, zstd", None),
        (b"identity", None),
        (b"identity, gzip;q=0.5", None),
        (b"identity;q=0.5, gzip", b"gzip"),
        (b"gzip;q=x", None),
        (b"gzip;q=7", None),
        (b"gzip;x=1", None),
        (b";;,,=", None),
    ],
)
def test_the_client_says_which_coding_it_likes(
    accepted: bytes | None, coding: bytes | None
) -> None:
    assert accepted_coding(accepted) == coding


class Library:
    """Answers with one of the bodies."""

    body_bytes_max = limits.MIB
    forwarder = None

    async def handle(self, request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, BODIES[request.target], ((b"x-own", b"1"),))


async def metrics(_accept: str) -> tuple[str, bytes]:
    return "text/plain", TEXT


def on_door(scene: Callable[[RestDoor], Awaitable[None]], packs_replies: bool = True) -> None:
    async def play() -> None:
        door = await RestDoor.open(
            Library(), "127.0.0.1:0", 1, metrics=metrics, packs_replies=packs_replies
        )
        try:
            await asyncio.wait_for(scene(door), 20)
        finally:
            await door.close(0)

    asyncio.run(play())


def get(target: bytes, accepted: bytes = b"gzip") -> bytes:
    return b"GET %s HTTP/1.1\r\nAccept-Encoding: %s\r\n\r\n" % (target, accepted)


@pytest.mark.parametrize("target", [b"/text", b"/long", b"/metrics"])
@pytest.mark.parametrize(
    ("coding", "unpack"), [(b"gzip", gzip.decompress), (b"deflate", zlib.decompress)]
)
def test_a_reply_is_packed(target: bytes, coding: bytes, unpack: Callable[[bytes], bytes]) -> None:
    async def scene(door: RestDoor) -> None:
        _, headers, body = await ask(door, get(target, coding))
        assert headers[b"content-encoding"] == coding
        assert headers[b"vary"] == b"accept-encoding"
        plain = BODIES.get(target, TEXT)
        assert len(body) < len(plain) / 10
        assert unpack(body) == plain

    on_door(scene)


@pytest.mark.parametrize(
    ("target", "accepted", "packs_replies"),
    [
        (b"/short", b"gzip", True),
        (b"/noise", b"gzip", True),
        (b"/text", b"br", True),
        (b"/text", b"gzip", False),
        (b"/metrics", b"gzip", False),
    ],
)
def test_a_reply_goes_as_it_is(target: bytes, accepted: bytes, packs_replies: bool) -> None:
    async def scene(door: RestDoor) -> None:
        _, headers, body = await ask(door, get(target, accepted))
        assert b"content-encoding" not in headers
        assert body == BODIES.get(target, TEXT)
        # a cache between us and others must know that they might get another one
        is_packed_for_some = packs_replies and len(body) >= 1_024
        assert (b"vary" in headers) == is_packed_for_some

    on_door(scene, packs_replies)
