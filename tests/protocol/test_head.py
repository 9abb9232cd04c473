"""The head frame: every field, every broken rule, and the shortcuts of hot paths."""

from __future__ import annotations

import random

import pytest

from protocol import head, limits
from protocol.errors import RemoteProtocolError
from protocol.head import Head
from protocol.values import DTYPES, BytesValue, StringValue

FULL = Head(
    head.REQUEST,
    head.FLAG_COALESCE | head.FLAG_BODY_LARGE,
    head.DIALECT_RESTFUL,
    14,
    (1 << 64) - 1,
    (1 << 32) - 1,
    65_535,
    255,
    b"add/1",
    b"m",
    bytes(range(16)),
    bytes(range(8)),
)


def test_a_head_arrives_field_by_field() -> None:
    assert head.unpack(head.pack(FULL)) == FULL
    assert head.unpack(head.pack(Head(head.HEARTBEAT))) == Head(head.HEARTBEAT)


def test_a_head_of_the_largest_names_arrives() -> None:
    service, method = b"s" * limits.SERVICE_KEY_BYTES_MAX, b"m" * limits.METHOD_BYTES_MAX
    largest = FULL._replace(service=service, method=method)
    frame = head.pack(largest)
    assert len(frame) == head.HEAD_BYTES_MAX
    assert head.unpack(frame) == largest


def test_the_instance_count_saturates() -> None:
    frame = head.pack(FULL._replace(instance_count=1_000_000))
    assert head.unpack(frame).instance_count == limits.INSTANCE_COUNT_MAX


def test_every_command_dialect_and_flag_has_a_name_and_its_own_number() -> None:
    assert len(head.COMMANDS) == len(set(head.COMMANDS.values())) == 12
    assert set(head.DIALECTS.values()) == {
        "NATIVE",
        "MS_SERVICE",
        "RESTFUL",
        "OIP",
        "OIP_JSON",
    }
    assert sorted(head.FLAGS) == [1, 2, 4, 8, 16, 32, 64, 128]


def test_offsets_name_the_bytes_of_the_fields() -> None:
    frame = head.pack(FULL)
    assert frame.startswith(head.REQUEST_PREFIX)
    assert head.pack(FULL._replace(command=head.REPLY)).startswith(head.REPLY_PREFIX)
    assert frame[head.DIALECT_OFFSET] == head.DIALECT_RESTFUL
    assert frame[head.STATUS_OFFSET] == 14
    assert head.REQUEST_ID.unpack_from(frame, head.REQUEST_ID_OFFSET) == (FULL.request_id,)
    assert frame[head.BODY_FRAMES_OFFSET] == 255
    assert frame[head.SERVICE_SIZE_OFFSET] == 5
    assert head.service_of(frame) == b"add/1"
    assert head.method_of(frame) == b"m"


def test_restamp_changes_number_and_budget_only() -> None:
    frame = head.restamp(head.pack(FULL), 7, 9)
    assert head.unpack(frame) == FULL._replace(request_id=7, budget_ms=9)


GOOD = head.pack(FULL)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (b"", "head of 0 B is shorter than 48 B"),
        (GOOD[:47], "head of 47 B is shorter than 48 B"),
        (GOOD + bytes(600), f"head of {len(GOOD) + 600} B exceeds head_bytes_max 526"),
        (b"XS" + GOOD[2:], "magic b'XS' is not b'MS'"),
        (b"MS\2" + GOOD[3:], "protocol version 2 is not 1"),
        (b"MS\1\0" + GOOD[4:], "command 0 is unknown"),
        (b"MS\1\xc8" + GOOD[4:], "command 200 is unknown"),
        (GOOD[:23] + b"\x07" + GOOD[24:], "service key of 7 B does not fit the head"),
        (
            GOOD[:23] + b"\xe0" + GOOD[24:] + bytes(250),
            "service key of 224 B does not fit the head",
        ),
    ],
)
def test_a_broken_head_is_refused_with_the_rule(frame: bytes, text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        head.unpack(frame)
    assert str(caught.value) == text


def test_random_frames_only_ever_raise_protocol_errors() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        frame = bytearray(GOOD)
        for _ in range(rng.randrange(1, 5)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        end = rng.randrange(len(frame) + 1)
        assert unpacks(bytes(frame[:end])) in (True, False)


def unpacks(frame: bytes) -> bool:
    try:
        head.unpack(frame)
    except RemoteProtocolError:
        return False
    return True


# ---------------------------------------------------------------- service keys


def test_a_service_key_names_servable_and_version() -> None:
    assert head.service_key("größe", 3) == "größe/3".encode()
    assert head.split_service_key(b"a/b/0") == ("a/b", 0)


def test_a_service_key_that_does_not_fit_is_refused() -> None:
    longest = "s" * (limits.SERVICE_KEY_BYTES_MAX - 2)
    assert len(head.service_key(longest, 1)) == limits.SERVICE_KEY_BYTES_MAX
    with pytest.raises(RemoteProtocolError) as caught:
        head.service_key(longest + "s", 1)
    assert str(caught.value) == "service key of 224 B exceeds service_key_bytes_max 223"


@pytest.mark.parametrize("key", [b"", b"add", b"add/", b"/1", b"add/x", b"add/-1", b"\xff/1"])
def test_what_is_no_service_key_is_refused(key: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="service key"):
        head.split_service_key(key)


# ---------------------------------------------------------------- parcels


def test_a_message_splits_into_its_parcels() -> None:
    bare = head.pack(Head(head.HEARTBEAT))
    two = head.pack(Head(head.REPLY, body_frames=2))
    assert head.split_parcels([]) == []
    assert head.split_parcels([two, b"a", b"b", bare, two, b"", b"c"]) == [
        (two, [b"a", b"b"]),
        (bare, []),
        (two, [b"", b"c"]),
    ]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([b"x"], "frame 0 of 1 B is not a head"),
        ([head.pack(Head(head.HEARTBEAT)), bytes(48)], "frame 1 of 48 B is not a head"),
        ([head.pack(Head(head.REPLY, body_frames=2)), b"a"], "head promises 2 body frames, 1 came"),
    ],
)
def test_a_message_that_is_no_row_of_parcels_is_refused(parts: list[bytes], text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        head.split_parcels(parts)
    assert str(caught.value) == text


# ---------------------------------------------------------------- values


def test_dtypes_are_native_and_named_by_themselves() -> None:
    assert len(DTYPES) == 12
    for name, dtype in DTYPES.items():
        assert dtype.name == name
        assert dtype.isnative


def test_text_and_bytes_have_no_dims_of_their_own() -> None:
    assert (StringValue("a").shape, BytesValue(b"a").shape) == ((), ())
