"""The server's side of HTTP/2, against the `h2` library as the client and against raw frames."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hpack import Encoder

from gateway import h2_calls, h2_connection, h2_frames, h2_patience
from gateway.h2_call import Call
from gateway.h2_connection import Http2Connection
from gateway.h2_errors import Http2Error
from gateway.h2_headers import HeaderReader, trailers
from protocol import limits

MAX = 100_000
#: Without the time of day, which would be in the name of a test.
PACKED = gzip.compress(b"x", mtime=0)
OK = trailers(0, "", (("x-own", "1"),))
FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a.B/Do"),
    (":authority", "here"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


#: Headers that the sink reads.
NAMES = [f"x-{number}" for number in range(6)]


class Recorder:
    """A sink that remembers, and answers nothing by itself."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.calls: dict[int, Call] = {}

    def begin(self, call: Call) -> None:
        self.calls[call.stream] = call
        self.said.append(("begin", call.stream, call.head.path))

    def take_message(self, call: Call, body: bytes) -> None:
        self.said.append(("message", call.stream, body))

    def end_messages(self, call: Call) -> None:
        self.said.append(("end", call.stream))

    def note_sent(self, call: Call) -> None:
        self.said.append(("sent", call.stream))

    def drop(self, call: Call) -> None:
        self.said.append(("drop", call.stream))


class Pair:
    """A client of the `h2` library and our connection, with no wire between."""

    def __init__(self, **settings: int) -> None:
        self.sink = Recorder()
        self.ours = Http2Connection(self.sink, MAX)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.client = h2.connection.H2Connection(config)
        codes = {h2.settings.SettingCodes[name.upper()]: value for name, value in settings.items()}
        self.client.initiate_connection()
        self.client.update_settings(codes)
        self.events: list[Any] = []
        self.turn()

    def turn(self) -> None:
        """Bring everything over, both ways, until nobody has anything to say."""
        while True:
            sent = self.client.data_to_send()
            if sent:
                self.ours.receive(sent, 0)
            written = b"".join(self.ours.out)
            self.ours.out.clear()
            if written:
                self.events += self.client.receive_data(written)
            if not sent and not written:
                return

    def begin(self, fields: list[tuple[str, str]] | None = None, is_end: bool = False) -> int:
        stream = self.client.get_next_available_stream_id()
        self.client.send_headers(stream, fields or FIELDS, end_stream=is_end)
        return stream

    def call(self, body: bytes, fields: list[tuple[str, str]] | None = None) -> Call:
        """One call with one message, taken in."""
        stream = self.begin(fields)
        self.client.send_data(stream, message(body), end_stream=True)
        self.turn()
        return self.sink.calls[stream]

    def replied(self, stream: int) -> tuple[dict[str, str], bytes, dict[str, str]]:
        """Headers, data, and trailers of a call that has ended."""
        mine = [event for event in self.events if getattr(event, "stream_id", 0) == stream]
        kinds = h2.events
        (head,) = [event for event in mine if isinstance(event, kinds.ResponseReceived)]
        data = b"".join(event.data for event in mine if isinstance(event, kinds.DataReceived))
        ends = [event for event in mine if isinstance(event, kinds.TrailersReceived)]
        assert [event for event in mine if isinstance(event, kinds.StreamEnded)]
        return dict(head.headers), data, dict(ends[0].headers) if ends else {}


def message(body: bytes, is_packed: int = 0) -> bytes:
    return struct.pack("!BI", is_packed, len(body)) + body


def test_a_call_is_told_and_its_reply_leaves_as_one_piece() -> None:
    pair = Pair()
    call = pair.call(b"one")
    assert pair.sink.said == [("begin", 1, "/a.B/Do"), ("message", 1, b"one"), ("end", 1)]
    pair.ours.reply(call, b"two", OK)
    assert len(pair.ours.out) == 1
    pair.turn()
    head, data, end = pair.replied(1)
    assert head == {":status": "200", "content-type": "application/grpc"}
    assert data == message(b"two")
    assert end == {"grpc-status": "0", "x-own": "1"}
    assert not pair.ours.calls


def test_many_calls_at_once_and_in_any_order() -> None:
    pair = Pair()
    streams = []
    for number in range(50):
        stream = pair.begin()
        pair.client.send_data(stream, message(b"%d" % number), end_stream=True)
        streams.append(stream)
    pair.turn()
    order = list(streams)
    random.Random(1).shuffle(order)
    for stream in order:
        pair.ours.reply(pair.sink.calls[stream], b"reply %d" % stream, OK)
    pair.turn()
    for stream in streams:
        assert pair.replied(stream)[1] == message(b"reply %d" % stream)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
def test_however_the_bytes_come_the_same_is_told(step: int) -> None:
    client = h2.connection.H2Connection()
    client.initiate_connection()
    for stream in (1, 3, 5):
        client.send_headers(stream, [*FIELDS, ("x-own", "v" * stream)])
        client.send_data(stream, message(b"a" * 300) + message(b"")[:2], pad_length=stream)
        client.send_data(stream, message(b"")[2:] + message(b"b" * 20), end_stream=True)
    client.ping(b"12345678")
    data = client.data_to_send()
    told = []
    for size in (len(data), step):
        sink = Recorder()
        ours = Http2Connection(sink, MAX)
        for at in range(0, len(data), size):
            ours.receive(data[at : at + size], 0)
        told.append((sink.said, b"".join(ours.out)))
    assert told[0] == told[1]
    bodies = [each[2] for each in told[0][0] if each[0] == "message"]
    assert bodies == [b"a" * 300, b"", b"b" * 20] * 3


def test_the_same_header_block_is_read_again_when_the_table_has_changed() -> None:
    """Random headers by a library's encoder, which indexes all of them; also very long tables."""
    dice = random.Random(7)
    encoder, reader = Encoder(), HeaderReader(frozenset(NAMES))
    for turn in range(3_000):
        if turn % 500 == 499:
            encoder.header_table_size = dice.choice((0, 200, 4_096))
        extra = [(NAMES[dice.randrange(6)], str(dice.randrange(4) ** dice.randrange(9)))]
        fields = FIELDS + (extra if dice.random() < 0.3 else [])
        head = reader.read(encoder.encode(fields))
        assert head.path == "/a.B/Do"
        kept = (*NAMES, ":method", "content-type")
        assert head.metadata == {name: value for name, value in fields if name in kept}


def test_a_block_that_changes_nothing_of_the_table_is_read_once() -> None:
    encoder, reader = Encoder(), HeaderReader(frozenset(NAMES))
    blocks = [encoder.encode(FIELDS) for _ in range(3)]
    first, second, third = [reader.read(block) for block in blocks]
    assert blocks[1] == blocks[2] != blocks[0]
    assert first == second
    assert third is second


@pytest.mark.parametrize(
    ("timeout", "ns"),
    [("5S", 5 * 10**9), ("1H", 3_600 * 10**9), ("2M", 120 * 10**9), ("30m", 30_000_000),
     ("7u", 7_000), ("99999999n", 99_999_999)],
)  # fmt: skip
def test_deadlines(timeout: str, ns: int) -> None:
    call = Pair().call(b"", [*FIELDS, ("grpc-timeout", timeout)])
    assert call.head.timeout_ns == ns


@pytest.mark.parametrize(
    ("name", "value", "http_status", "grpc_status", "text"),
    [
        (":method", "GET", "405", "2", ":method 'GET' is not 'POST'"),
        ("content-type", "application/json", "415", "2", "content-type 'application/json' is not"),
        ("content-type", "application/grpcx", "415", "2", "content-type 'application/grpcx' is"),
        (":path", "no", "400", "3", ":path 'no' does not begin with a slash"),
        ("grpc-timeout", "1", "400", "3", "grpc-timeout '1' is not 1 to 8 digits and one of H"),
        ("grpc-timeout", "123456789S", "400", "3", "grpc-timeout '123456789S' is not"),
        ("grpc-timeout", "1s", "400", "3", "grpc-timeout '1s' is not"),
    ],
)
def test_what_is_no_call_of_grpc_is_refused_with_an_http_status(
    name: str, value: str, http_status: str, grpc_status: str, text: str
) -> None:
    pair = Pair()
    fields = [*{**dict(FIELDS), name: value}.items()]
    stream = pair.begin(fields, is_end=True)
    pair.turn()
    head, data, _ = pair.replied(stream)
    assert (head[":status"], head["grpc-status"], data) == (http_status, grpc_status, b"")
    assert head["grpc-message"].startswith(text)
    assert not pair.sink.said
    assert not pair.ours.calls
    assert pair.call(b"good").head.path == "/a.B/Do"


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_messages_are_unpacked(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    pair = Pair()
    stream = pair.begin([*FIELDS, ("grpc-encoding", encoding)])
    pair.client.send_data(stream, message(pack(b"x" * 5_000), 1) + message(b"plain"))
    pair.turn()
    assert [each[2] for each in pair.sink.said if each[0] == "message"] == [b"x" * 5_000, b"plain"]


@pytest.mark.parametrize(
    ("encoding", "body", "code", "text"),
    [
        ("snappy", b"x", "12", "grpc-encoding 'snappy' is not one of identity,gzip,deflate"),
        ("gzip", b"xx", "3", "a message cannot be unpacked"),
        ("gzip", PACKED[:-3], "3", "a message is not one compressed stream"),
        ("gzip", PACKED + b"y", "3", "a message is not one compressed stream"),
        ("gzip", gzip.compress(bytes(MAX + 1), mtime=0), "8", "Received message larger than max"),
    ],
)
def test_a_message_that_cannot_be_unpacked_ends_its_call(
    encoding: str, body: bytes, code: str, text: str
) -> None:
    pair = Pair()
    stream = pair.begin([*FIELDS, ("grpc-encoding", encoding)])
    pair.client.send_data(stream, message(body, 1), end_stream=True)
    pair.turn()
    head, _, _ = pair.replied(stream)
    assert head["grpc-status"] == code
    assert text in head["grpc-message"]
    assert pair.sink.said[-1] == ("drop", stream)
    assert pair.call(b"good")


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_message_over_the_limit_ends_its_call_before_it_is_here(is_whole: bool) -> None:
    pair = Pair()
    stream = pair.begin()
    size = MAX + 1
    pair.client.send_data(stream, struct.pack("!BI", 0, size) + bytes(10), end_stream=is_whole)
    pair.turn()
    head, _, _ = pair.replied(stream)
    assert head["grpc-status"] == "8"
    assert head["grpc-message"].endswith(f"Received message larger than max ({size} vs. {MAX})")
    resets = [event for event in pair.events if isinstance(event, h2.events.StreamReset)]
    assert [event.error_code for event in resets] == ([] if is_whole else [h2_frames.NO_ERROR])
    assert not pair.ours.calls


def test_a_call_that_ends_within_a_message_fails() -> None:
    pair = Pair()
    stream = pair.begin()
    pair.client.send_data(stream, message(b"12345")[:-1], end_stream=True)
    pair.turn()
    assert pair.replied(stream)[0]["grpc-message"] == "the call ends within a message"


def test_a_large_message_in_many_frames_gets_windows_to_come() -> None:
    size = 40 * limits.MIB
    sink = Recorder()
    ours = Http2Connection(sink, size)
    client = h2.connection.H2Connection()
    client.initiate_connection()
    client.send_headers(1, FIELDS)
    body = memoryview(message(bytes(size)))
    while body:
        ours.receive(client.data_to_send(), 0)
        client.receive_data(b"".join(ours.out))
        ours.out.clear()
        room = min(client.local_flow_control_window(1), client.max_outbound_frame_size, len(body))
        assert room, "it never gets room to send the rest"
        client.send_data(1, bytes(body[:room]), end_stream=room == len(body))
        body = body[room:]
    ours.receive(client.data_to_send(), 0)
    assert [each[0] for each in sink.said] == ["begin", "message", "end"]
    assert sink.said[1][2] == bytes(size)


def test_what_a_stream_does_not_take_its_client_cannot_send() -> None:
    pair = Pair()
    stream = pair.begin()
    body = message(bytes(1_000))
    sent = 0
    while pair.client.local_flow_control_window(stream) >= len(body):
        pair.client.send_data(stream, body)
        pair.turn()
        sent += len(body)
    assert h2_calls.CALL_WINDOW - 2 * len(body) < sent <= h2_calls.CALL_WINDOW
    for _ in range(sent // len(body)):
        pair.ours.note_taken(pair.sink.calls[stream], bytes(1_000))
    pair.turn()
    assert pair.client.local_flow_control_window(stream) > h2_calls.CALL_WINDOW // 2
    # and others can, all the time
    assert pair.call(b"small")


# ---------------------------------------------------------------- replies and windows


def test_replies_wait_for_the_clients_windows_and_take_turns() -> None:
    pair = Pair(initial_window_size=1_000)
    calls = [pair.call(b"") for _ in range(3)]
    bodies = [bytes([number]) * 50_000 for number in range(3)]
    for call, body in zip(calls, bodies, strict=True):
        pair.ours.reply(call, body, OK)
    pair.turn()
    assert pair.ours.replies.unsent_bytes == 3 * (50_005 - 1_000)
    while pair.ours.calls:
        for call in list(pair.ours.calls.values()):
            pair.client.increment_flow_control_window(700, call.stream)
        pair.client.increment_flow_control_window(2_100)
        before = pair.ours.replies.unsent_bytes
        pair.turn()
        assert pair.ours.replies.unsent_bytes < before
    assert pair.ours.replies.unsent_bytes == 0
    for call, body in zip(calls, bodies, strict=True):
        _, data, end = pair.replied(call.stream)
        assert data == message(body)
        assert end["grpc-status"] == "0"


def test_a_client_may_shrink_its_window_below_what_is_under_way() -> None:
    pair = Pair()
    call = pair.call(b"")
    pair.ours.send(call, bytes(10_000))
    pair.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})
    pair.turn()
    assert call.window < 0
    pair.ours.reply(call, bytes(10_000), OK)
    pair.turn()
    assert pair.ours.replies.unsent_bytes == 10_005
    pair.client.increment_flow_control_window(30_000, call.stream)
    pair.turn()
    assert pair.replied(call.stream)[1] == message(bytes(10_000)) * 2


def test_nothing_large_is_written_to_who_does_not_read() -> None:
    pair = Pair()
    call = pair.call(b"")
    pair.ours.replies.is_paused = True
    pair.ours.reply(call, b"reply", OK)
    pair.turn()
    assert pair.ours.replies.unsent_bytes == 10
    pair.ours.replies.is_paused = False
    pair.ours.go_on()
    pair.turn()
    assert pair.replied(call.stream)[1] == message(b"reply")


def test_frames_are_as_large_as_the_client_takes_them() -> None:
    pair = Pair(initial_window_size=2**24, max_frame_size=20_000)
    pair.client.increment_flow_control_window(2**24)
    call = pair.call(b"")
    pair.ours.reply(call, bytes(90_000), OK)
    sizes = [len(piece) for piece in pair.ours.out]
    assert max(sizes) == 20_000
    pair.turn()
    assert pair.replied(call.stream)[1] == message(bytes(90_000))


def test_a_reply_before_the_client_has_said_everything_tells_it_to_stop() -> None:
    pair = Pair()
    stream = pair.begin()
    pair.turn()
    pair.ours.finish(pair.sink.calls[stream], trailers(12, "no 100 % ä", ()))
    pair.turn()
    head, data, _ = pair.replied(stream)
    assert (head["grpc-status"], head["grpc-message"], data) == ("12", "no 100 %25 %C3%A4", b"")
    (reset,) = [event for event in pair.events if isinstance(event, h2.events.StreamReset)]
    assert reset.error_code == h2_frames.NO_ERROR
    # what was under way is of no use, and no fault
    pair.ours.receive(h2_frames.frame(h2_frames.DATA, 1, stream, b"left"), 0)


# ---------------------------------------------------------------- the connection's life


def test_a_call_that_its_client_resets_is_dropped() -> None:
    pair = Pair()
    call = pair.call(b"")
    pair.ours.send(call, bytes(100_000))  # more than the windows take
    pair.client.reset_stream(call.stream, h2_frames.CANCEL)
    pair.turn()
    assert pair.sink.said[-1] == ("drop", call.stream)
    assert call.is_closed
    assert pair.ours.replies.unsent_bytes == 0


def test_pings_and_settings_are_answered() -> None:
    pair = Pair()
    pair.client.ping(b"12345678")
    pair.turn()
    kinds = [type(event).__name__ for event in pair.events]
    assert kinds.count("PingAckReceived") == 1
    assert kinds.count("SettingsAcknowledged") == 2


def test_who_leaves_answers_what_is_under_way_and_takes_no_more_then() -> None:
    pair = Pair()
    early = pair.call(b"early")
    pair.ours.leave()
    late = pair.begin()  # on its way when the client hears of it
    pair.client.send_data(late, message(b"late"), end_stream=True)
    sent = pair.client.data_to_send()
    written = b"".join(pair.ours.out)
    pair.ours.out.clear()
    pair.ours.receive(sent, 0)
    assert not pair.ours.has_left
    assert ("end", late) in pair.sink.said
    goaway = h2_frames.frame(h2_frames.GOAWAY, 0, 0, struct.pack("!II", 2**31 - 1, 0))
    assert written.startswith(goaway)
    ping = written[len(goaway) :]
    answer = h2_frames.frame(h2_frames.PING, h2_frames.ACK, 0, ping[9:])
    pair.ours.receive(answer, 0)
    assert pair.ours.out == [ping]
    pair.ours.out.clear()
    pair.ours.receive(answer, 0)
    last = h2_frames.frame(h2_frames.GOAWAY, 0, 0, struct.pack("!II", late, 0))
    assert b"".join(pair.ours.out) == last
    too_late = pair.sink.said[:]
    pair.ours.receive(_headers(late + 2) + h2_frames.frame(h2_frames.DATA, 1, late + 2, b""), 0)
    assert pair.sink.said == too_late
    for call in (early, pair.sink.calls[late]):
        assert not pair.ours.has_left
        pair.ours.reply(call, b"", OK)
    assert pair.ours.has_left


# ---------------------------------------------------------------- broken clients


def _headers(stream: int, flags: int = h2_frames.END_HEADERS) -> bytes:
    return h2_frames.frame(h2_frames.HEADERS, flags, stream, Encoder().encode(FIELDS))


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return h2_frames.frame(kind, flags, stream, payload)


def feed(ours: Http2Connection, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        ours.receive(chunk, 0)


OPENING = h2_frames.PREFACE + h2_frames.settings({})


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 1, "this is not HTTP/2"),
        (h2_frames.PREFACE[:-1] + b"x", 1, "this is not HTTP/2"),
        (OPENING + _frame(0, 0, 1, b"x"), 1, "DATA on stream 1, which has not begun"),
        (OPENING + _frame(0, 0, 0, b"x"), 1, "DATA on stream 0"),
        (OPENING + b"\xff\xff\xff\x00\x00" + bytes(4), 6, "frame of 16777215 B exceeds 1048576"),
        (OPENING + _headers(2), 1, "stream 2 is not a client's"),
        (OPENING + _headers(1) + _headers(1), 1, "stream 1 begins a second time"),
        (OPENING + _headers(1, 0) + _frame(6, 0, 0, bytes(8)), 1, "was not continued"),
        (OPENING + _frame(9, 4, 1, b"x"), 1, "CONTINUATION of nothing"),
        (OPENING + _frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"), 9, "header block cannot be read"),
        (OPENING + _frame(1, 4, 1, b"\xbe"), 9, "header block cannot be read"),
        (OPENING + _frame(1, 4 | 8, 1, b"\x09x"), 1, "padding exceeds its frame"),
        (OPENING + _frame(1, 4 | 32, 1, b"xxx"), 6, "HEADERS without its priority"),
        (OPENING + _headers(1) + _frame(0, 8, 1, b"\x09x"), 1, "padding exceeds its frame"),
        (OPENING + _headers(1) + _frame(0, 8, 1, b""), 1, "padding exceeds its frame"),
        (OPENING + _frame(3, 0, 1, bytes(4)), 1, "RST_STREAM on stream 1, which has not begun"),
        (OPENING + _frame(3, 0, 1, bytes(3)), 6, "frame 3 has 3 B"),
        (OPENING + _frame(4, 0, 0, b"x"), 6, "SETTINGS cannot be read"),
        (OPENING + _frame(4, 0, 1), 6, "SETTINGS cannot be read"),
        (OPENING + _frame(4, 1, 0, bytes(6)), 6, "SETTINGS cannot be read"),
        (OPENING + h2_frames.settings({4: 2**31}), 3, "window 2147483648 is too large"),
        (OPENING + h2_frames.settings({5: 100}), 1, "frames of 100 B are not allowed"),
        (OPENING + _frame(5, 4, 1, bytes(4)), 1, "a client does not push"),
        (OPENING + _frame(6, 0, 0, b"x"), 6, "frame 6 has 1 B"),
        (OPENING + _frame(8, 0, 0, bytes(4)), 1, "WINDOW_UPDATE by 0 on stream 0"),
        (OPENING + _frame(8, 0, 1, b"\0\0\0\1"), 1, "WINDOW_UPDATE by 1 on stream 1"),
        (OPENING + h2_frames.window_update(0, 2**31 - 1), 3, "the connection's window is too larg"),
        (OPENING + _frame(1, 0, 1, bytes(30_000)) + _frame(9, 0, 1, bytes(9_000)), 11, "39000 B"),
        (OPENING + _frame(6, 0, 0, bytes(40_000)), 6, "frame of 40000 B exceeds 32768"),
        (OPENING + _frame(4, 0, 0, bytes(6) * 101), 11, "more than 100 settings at once"),
    ],
)
def test_who_breaks_the_protocol_is_told_how(data: bytes, code: int, text: str) -> None:
    ours = Http2Connection(Recorder(), MAX)
    with pytest.raises(Http2Error) as error:
        ours.receive(data, 0)
    assert error.value.code == code
    assert text in error.value.text
    ours.out.clear()
    ours.fail(error.value)
    (written,) = ours.out
    assert written[9 + 4 : 9 + 8] == struct.pack("!I", code)
    assert error.value.text.encode()[:50] in written


def test_settings_that_lift_an_open_call_over_the_largest_window_are_an_error() -> None:
    ours = Http2Connection(Recorder(), MAX)
    ours.receive(OPENING + _headers(1) + h2_frames.window_update(1, 2**31 - 1 - 65_535), 0)
    with pytest.raises(Http2Error) as error:
        ours.receive(h2_frames.settings({4: 65_536}), 0)
    assert error.value.code == h2_frames.FLOW_CONTROL_ERROR


def test_a_window_update_by_nothing_ends_its_call_only() -> None:
    pair = Pair()
    call = pair.call(b"")
    pair.ours.receive(_frame(8, 0, call.stream, bytes(4)), 0)
    assert call.is_closed
    pair.turn()
    assert pair.call(b"")


def test_a_client_with_small_windows_may_take_replies_as_large_as_it_likes() -> None:
    """Node's HTTP/2 opens both windows for each 32 KiB; 200 MiB are 13,000 such frames."""
    pair = Pair()
    size = MAX - 5
    for _ in range(200 * limits.MIB // size):
        call = pair.call(b"")
        pair.events.clear()
        pair.ours.reply(call, bytes(size), OK)
        while not call.is_closed:
            written = b"".join(pair.ours.out)
            pair.ours.out.clear()
            pair.client.receive_data(written)
            for _ in range(4):  # many small ones
                pair.client.increment_flow_control_window(16_384 // 4)
                pair.client.increment_flow_control_window(16_384 // 4, call.stream)
            pair.ours.receive(pair.client.data_to_send(), 0)
        pair.turn()


def test_a_call_that_breaks_a_rule_is_not_forgiven_as_one_that_ends_well() -> None:
    """MadeYouReset (CVE-2025-8671): the client has its calls reset by us."""
    ours = Http2Connection(Recorder(), MAX)
    ours.receive(OPENING, 0)
    data = h2_frames.frame(h2_frames.DATA, h2_frames.END_STREAM, 1, message(b""))
    late = h2_frames.frame(h2_frames.DATA, 0, 1, b"x")

    def of(stream: int, frame: bytes) -> bytes:
        return frame[:5] + struct.pack("!I", stream) + frame[9:]

    broken = (
        _headers(each) + of(each, data) + of(each, late)
        for each in range(1, 4 * h2_patience.IDLE_FRAMES_MAX, 2)
    )
    with pytest.raises(Http2Error) as error:
        feed(ours, broken)
    assert error.value.code == h2_frames.ENHANCE_YOUR_CALM


def test_what_is_under_way_to_a_call_that_ended_here_is_no_flood() -> None:
    ours = Http2Connection(Recorder(), MAX)
    ours.receive(OPENING, 0)
    for number in range(200):
        stream = 2 * number + 1
        ours.receive(_headers(stream), 0)
        ours.finish(ours.calls[stream], OK)
        under_way = h2_frames.frame(h2_frames.DATA, 0, stream, bytes(16_384))
        feed(ours, [under_way] * (h2_calls.CALL_WINDOW // 16_384))
        ours.out.clear()


def test_a_bomb_of_compressed_messages_is_not_unpacked_beyond_what_is_taken() -> None:
    sink = Recorder()
    ours = Http2Connection(sink, limits.MIB)
    block = Encoder().encode([*FIELDS, ("grpc-encoding", "gzip")])
    ours.receive(OPENING + h2_frames.frame(h2_frames.HEADERS, 4, 1, block), 0)
    bomb = message(gzip.compress(bytes(limits.MIB)), 1) * 200
    ours.receive(h2_frames.frame(h2_frames.DATA, 0, 1, bomb), 0)
    unpacked = sum(len(each[2]) for each in sink.said if each[0] == "message")
    assert unpacked <= h2_calls.CALL_WINDOW + 3 * limits.MIB
    assert sink.said[-1] == ("drop", 1)
    assert not ours.calls


@pytest.mark.pure
def test_what_lies_here_of_all_calls_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_connection, "HELD_BYTES_MAX", 1_000_000)
    sink = Recorder()
    ours = Http2Connection(sink, limits.MIB)
    ours.receive(OPENING, 0)
    part = struct.pack("!BI", 0, limits.MIB) + bytes(199_995)
    for stream in range(1, 15, 2):
        ours.receive(_headers(stream) + h2_frames.frame(h2_frames.DATA, 0, stream, part), 0)
    assert [each for each in sink.said if each[0] == "drop"] == [("drop", 11), ("drop", 13)]
    feed(ours, (h2_frames.reset(stream, 8) for stream in range(1, 11, 2)))
    assert ours._held_bytes == 0
    ours.receive(_headers(15) + h2_frames.frame(h2_frames.DATA, 0, 15, part), 0)
    assert 15 in ours.calls


def test_many_replies_that_wait_cost_no_more_each_than_a_few() -> None:
    pair = Pair(initial_window_size=0)
    calls = [pair.call(b"") for _ in range(1_000)]
    for call in calls:
        pair.ours.reply(call, b"reply", OK)
    pair.turn()
    assert not pair.ours.replies.can_go_on
    for call in reversed(calls):
        pair.client.increment_flow_control_window(100, call.stream)
    pair.turn()
    assert not pair.ours.calls
    assert {pair.replied(call.stream)[1] for call in calls} == {message(b"reply")}


@pytest.mark.parametrize("text", ["ä" * 5_000, "漢" * 5_000, "x" * 50_000, "%" * 9_000])
def test_a_long_message_is_cut_so_that_clients_take_its_frame(text: str) -> None:
    pair = Pair()
    call = pair.call(b"")
    pair.ours.finish(call, trailers(13, text, (("x-own", "1"),)))
    pair.turn()
    head, _, _ = pair.replied(call.stream)
    assert 1_000 < len(head["grpc-message"]) <= 4_099
    assert head["grpc-message"].endswith("...")
    assert head["x-own"] == "1"


def test_what_has_no_meaning_here_is_ignored() -> None:
    pair = Pair()
    pair.ours.receive(_frame(77, 255, 3, b"new"), 0)
    pair.ours.receive(_frame(h2_frames.PRIORITY, 0, 9, bytes(5)), 0)
    pair.ours.receive(_frame(h2_frames.GOAWAY, 0, 0, bytes(8)), 0)
    assert pair.call(b"x")


@pytest.mark.pure
def test_too_many_calls_at_once_are_refused_and_those_before_them_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "CONNECTION_CALLS_MAX", 3)
    sink = Recorder()
    ours = Http2Connection(sink, MAX)
    ours.receive(OPENING + b"".join(_headers(stream) for stream in (1, 3, 5, 7)), 0)
    assert list(sink.calls) == [1, 3, 5]
    assert ours.out[-1] == h2_frames.reset(7, h2_frames.REFUSED_STREAM)


@pytest.mark.parametrize(
    "flood",
    [
        h2_frames.frame(h2_frames.PING, 0, 0, bytes(8)),
        h2_frames.settings({}),
        h2_frames.frame(h2_frames.PRIORITY, 0, 1, bytes(5)),
        h2_frames.frame(h2_frames.DATA, 0, 1),
        h2_frames.window_update(0, 1),
    ],
)
def test_a_flood_of_frames_that_bring_nothing_ends_the_connection(flood: bytes) -> None:
    ours = Http2Connection(Recorder(), MAX)
    ours.receive(OPENING + _headers(1), 0)
    with pytest.raises(Http2Error) as error:
        feed(ours, [flood * 100] * (h2_patience.IDLE_FRAMES_MAX // 100 + 1))
    assert error.value.code == h2_frames.ENHANCE_YOUR_CALM


def test_calls_that_are_reset_at_once_end_the_connection() -> None:
    ours = Http2Connection(Recorder(), MAX)
    ours.receive(OPENING, 0)
    streams = range(1, 4 * h2_patience.IDLE_FRAMES_MAX, 2)
    reset_at_once = (_headers(each) + h2_frames.reset(each, h2_frames.CANCEL) for each in streams)
    with pytest.raises(Http2Error) as error:
        feed(ours, reset_at_once)
    assert error.value.code == h2_frames.ENHANCE_YOUR_CALM


def test_pings_now_and_then_are_welcome_for_ever() -> None:
    ours = Http2Connection(Recorder(), MAX)
    ours.receive(OPENING, 0)
    ping = h2_frames.frame(h2_frames.PING, 0, 0, bytes(8))
    for number in range(5 * h2_patience.IDLE_FRAMES_MAX):
        ours.receive(ping, number * 10_000_000)
        ours.out.clear()


def test_rubbish_raises_nothing_but_its_own_error() -> None:
    """Whole conversations with bytes changed, left out and put in."""
    client = h2.connection.H2Connection()
    client.initiate_connection()
    for stream in (1, 3):
        client.send_headers(stream, [*FIELDS, ("grpc-encoding", "gzip")])
        client.send_data(stream, message(gzip.compress(b"x" * 100), 1), end_stream=stream == 3)
    client.ping(bytes(8))
    client.reset_stream(1)
    good = client.data_to_send()
    dice = random.Random(3)
    ended = 0
    for _ in range(3_000):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(h2_frames.PREFACE), len(data))
            what = dice.randrange(3)
            if what == 0:
                data[at] = dice.randrange(256)
            elif what == 1:
                del data[at : at + dice.randrange(1, 12)]
            else:
                data[at:at] = dice.randbytes(dice.randrange(1, 12))
        ours = Http2Connection(Recorder(), MAX)
        try:
            for at in range(0, len(data), 50):
                ours.receive(bytes(data[at : at + 50]), 0)
        except Http2Error:
            ended += 1
    assert 500 < ended < 2_990
