"""Messages of a link, whole again however they are cut on their way."""

from __future__ import annotations

import random
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import limits
from protocol.errors import RemoteProtocolError
from protocol.link import FRAMES_MAX, VIEW_BYTES_MIN, LinkReader, message_head
from protocol.link_path import link_path
from protocol.link_socket import LinkLostError, LinkSocket, listen

MESSAGES = [
    [b"head", b"body"],
    [b""],
    [b"", b"", b"x"],
    [bytes(range(256)) * 300, b"small", bytes(VIEW_BYTES_MIN)],
    [b"h", b"L" * (3 * VIEW_BYTES_MIN), b"", b"M" * (VIEW_BYTES_MIN - 1)],
    [b"last"],
]


def packed(frames: list[bytes]) -> bytes:
    return message_head(frames) + b"".join(frames)


def feed(reader: LinkReader, stream: bytes, piece: int) -> Iterator[list[bytes]]:
    """The messages of a stream that arrives in pieces, each received where it is wanted."""
    at = 0
    while at < len(stream):
        room = reader.room
        size = min(piece, len(stream) - at, *([len(room)] if room is not None else []))
        chunk = stream[at : at + size]
        if room is None:
            yield from ([bytes(frame) for frame in parts] for parts in reader.take(chunk))
        else:
            room[:size] = chunk
            message = reader.fill(size)
            if message is not None:
                yield [bytes(frame) for frame in message]
        at += size


@pytest.mark.parametrize("piece", [1, 3, 7, 4096, 65_536, 65_537, 200_000, 10**7])
def test_messages_come_as_they_were_sent(piece: int) -> None:
    stream = b"".join(map(packed, MESSAGES))
    if piece < 7:  # byte by byte without the large ones
        small = [message for message in MESSAGES if sum(map(len, message)) < 1000]
        stream = b"".join(map(packed, small))
        assert list(feed(LinkReader(), stream, piece)) == small
    else:
        assert list(feed(LinkReader(), stream, piece)) == MESSAGES


def test_random_messages_in_random_pieces() -> None:
    chance = random.Random(3)
    sizes = (0, 1, 48, 200, 5_000, VIEW_BYTES_MIN, 2 * VIEW_BYTES_MIN)
    sent = [
        [chance.randbytes(chance.choice(sizes)) for _ in range(chance.randint(1, 6))]
        for _ in range(200)
    ]
    stream = b"".join(map(packed, sent))
    reader, came, at = LinkReader(), [], 0
    while at < len(stream):
        piece = chance.randint(1, 100_000)
        came += feed(reader, stream[at : at + piece], chance.randint(1, 70_000))
        at += piece
    assert came == sent


def test_small_frames_of_a_large_message_are_bytes() -> None:
    """Heads are compared with bytes, and are keys."""
    reader = LinkReader()
    stream = packed([b"head", b"L" * (2 * VIEW_BYTES_MIN)])
    assert reader.take(stream[:100]) == []
    assert reader.room is not None
    reader.room[:] = stream[100:]
    (head, body) = reader.fill(len(stream) - 100) or ()
    assert type(head) is bytes
    assert body.nbytes == 2 * VIEW_BYTES_MIN


@pytest.mark.parametrize("count", [0, FRAMES_MAX + 1, 2**32 - 1])
def test_a_message_of_no_or_too_many_frames_is_refused(count: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{count} frames"):
        LinkReader().take(struct.pack("=I", count) + bytes(100))


def test_a_frame_that_is_too_large_is_refused_before_there_is_room_for_it() -> None:
    size = limits.BODY_BYTES_MAX + 1
    with pytest.raises(RemoteProtocolError, match=f"frame of {size} B"):
        LinkReader().take(struct.pack("=III", 2, 1, size))


# ---------------------------------------------------------------- sockets


@pytest.fixture
def ends() -> Iterator[tuple[LinkSocket, LinkSocket]]:
    one, other = map(LinkSocket, socket.socketpair())
    yield one, other
    one.close()
    other.close()


def test_what_the_kernel_does_not_take_waits_and_leaves_later(
    ends: tuple[LinkSocket, LinkSocket],
) -> None:
    one, other = ends
    message = [b"head", bytes(range(256)) * 16_384, memoryview(bytes(100_000))]
    small = [b"small", b""]
    one.send(small)
    one.send(message)
    assert one.has_unsent
    one.send(small)  # behind it
    came: list[list[bytes]] = []
    while len(came) < 3:
        came += [[bytes(frame) for frame in parts] for parts in other.receive()]
        one.send_rest()
    assert came == [small, [bytes(frame) for frame in message], small]
    assert not one.has_unsent
    assert other.receive() == []


def test_small_messages_wait_as_well_while_nobody_reads(
    ends: tuple[LinkSocket, LinkSocket],
) -> None:
    one, other = ends
    sent = [[b"%d" % number, bytes(3_000)] for number in range(500)]
    for message in sent:
        one.send(message)
    assert one.has_unsent
    came: list[list[bytes]] = []
    while len(came) < len(sent):
        came += other.receive()
        one.send_rest()
    assert came == sent


def test_the_end_of_the_other_side_comes_after_what_it_sent(
    ends: tuple[LinkSocket, LinkSocket],
) -> None:
    one, other = ends
    one.send([b"last", b"words"])
    one.close()
    assert other.receive() == [[b"last", b"words"]]
    with pytest.raises(LinkLostError):
        other.receive()
    other.send([b"to nobody"])  # that is found out by who receives
    assert not other.has_unsent


def test_a_listening_link_is_for_its_owner_and_takes_the_place_of_one_that_was_killed() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mb") as directory:
        path = f"{directory}/w.ipc.link"
        listen(path).close()
        with listen(path):
            assert Path(path).stat().st_mode & 0o777 == 0o600
            LinkSocket.connect(path).close()
        with pytest.raises(OSError, match="refused"):
            LinkSocket.connect(path)


def test_only_addresses_of_this_host_have_a_link() -> None:
    assert link_path("ipc:///run/w.ipc") == "/run/w.ipc.link"
    assert link_path("tcp://127.0.0.1:5000") is None
    assert link_path("inproc://w") is None
    longest = "/" + "d" * 101
    assert link_path("ipc://" + longest) == longest + ".link"
    assert link_path("ipc://" + longest + "x") is None  # too long for a unix socket
