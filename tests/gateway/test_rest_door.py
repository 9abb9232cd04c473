"""The RESTful door, with raw sockets, `http.client` and curl."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import resource
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from gateway import http_connection
from gateway.doors import DoorError
from gateway.http_arriving import ArrivingRequest
from gateway.http_messages import HttpAnswer, HttpRequest
from gateway.http_service import Patience
from gateway.journal import Journal
from gateway.rest_door import Metrics, RestDoor
from gateway.restful_handler import RestfulHandler
from gateway.tls import TlsSettings, rest_context
from protocol import head as heads
from protocol import limits
from telemetry.log import configure
from tests.gateway.fakes import FakeBus, KeyMaterial, busy_port, in_thread, reply_head

Asked = tuple[str, bytes, bytes | None]


class Echo:
    """Answers with what it was asked; the target `/slow` waits for `finish`."""

    body_bytes_max = limits.MIB
    forwarder = None

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.timeouts: list[tuple[bytes | None, int]] = []
        self.cancelled = asyncio.Event()
        self.arrived = asyncio.Event()
        self.finish = asyncio.Event()

    async def handle(self, request: HttpRequest) -> HttpAnswer:
        verb, target, body = request.verb, request.target, request.body
        self.asked.append((verb, target, body))
        self.timeouts.append((request.header(b"grpc-timeout"), request.reading_ms))
        self.arrived.set()
        if target == b"/slow":
            try:
                await self.finish.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if target == b"/broken":
            raise RuntimeError("a mistake of ours")
        size = -1 if body is None else len(body)
        return HttpAnswer(200, json.dumps([verb, target.decode("latin-1"), size]).encode())


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Scene = Callable[[Echo, RestDoor], Awaitable[None]]


def on_door(  # type: ignore[no-untyped-def]
    scene: Scene,
    run=asyncio.run,
    patience: Patience | None = None,
    journal: Journal | None = None,
    metrics: Metrics | None = None,
) -> None:
    async def play() -> None:
        echo = Echo()
        door = await RestDoor.open(
            echo,
            "127.0.0.1:0",
            1,
            patience=patience or Patience(),
            journal=journal,
            metrics=metrics,
        )
        try:
            await asyncio.wait_for(scene(echo, door), 20)
        finally:
            await door.close(0)

    run(play())


async def connect(door: RestDoor) -> Streams:
    host, _, port = door.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def read_reply(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """One reply: status line, headers, body of the length it names."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *rest = head[:-4].split(b"\r\n")
    headers = {k.lower(): v for k, v in (item.split(b": ", 1) for item in rest)}
    return line, headers, await reader.readexactly(int(headers.get(b"content-length", b"0")))


async def ask(door: RestDoor, raw: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Send raw bytes on a new connection and read one reply."""
    reader, writer = await connect(door)
    writer.write(raw)
    try:
        return await read_reply(reader)
    finally:
        writer.close()


POST = b"POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_reply_is_json_with_status_200_on_a_connection_that_stays(run) -> None:  # type: ignore[no-untyped-def]
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        for _ in range(3):
            writer.write(POST % (b"/model/add:m", 4, b"body"))
            line, headers, body = await read_reply(reader)
            assert line == b"HTTP/1.1 200 OK"
            assert headers[b"content-type"] == b"application/json"
            assert body == b'["POST", "/model/add:m", 4]'
            assert b"date" in headers
            assert b"server" not in headers
        writer.close()
        assert echo.asked == [("POST", b"/model/add:m", b"body")] * 3

    on_door(scene, run)


def test_get_metrics_is_answered_by_whoever_knows_and_other_gets_are_not() -> None:
    async def metrics(accept: str) -> tuple[str, bytes]:
        return "text/plain; version=0.0.4", accept.encode()

    async def scene(echo: Echo, door: RestDoor) -> None:
        line, headers, body = await ask(door, b"GET /metrics HTTP/1.1\r\nAccept: a/b\r\n\r\n")
        assert (line, body) == (b"HTTP/1.1 200 OK", b"a/b")
        assert headers[b"content-type"] == b"text/plain; version=0.0.4"
        await ask(door, b"GET /metrics/ HTTP/1.1\r\n\r\n")
        await ask(door, POST % (b"/metrics", 1, b"x"))
        assert echo.asked == [("GET", b"/metrics/", b""), ("POST", b"/metrics", b"x")]

    on_door(scene, metrics=metrics)


def test_without_metrics_that_address_is_like_any_other() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        await ask(door, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert echo.asked == [("GET", b"/metrics", b"")]

    on_door(scene)


def test_the_id_of_a_request_comes_back_and_its_trace_too() -> None:
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    post = b"POST /a HTTP/1.1\r\n%s\r\nContent-Length: 1\r\n\r\nx"

    async def scene(_: Echo, door: RestDoor) -> None:
        _, headers, _ = await ask(door, post % (b"X-Request-Id: r1\r\nTraceparent: " + trace))
        assert headers[b"x-request-id"] == b"r1"
        assert headers[b"traceresponse"] == trace
        made = [(await ask(door, POST % (b"/a", 1, b"x")))[1] for _ in range(2)]
        assert made[0][b"x-request-id"] != made[1][b"x-request-id"]
        assert b"traceresponse" not in made[0]
        twice = b"Traceparent: " + trace + b"\r\nTraceparent: " + trace
        assert b"traceresponse" not in (await ask(door, post % twice))[1], "which of them holds?"

    on_door(scene)


def test_a_request_that_ends_by_a_mistake_of_ours_is_entered_so() -> None:
    journal = Journal()

    async def scene(_: Echo, door: RestDoor) -> None:
        await ask(door, POST % (b"/broken", 1, b"x"))

    on_door(scene, journal=journal)
    assert journal.numbers.doors["rest"].codes == {"INTERNAL": 1}


def test_a_deadline_begins_with_the_head_and_is_handed_on_as_it_came() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        await ask(door, POST % (b"/x", 1, b"x"))
        head = b"POST /x HTTP/1.1\r\nGrpc-Timeout: 1500m\r\nContent-Length: 1\r\n"
        reader, writer = await connect(door)
        writer.write(head + b"\r\n")
        await asyncio.sleep(0.2)
        writer.write(b"x")
        await read_reply(reader)
        writer.write(head + b"grpc-timeout: 1S\r\n\r\nx")
        await read_reply(reader)
        writer.close()
        assert [value for value, _ in echo.timeouts] == [None, b"1500m", b"1500m, 1S"]
        assert 100 <= echo.timeouts[1][1] < 10_000

    on_door(scene)


@pytest.mark.parametrize(
    "target",
    [b"/model/a%20b:m", b"/model/add:m?x=1&y", b"//version/0/model/a:m", b"*", b"http://h/a:m"],
)
def test_the_target_arrives_as_it_was_sent(target: bytes) -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        line, _, _ = await ask(door, POST % (target, 1, b"x"))
        assert line == b"HTTP/1.1 200 OK"
        assert echo.asked == [("POST", target, b"x")]

    on_door(scene)


@pytest.mark.parametrize("target", [b"/m\xc3\xb6del", b":", b"model/add:m"])
def test_a_target_that_http_does_not_allow_is_a_bad_request(target: bytes) -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        line, _, _ = await ask(door, POST % (target, 1, b"x"))
        assert line == b"HTTP/1.1 400 Bad Request"
        assert echo.asked == []

    on_door(scene)


@pytest.mark.parametrize(("size", "passes"), [(-1, True), (0, True), (1, False)])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_read_to_its_end_but_not_kept(
    size: int, passes: bool, chunked: bool
) -> None:
    body = bytes(limits.MIB + size)

    async def scene(echo: Echo, door: RestDoor) -> None:
        if chunked:
            pieces = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
            coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
            raw = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
        else:
            raw = POST % (b"/a", len(body), body)
        line, _, _ = await ask(door, raw)
        assert line == b"HTTP/1.1 200 OK"
        assert echo.asked == [("POST", b"/a", body if passes else None)]

    on_door(scene)


def test_the_limits_text_comes_through_the_door() -> None:
    async def play() -> None:
        handler = RestfulHandler(FakeBus(), limits.MIB)
        door = await RestDoor.open(handler, "127.0.0.1:0", 1)
        try:
            _, _, body = await ask(door, POST % (b"/", limits.MIB + 1, bytes(limits.MIB + 1)))
        finally:
            await door.close(0)
        assert json.loads(body) == {"error_msg": "http message is bigger than 1048576"}

    asyncio.run(play())


def test_a_handler_answers_through_the_door_to_the_standard_client() -> None:
    async def play() -> None:
        bus = FakeBus((reply_head(heads.DIALECT_RESTFUL), [b'{"instances":[{"y":2}]}']))
        door = await RestDoor.open(RestfulHandler(bus, limits.MIB), "127.0.0.1:0", 1)

        def client() -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(door.address, timeout=10)
            connection.request("POST", "/model/add:m", b'{"instances":{"x":1}}')
            reply = connection.getresponse()
            body = reply.read()
            connection.close()
            return reply.status, body

        assert await in_thread(client) == (200, b'{"instances":[{"y":2}]}')
        await door.close(0)

    asyncio.run(play())


def curl(*arguments: str) -> bytes:
    return subprocess.run(
        ["curl", "-sS", "--max-time", "10", *arguments], check=True, capture_output=True
    ).stdout


def test_curl_gets_through_with_100_continue_and_with_chunks(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(bytes(500_000))

    async def scene(echo: Echo, door: RestDoor) -> None:
        url = f"http://{door.address}/a"
        plain = ("-X", "POST", "--data-binary", f"@{file}")
        for more in (
            ("-H", "Expect: 100-continue"),
            ("-H", "Transfer-Encoding: chunked"),
            ("--http1.0",),
        ):
            assert await in_thread(curl, *plain, *more, url) == b'["POST", "/a", 500000]'

    on_door(scene)


def test_an_offer_of_http_2_is_declined_without_losing_the_body() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        url = f"http://{door.address}/a"
        assert await in_thread(curl, "--http2", "-d", "body", url) == b'["POST", "/a", 4]'
        raw = (
            b"POST /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 4\r\n\r\nbo"
        )
        reader, writer = await connect(door)
        for byte in range(len(raw)):
            writer.write(raw[byte : byte + 1])
            await writer.drain()
        writer.write(b"dy" + POST % (b"/b", 1, b"x"))
        assert (await read_reply(reader))[2] == b'["POST", "/a", 4]'
        assert (await read_reply(reader))[2] == b'["POST", "/b", 1]'
        writer.close()

    on_door(scene)


def test_many_offers_of_http_2_at_once_are_all_declined() -> None:
    offers = 600
    raw = (
        b"POST /%d HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 1\r\n\r\nx"
    )

    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        writer.write(b"".join(raw % number for number in range(offers)))
        for number in range(offers):
            assert (await read_reply(reader))[2] == b'["POST", "/%d", 1]' % number
        writer.close()

    on_door(scene)


def test_a_body_in_tiny_pieces_takes_little_more_room_than_its_bytes() -> None:
    request = ArrivingRequest()
    for number in range(100_000):
        request.add_body(b"%d" % (number % 10), limits.MIB)
    assert sum(sys.getsizeof(piece) for piece in request._body) < 200_000
    body = request.complete(limits.MIB, 0.0).body
    assert body == b"0123456789" * 10_000
    assert isinstance(body, bytes)


def test_a_reply_to_head_has_no_body() -> None:
    async def play() -> None:
        door = await RestDoor.open(RestfulHandler(FakeBus(), limits.MIB), "127.0.0.1:0", 1)
        reader, writer = await connect(door)
        writer.write(b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n")
        raw = await reader.read()
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
        assert raw.endswith(b"\r\n\r\n")
        writer.close()
        await door.close(0)

    asyncio.run(play())


@pytest.mark.parametrize("verb", [b"PATCH /", b"OPTIONS *", b"FOO /", b"CONNECT a:1"])
def test_other_verbs_are_not_implemented(verb: bytes) -> None:
    async def play() -> None:
        door = await RestDoor.open(RestfulHandler(FakeBus(), limits.MIB), "127.0.0.1:0", 1)
        line, _, _ = await ask(door, verb + b" HTTP/1.1\r\n\r\n")
        assert line == b"HTTP/1.1 501 Not Implemented"
        await door.close(0)

    asyncio.run(play())


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_bytes_that_are_no_http_are_refused_and_the_connection_closed(raw: bytes) -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        writer.write(raw)
        answer = await reader.read()
        assert answer.split(b"\r\n")[0] in (
            b"HTTP/1.1 400 Bad Request",
            b"HTTP/1.1 501 Not Implemented",
        )
        writer.close()
        assert echo.asked == []

    on_door(scene)


def test_nonsense_behind_a_request_does_not_cost_that_request_its_reply() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        writer.write(POST % (b"/slow", 1, b"x") + b"nonsense\r\n\r\n")
        await echo.arrived.wait()
        echo.finish.set()
        assert (await read_reply(reader))[2] == b'["POST", "/slow", 1]'
        assert await reader.read() == b""
        writer.close()

    on_door(scene)


OVER = http_connection.HEAD_BYTES_MAX + 1


def repeated(start: bytes, line: bytes) -> bytes:
    """As many bytes as are one too many. Fewer would be read, of more the rest would be reset."""
    return (start + line * OVER)[:OVER]


@pytest.mark.shows("F15", "R18")
@pytest.mark.parametrize(
    "flood",
    [
        repeated(b"POST /", b"a"),
        repeated(b"POST / HTTP/1.1\r\n", b"A: b\r\n"),
        repeated(b"POST / HTTP/1.1\r\nA: ", b"b"),
        repeated(b"", b"\r\n"),
    ],
)
def test_a_head_without_end_is_cut_off(flood: bytes) -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        line, _, _ = await ask(door, flood)
        assert line == b"HTTP/1.1 431 Request Header Fields Too Large"
        assert echo.asked == []

    on_door(scene)


@pytest.mark.parametrize("flood", [repeated(b"1;", b"x"), repeated(b"0\r\n", b"A: b\r\n")])
def test_chunk_extensions_and_trailers_without_end_are_cut_off(flood: bytes) -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        writer.write(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await read_reply(reader))[0] == b"HTTP/1.1 100 Continue"
        writer.write(flood)
        assert (await read_reply(reader))[0] == b"HTTP/1.1 400 Bad Request"
        assert await reader.read() == b""
        writer.close()
        assert echo.asked == []

    on_door(scene)


def test_a_client_that_goes_away_cancels_its_request() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        _, writer = await connect(door)
        writer.write(POST % (b"/slow", 1, b"x"))
        await echo.arrived.wait()
        writer.close()
        await echo.cancelled.wait()

    on_door(scene)


def test_a_client_that_goes_away_in_the_middle_of_a_body_is_forgotten() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        _, writer = await connect(door)
        writer.write(POST % (b"/a", 500_000, b"x" * 100_000))
        await writer.drain()
        assert await ask(door, POST % (b"/b", 1, b"x"))
        writer.close()
        await writer.wait_closed()
        assert echo.asked == [("POST", b"/b", b"x")]

    on_door(scene)


def test_requests_sent_without_waiting_are_answered_in_their_order() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        writer.write(b"".join(POST % (b"/%d" % i, 1, b"x") for i in range(20)))
        replies = [(await read_reply(reader))[2] for _ in range(20)]
        assert replies == [b'["POST", "/%d", 1]' % i for i in range(20)]
        writer.close()

    on_door(scene)


def test_a_mistake_of_ours_is_an_internal_error_without_its_text() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        line, _, body = await ask(door, POST % (b"/broken", 1, b"x"))
        assert line == b"HTTP/1.1 500 Internal Server Error"
        assert b"mistake" not in body

    on_door(scene)


# ---------------------------------------------------------------- time


@pytest.mark.shows("F20")
@pytest.mark.parametrize(
    ("sent", "patience"),
    [
        (b"POST / HTTP/1.1\r\nA: ", Patience(head_s=0.02)),
        (b"", Patience(idle_s=0.02)),
        (POST % (b"/a", 9, b"x"), Patience(idle_s=0.02)),
    ],
)
def test_a_client_that_falls_silent_is_given_up(sent: bytes, patience: Patience) -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        writer.write(sent)
        with pytest.raises((ConnectionResetError, EOFError)):
            await reader.readexactly(1)
        writer.close()
        assert echo.asked == []

    on_door(scene, patience=patience)


@pytest.mark.parametrize("behind", [b"\r\n", b"POST /a HTTP/1.1\r\n"])
def test_whoever_waits_for_a_reply_is_not_given_up_for_what_came_behind(behind: bytes) -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        writer.write(POST % (b"/slow", 1, b"x"))
        await echo.arrived.wait()
        writer.write(behind)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(echo.cancelled.wait(), 0.2)
        echo.finish.set()
        assert (await read_reply(reader))[2] == b'["POST", "/slow", 1]'
        writer.close()

    on_door(scene, patience=Patience(head_s=0.02, idle_s=0.02))


def test_a_client_that_falls_silent_right_behind_a_request_is_given_up() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        writer.write(POST % (b"/a", 1, b"x") + b"P")
        await read_reply(reader)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()

    on_door(scene, patience=Patience(head_s=0.02, idle_s=0.02))


def test_a_connection_that_is_idle_between_requests_is_closed() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        writer.write(POST % (b"/a", 1, b"x"))
        await read_reply(reader)
        assert await reader.read() == b""
        writer.close()

    on_door(scene, patience=Patience(idle_s=0.02))


def test_a_client_has_100_seconds_of_silence() -> None:
    assert Patience().idle_s == 100


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_closing_lets_running_requests_finish_and_takes_no_more(run) -> None:  # type: ignore[no-untyped-def]
    async def scene(echo: Echo, door: RestDoor) -> None:
        idle_reader, idle_writer = await connect(door)
        reader, writer = await connect(door)
        writer.write(POST % (b"/slow", 1, b"x"))
        await echo.arrived.wait()
        closing = asyncio.create_task(door.close(10))
        assert await idle_reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await connect(door)
        echo.finish.set()
        _, headers, body = await read_reply(reader)
        assert (headers[b"connection"], body) == (b"close", b'["POST", "/slow", 1]')
        await closing
        idle_writer.close()
        writer.close()

    on_door(scene, run)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_door_whose_place_is_taken_answers_one_more_request_and_says_that_it_ends(run) -> None:  # type: ignore[no-untyped-def]
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        writer.write(POST % (b"/first", 1, b"x"))
        _, headers, _ = await read_reply(reader)
        assert b"connection" not in headers
        leaving = asyncio.create_task(door.leave(8))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await connect(door)
        writer.write(POST % (b"/last", 1, b"x"))
        _, headers, body = await read_reply(reader)
        assert (headers[b"connection"], body) == (b"close", b'["POST", "/last", 1]')
        assert await reader.read() == b""
        await leaving
        writer.close()

    on_door(scene, run)


def test_a_connection_that_makes_no_further_request_is_closed_in_the_end() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        reader, writer = await connect(door)
        await door.leave(0.1)
        await door.close(5)
        assert await reader.read() == b""
        writer.close()

    on_door(scene)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_two_doors_accept_from_one_queue_and_either_may_close(run) -> None:  # type: ignore[no-untyped-def]
    async def scene(echo: Echo, door: RestDoor) -> None:
        other_echo = Echo()
        copy = door.listener.dup()
        other = await RestDoor.open(other_echo, door.address, 1, listener=copy)
        assert other.address == door.address
        await door.close(0)
        for _ in range(3):
            assert (await ask(door, POST % (b"/x", 1, b"x")))[2] == b'["POST", "/x", 1]'
        assert (len(echo.asked), len(other_echo.asked)) == (0, 3)
        await other.close(0)

    on_door(scene, run)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_many_who_connect_at_once_wait_for_a_few_turns_of_the_loop_only(run) -> None:  # type: ignore[no-untyped-def]
    clients = 96

    async def scene(echo: Echo, door: RestDoor) -> None:
        host, _, port = door.address.rpartition(":")
        sockets = [socket.create_connection((host, int(port))) for _ in range(clients)]
        turns = 0
        while door.connections() < clients:
            turns += 1
            await asyncio.sleep(0)
        assert turns < clients / 4
        for each in sockets:
            each.close()

    on_door(scene, run)


def test_a_door_that_has_no_descriptors_left_accepts_again_once_there_are_some() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        reader, writer = await connect(door)
        waiting = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            host, _, port = door.address.rpartition(":")
            waiting.connect((host, int(port)))
            writer.write(POST % (b"/x", 1, b"x"))  # who is connected is served meanwhile
            assert (await read_reply(reader))[2] == b'["POST", "/x", 1]'
            assert door.connections() == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        while door.connections() < 2:
            await asyncio.sleep(0.01)
        writer.close()
        waiting.close()

    on_door(scene, uvloop.run)


def test_a_door_that_leaves_waits_for_those_who_still_shake_hands(
    key_material: KeyMaterial,
) -> None:
    async def play() -> None:
        door = await RestDoor.open(Echo(), "127.0.0.1:0", 1, key_material.tls())
        host, _, port = door.address.rpartition(":")
        client = socket.create_connection((host, int(port)))
        while not door._acceptor.opening:
            await asyncio.sleep(0)
        leaving = asyncio.create_task(door.leave(8))
        await asyncio.sleep(0.3)  # longer than anybody needs, and nobody is lost
        assert not leaving.done()
        reader, writer = await asyncio.open_connection(
            sock=client, ssl=trusting(key_material.ca), server_hostname="localhost"
        )
        writer.write(POST % (b"/last", 1, b"x"))
        _, headers, body = await read_reply(reader)
        assert (headers[b"connection"], body) == (b"close", b'["POST", "/last", 1]')
        assert await reader.read() == b""
        writer.close()
        await leaving
        await door.close(0)

    uvloop.run(play())


def test_closing_drops_what_outlasts_the_grace() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        _, writer = await connect(door)
        writer.write(POST % (b"/slow", 1, b"x"))
        await echo.arrived.wait()
        await door.close(0)
        assert echo.cancelled.is_set()
        writer.close()

    on_door(scene)


# ---------------------------------------------------------------- addresses


def open_fails(address: str, tls: TlsSettings | None = None) -> str:
    async def play() -> str:
        with pytest.raises(DoorError) as refused:
            await RestDoor.open(Echo(), address, 1, tls)
        return str(refused.value)

    return asyncio.run(play())


BIND_FAILED = (
    "Serving Error: RESTful server start failed, bind to the socket address {address} failed"
)


def test_a_port_in_use_is_named() -> None:
    with busy_port() as port:
        address = f"127.0.0.1:{port}"
        assert open_fails(address) == BIND_FAILED.format(address=address)


def test_an_address_that_cannot_be_bound_is_named() -> None:
    for address in ("999.0.0.1:80", "192.0.2.1:80", "a" * 300 + ":80"):
        assert open_fails(address) == BIND_FAILED.format(address=address)


def test_unix_sockets_and_illegal_addresses_are_refused_in_their_own_words() -> None:
    assert open_fails("unix:/tmp/a") == (
        "Serving Error: RESTful server does not support binding to unix domain socket"
    )
    assert open_fails("a:b") == (
        "Serving Error: The type of RESTful server address 'a:b' port is not a number"
    )


def test_a_port_may_be_taken_again_right_after_its_door_closed() -> None:
    async def scene(echo: Echo, door: RestDoor) -> None:
        await ask(door, POST % (b"/a", 1, b"x"))
        await door.close(0)
        again = await RestDoor.open(echo, door.address, 1)
        assert again.address == door.address
        await again.close(0)

    on_door(scene)


# ---------------------------------------------------------------- TLS


def ask_with_tls(tls: TlsSettings, context: ssl.SSLContext | None) -> int | None:
    """The status of a reply; None if no connection came about."""

    async def play() -> int | None:
        door = await RestDoor.open(Echo(), "localhost:0", 1, tls)

        def client() -> int | None:
            if context is None:
                connection = http.client.HTTPConnection(door.address, timeout=10)
            else:
                connection = http.client.HTTPSConnection(door.address, timeout=10, context=context)
            try:
                connection.request("POST", "/a", b"x")
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return None
            finally:
                connection.close()

        status: int | None = await in_thread(client)
        await door.close(0)
        return status

    return asyncio.run(play())


def trusting(ca: str, certificate: str | None = None, key: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def test_tls_serves_clients_that_trust_the_certificate(key_material: KeyMaterial) -> None:
    keys = key_material
    assert ask_with_tls(keys.tls(), trusting(keys.ca)) == 200
    assert ask_with_tls(keys.tls(), trusting(keys.other_ca)) is None
    assert ask_with_tls(keys.tls(), None) is None


@pytest.mark.parametrize(
    ("version", "status"),
    [(ssl.TLSVersion.TLSv1_3, 200), (ssl.TLSVersion.TLSv1_2, 200), (ssl.TLSVersion.TLSv1_1, None)],
)
def test_tls_is_1_2_or_later(
    key_material: KeyMaterial, version: ssl.TLSVersion, status: int | None
) -> None:
    context = trusting(key_material.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    assert ask_with_tls(key_material.tls(), context) == status


def test_a_client_that_knows_the_curve_prime256v1_only_gets_through(
    key_material: KeyMaterial,
) -> None:
    context = trusting(key_material.ca)
    context.set_ecdh_curve("prime256v1")
    assert ask_with_tls(key_material.tls(), context) == 200


def test_ciphers_of_tls_1_2_are_those_of_the_original_without_pre_shared_keys(
    key_material: KeyMaterial,
) -> None:
    offered = [
        cipher["name"]
        for cipher in rest_context(key_material.tls()).get_ciphers()
        if cipher["protocol"] == "TLSv1.2"
    ]
    assert sorted(offered) == sorted(
        [
            *(f"ECDHE-{kind}-AES128-GCM-SHA256" for kind in ("ECDSA", "RSA")),
            *(f"ECDHE-{kind}-AES256-GCM-SHA384" for kind in ("ECDSA", "RSA")),
            *(f"ECDHE-{kind}-CHACHA20-POLY1305" for kind in ("ECDSA", "RSA")),
            *("ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-AES256-CCM"),
        ]
    )


#: What MindSpore Serving allows under TLS 1.2, less the one cipher with a pre-shared key.
GCM = ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
ECDSA_CIPHERS = [f"ECDHE-ECDSA-{name}" for name in (*GCM, "AES128-CCM", "AES256-CCM")]
RSA_CIPHERS = [f"ECDHE-RSA-{name}" for name in GCM]


def with_cipher(ca: str, cipher: str) -> ssl.SSLContext:
    """A client of TLS 1.2 that knows one cipher, and one curve, prime256v1."""
    context = trusting(ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    context.set_ecdh_curve("prime256v1")
    return context


@pytest.mark.parametrize("cipher", [*ECDSA_CIPHERS, *RSA_CIPHERS])
def test_each_listed_cipher_of_tls_1_2_is_taken(key_material: KeyMaterial, cipher: str) -> None:
    keys = key_material
    tls = keys.tls()
    if cipher in RSA_CIPHERS:
        tls = keys.tls(certificate=keys.rsa_certificate, private_key=keys.rsa_key)
    assert ask_with_tls(tls, with_cipher(keys.ca, cipher)) == 200


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA"])
def test_another_cipher_is_refused(key_material: KeyMaterial, cipher: str) -> None:
    assert ask_with_tls(key_material.tls(), with_cipher(key_material.ca, cipher)) is None


def test_failed_handshakes_are_told_in_the_log_now_and_then(key_material: KeyMaterial) -> None:
    said = io.StringIO()
    configure("test", {}, said)
    try:
        assert ask_with_tls(key_material.tls(), None) is None
        assert ask_with_tls(key_material.tls(), trusting(key_material.ca)) == 200
    finally:
        configure("pytest", {})
    [line] = said.getvalue().splitlines()
    assert "TLS handshake failed" in line
    assert "http request" in line


def test_verify_client_asks_for_a_certificate_of_the_custom_ca(key_material: KeyMaterial) -> None:
    keys = key_material
    tls = keys.tls(custom_ca=keys.ca, verify_client=True)
    assert ask_with_tls(tls, trusting(keys.ca, keys.client_certificate, keys.client_key)) == 200
    foreign = trusting(keys.ca, keys.foreign_certificate, keys.foreign_key)
    assert ask_with_tls(tls, foreign) is None
    assert ask_with_tls(tls, trusting(keys.ca)) is None


def test_key_material_that_cannot_be_used_is_named(
    key_material: KeyMaterial, tmp_path: Path
) -> None:
    keys = key_material
    nonsense = str(tmp_path / "nonsense.pem")
    Path(nonsense).write_text("nonsense")
    locked = str(tmp_path / "locked.pem")
    subprocess.run(
        ["openssl", "ec", "-in", keys.server_key, "-aes128", "-passout", "pass:x", "-out", locked],
        check=True,
        capture_output=True,
    )
    missing = str(tmp_path / "missing.pem")
    load = "Serving Error: load {what} from {file} failed"
    for file in (nonsense, missing):
        assert open_fails("127.0.0.1:0", keys.tls(certificate=file)) == load.format(
            what="certificate_chain", file=file
        )
        assert open_fails(
            "127.0.0.1:0", keys.tls(custom_ca=file, verify_client=True)
        ) == load.format(what="root certificate", file=file)
    for file in (nonsense, missing, locked, keys.client_key):
        assert open_fails("127.0.0.1:0", keys.tls(private_key=file)) == load.format(
            what="private_key", file=file
        )


def test_a_key_of_another_kind_than_the_certificates_is_called_inconsistent(
    key_material: KeyMaterial,
) -> None:
    keys = key_material
    text = "Serving Error: private_key is not consistent with certificate {}"
    tls = keys.tls(private_key=keys.rsa_key)
    assert open_fails("127.0.0.1:0", tls) == text.format(keys.server_certificate)
    tls = keys.tls(certificate=keys.rsa_certificate)
    assert open_fails("127.0.0.1:0", tls) == text.format(keys.rsa_certificate)
