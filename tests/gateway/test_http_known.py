"""Requests with known heads are answered as those that the parser reads."""

from __future__ import annotations

import pytest

from gateway.http_arriving import ArrivingRequest
from gateway.http_known import HEADS_MAX, LEARNED_MIN, KnownHeads
from gateway.http_messages import HttpRequest
from gateway.rest_door import RestDoor
from tests.gateway.test_rest_door import POST, Echo, connect, on_door, read_reply

LIMIT = 1_000

PLAIN = [(b"host", b"x"), (b"content-length", b"4")]
HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


def read(
    headers: list[tuple[bytes, bytes]], body: bytes, is_kept_alive: bool = True
) -> ArrivingRequest:
    """A request as the parser hands it on."""
    request = ArrivingRequest()
    request.verb, request.target = "POST", b"/a"
    request.headers = headers
    request.is_kept_alive = is_kept_alive
    if body:
        request.add_body(body, LIMIT)
    return request


def found(heads: KnownHeads, data: bytes) -> HttpRequest | None:
    request = heads.find(data, LIMIT, 5.0)
    return None if request is None else request.complete(LIMIT, 5.0)


def test_a_head_that_was_read_is_known_with_any_body_of_its_length() -> None:
    heads = KnownHeads()
    assert found(heads, HEAD + b"1234") is None
    heads.learn(HEAD + b"1234", read(PLAIN, b"1234"))
    request = found(heads, HEAD + b"5678")
    assert request is not None
    assert (request.verb, request.target, request.body) == ("POST", b"/a", b"5678")
    assert list(request.headers) == PLAIN
    assert request.known is not None


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"123",
        HEAD + b"12345",
        HEAD,
        HEAD.replace(b"/a", b"/b") + b"1234",
        HEAD.replace(b"Host", b"host") + b"1234",
        b"\r\n" + HEAD + b"1234",
        HEAD[:-1],
        b"",
        b"\r\n\r\n",
    ],
)
def test_whatever_else_it_is_the_parser_sees_it(data: bytes) -> None:
    heads = KnownHeads()
    heads.learn(HEAD + b"1234", read(PLAIN, b"1234"))
    assert heads.find(data, LIMIT, 0.0) is None


@pytest.mark.parametrize(
    ("headers", "is_kept_alive"),
    [
        ([(b"content-length", b"4"), (b"content-length", b"4")], True),
        ([(b"content-length", b"04")], True),
        ([(b"transfer-encoding", b"chunked")], True),
        ([*PLAIN, (b"expect", b"100-continue")], True),
        ([*PLAIN, (b"upgrade", b"h2c")], True),
        ([*PLAIN, (b"connection", b"close")], True),
        ([*PLAIN, (b"connection", b"keep-alive, upgrade")], True),
        ([], True),
        (PLAIN, False),
    ],
)
def test_heads_that_do_not_say_all_are_not_learned(
    headers: list[tuple[bytes, bytes]], is_kept_alive: bool
) -> None:
    heads = KnownHeads()
    heads.learn(HEAD + b"1234", read(headers, b"1234", is_kept_alive))
    assert found(heads, HEAD + b"1234") is None


def test_a_read_that_is_more_than_one_request_teaches_nothing() -> None:
    heads = KnownHeads()
    heads.learn(HEAD + b"1234" + HEAD + b"1234", read(PLAIN, b"1234"))
    heads.learn(HEAD + b"12", read(PLAIN, b"1234"))
    heads.learn(b"", read(PLAIN, b"1234"))
    assert found(heads, HEAD + b"1234") is None


def test_empty_lines_before_a_request_are_no_head() -> None:
    heads = KnownHeads()
    data = b"\r\n\r\n" + HEAD
    heads.learn(data, read([(b"content-length", b"%d" % len(HEAD))], HEAD))
    assert found(heads, data) is None


def test_clients_that_say_something_new_each_time_are_learned_from_only_so_often() -> None:
    heads = KnownHeads()
    for number in range(10 * HEADS_MAX):
        data = b"POST /a HTTP/1.1\r\nContent-Length: 4\r\nX-Request-Id: %d\r\n\r\n1234" % number
        headers = [(b"content-length", b"4"), (b"x-request-id", b"%d" % number)]
        assert heads.find(data, LIMIT, 0.0) is None
        heads.learn(data, read(headers, b"1234"))
    assert heads._learned == LEARNED_MIN


def test_a_body_over_the_limit_is_none_also_behind_a_known_head() -> None:
    heads = KnownHeads()
    heads.learn(HEAD + b"1234", read(PLAIN, b"1234"))
    request = heads.find(HEAD + b"1234", 3, 0.0)
    assert request is not None
    assert request.complete(3, 0.0).body is None


# ---------------------------------------------------------------- through the door


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_known_and_unknown_requests_take_turns_on_one_connection(is_pipelined: bool) -> None:
    chunked = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
    get = b"GET /g HTTP/1.1\r\nHost: x\r\n\r\n"
    requests = [POST % (b"/a", 4, b"abcd"), get, chunked, POST % (b"/b", 0, b"")] * 5
    wanted = [
        ("POST", b"/a", b"abcd"),
        ("GET", b"/g", b""),
        ("POST", b"/c", b"xyz"),
        ("POST", b"/b", b""),
    ] * 5

    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        if is_pipelined:
            writer.write(b"".join(requests))
        for raw in requests:
            if not is_pipelined:
                writer.write(raw)
            line, _, _ = await read_reply(reader)
            assert line == b"HTTP/1.1 200 OK"
        assert echo.asked == wanted
        writer.close()

    on_door(scene)


def test_a_request_cut_anywhere_is_the_same_request() -> None:
    raw = POST % (b"/a", 4, b"abcd")

    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        for at in range(len(raw) + 1):
            writer.write(raw[:at])
            await writer.drain()
            writer.write(raw[at:] + raw[:at])  # its rest, and the beginning of the next one
            await read_reply(reader)
            writer.write(raw[at:])
            await read_reply(reader)
        assert echo.asked == [("POST", b"/a", b"abcd")] * (2 * len(raw) + 2)
        writer.close()

    on_door(scene)
