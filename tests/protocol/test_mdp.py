"""MDP frames, byte by byte: what clients of three variants send, and what they get."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from protocol import head as heads
from protocol import limits, mdp, native
from protocol.errors import RemoteProtocolError, RequestError

ADDRESS = (b"\0rid1", b"")
BODY = msgpack.packb({"method": "add_common", "instances": [{"x1": 1.5, "x2": 2.5}]})


def call_of(parts: list[Any], address: tuple[bytes, ...] = ADDRESS) -> mdp.Call:
    return mdp.read_call(address, parts)


def reply_to(call: mdp.Call, meta: dict[str, Any], status: int = 0, *more: bytes) -> list[Any]:
    head = heads.Head(heads.REPLY, status=status, body_frames=1 + len(more))
    return mdp.encode_reply(call.caller, [heads.pack(head), msgpack.packb(meta), *more])


@pytest.mark.parametrize(
    ("parts", "address", "prefix"),
    [
        ([b"MDPC01", b"add"], (b"r", b""), [b"MDPC01", b"add"]),
        ([b"MDPC01", b"add"], (b"r", b"\0\0\0\1", b""), [b"MDPC01", b"add"]),
        ([b"MDPC02", b"\1", b"add"], (b"r",), [b"MDPC02", b"\3", b"add"]),
        ([b"MDPC02", b"\1", b"add"], (b"r", b""), [b"MDPC02", b"\3", b"add"]),
        ([b"MDPC02", b"\2", b"add"], (b"r", b""), [b"MDPC02", b"\4"]),
    ],
    ids=["7/MDP", "7/MDP correlated", "18/MDP", "18/MDP with an empty frame", "majortomo"],
)
def test_a_reply_begins_as_its_variant_of_the_protocol_has_it(
    parts: list[bytes], address: tuple[bytes, ...], prefix: list[bytes]
) -> None:
    call = call_of([*parts, BODY], address)
    assert call.caller.address == address
    assert (call.service, call.frames) == (b"add", [BODY])
    # {"status": 0, "instances": [{"y": 4.0}]}
    body = b"\x82\xa6status\x00\xa9instances\x91\x81\xa1y\xcb\x40\x10" + bytes(6)
    assert reply_to(call, {"instances": [{"y": 4.0}]}) == [*prefix, body]


@pytest.mark.parametrize(
    "parts",
    [
        [b"MDPC01"],
        [b"MDPC02", b"\1"],
        [b"MDPC03", b"add", BODY],
        [b"MDPC01x", b"add", BODY],
        [b"MDPC02", b"\3", b"add", BODY],
        [b"MDPC02", b"\1\1", b"add", BODY],
        [b"MDPC01", bytes(limits.SERVICE_KEY_BYTES_MAX + 1), BODY],
    ],
)
def test_what_is_no_request_is_not_read(parts: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        call_of(parts)


def test_majortomo_without_its_empty_frame_is_not_read() -> None:
    with pytest.raises(RemoteProtocolError, match="command"):
        call_of([b"MDPC02", b"\2", b"add", BODY], (b"r",))


@pytest.mark.parametrize(
    ("service", "key"),
    [
        (b"add", b"add/0"),
        (b"add/2", b"add/2"),
        (b"add/stable", b"add/stable/0"),
        (b"add/canary/0", b"add/canary/0"),
    ],
)
def test_a_service_is_a_servable_with_or_without_a_version_or_a_label(
    service: bytes, key: bytes
) -> None:
    head = heads.unpack(mdp.encode_request(call_of([b"MDPC01", service, BODY]))[0])
    assert (head.service, head.method) == (key, b"add_common")


def test_the_keys_of_the_map_become_the_head_and_the_body_stays_as_it_is() -> None:
    options = {"method": "m", "budget_ms": 250, "instance_count": 3, "unknown": [1, [2]]}
    options["priority"] = "low"
    body = msgpack.packb({"instances": [{"x": ["int8", [2], 1]}] * 3, **options})
    call = call_of([b"MDPC01", b"add", body, b"ab"])
    head = heads.unpack(mdp.encode_request(call)[0])
    assert head == heads.Head(
        heads.REQUEST,
        heads.FLAG_LOW,
        budget_ms=250,
        instance_count=3,
        body_frames=2,
        service=b"add/0",
        method=b"m",
    )
    assert call.frames == [body, b"ab"]
    body = msgpack.packb({"method": "m", "key": "grün", "instances": [{}]})
    head, *frames = mdp.encode_request(call_of([b"MDPC01", b"add", body, b"ab"]))
    assert frames == [body, b"ab", "grün".encode()]
    assert (heads.unpack(head).flags, heads.unpack(head).body_frames) == (heads.FLAG_KEYED, 3)
    huge = msgpack.packb({"method": "m", "budget_ms": 1 << 40, "instance_count": 1 << 40})
    head = heads.unpack(mdp.encode_request(call_of([b"MDPC01", b"add", huge]))[0])
    assert head.budget_ms == limits.BUDGET_MS_MAX
    assert head.instance_count == limits.INSTANCE_COUNT_MAX


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not a msgpack map"),
        (b"hello", "not a msgpack map"),
        (b"\x93\x01\x02\x03", "not a msgpack map"),
        (BODY[:-1], "not a msgpack map"),
        (b"\xdf\xff\xff\xff\xff", "not a msgpack map"),
        (b"\x81\xa6method" + b"\x91" * 5_000, "not a msgpack map"),
        (b"\x81\xa6others" + b"\x91" * 5_000, "not a msgpack map"),
        (msgpack.packb({}), "key 'method' is None, not the name of a method"),
        (msgpack.packb({"method": 7}), "key 'method' is 7"),
        (msgpack.packb({"method": ""}), "key 'method' is ''"),
        (msgpack.packb({"method": b"m"}), "not a msgpack map"),
        (msgpack.packb({"method": "m" * 256}), "256 exceeds max_str_len"),
        (msgpack.packb({"method": "m", "id": 1.5}), "key 'id' is 1.5"),
        (msgpack.packb({"method": "m", "id": True}), "key 'id' is True"),
        (msgpack.packb({"method": "m", "budget_ms": -1}), "key 'budget_ms' is -1"),
        (msgpack.packb({"method": "m", "budget_ms": "1"}), "key 'budget_ms' is '1'"),
        (msgpack.packb({"method": "m", "key": 1}), "key 'key' is 1, not text of 1 to"),
        (msgpack.packb({"method": "m", "key": None}), "key 'key' is None"),
        (msgpack.packb({"method": "m", "key": ""}), "key 'key' is ''"),
        (msgpack.packb({"method": "m", "key": "k" * 65}), "key_bytes_max 64 B"),
        (msgpack.packb({"method": "m", "one_way": 1}), "key 'one_way' is 1, not true or false"),
        (msgpack.packb({"method": "m", "priority": 1}), "is 1, not one of high, normal, low"),
        (msgpack.packb({"method": "m", "priority": "top"}), "key 'priority' is 'top'"),
    ],
)
def test_a_body_that_breaks_the_rules_is_refused_with_the_rule(body: bytes, text: str) -> None:
    with pytest.raises(RequestError) as raised:
        mdp.encode_request(call_of([b"MDPC01", b"add", body]))
    assert raised.value.reason == "malformed"
    assert text in raised.value.message


def test_a_request_without_a_body_or_over_a_limit_is_refused() -> None:
    for frames, reason, text in (
        ([], "malformed", "no body"),
        ([BODY] * 255, "malformed", "255 body frames exceed 254"),
        ([bytes(limits.MDP_META_BYTES_MAX + 1)], "body_too_large", "mdp_meta_bytes_max 16777216"),
    ):
        with pytest.raises(RequestError, match=text) as raised:
            mdp.encode_request(call_of([b"MDPC01", b"add", *frames]))
        assert raised.value.reason == reason
    with pytest.raises(RequestError, match="service_key_bytes_max"):
        mdp.encode_request(call_of([b"MDPC01", b"s" * limits.SERVICE_KEY_BYTES_MAX, BODY]))


@pytest.mark.parametrize("call_id", [0, -3, 1 << 63, "", "request-1"])
def test_the_id_comes_back_before_everything_else(call_id: int | str) -> None:
    body = msgpack.packb({"instances": [{}], "method": "m", "id": call_id})
    call = call_of([b"MDPC01", b"add", body])
    mdp.encode_request(call)
    answer = reply_to(call, {"instances": [None], "errors": [[3, "no"]]}, 0, b"tensor")
    expected = {"id": call_id, "status": 0, "instances": [None], "errors": [[3, "no"]]}
    assert answer == [b"MDPC01", b"add", msgpack.packb(expected), b"tensor"]


def test_a_failure_is_an_ordinary_reply_with_status_reason_and_message() -> None:
    call = call_of([b"MDPC02", b"\1", b"add", BODY], (b"r",))
    frame = native.encode_failure(None, "no_worker", "text")[0]
    head = heads.Head(heads.REPLY, status=14, body_frames=1)
    answer = mdp.encode_reply(call.caller, [heads.pack(head), frame])
    body = msgpack.packb({"status": 14, "reason": "no_worker", "message": "text"})
    assert answer == [b"MDPC02", b"\3", b"add", body]


@pytest.mark.parametrize("meta", [[], [b""], [b"\x93"], [b"\x8e"], [b"\xde\0\1"]])
def test_a_reply_of_a_worker_that_is_no_small_map_becomes_a_failure(meta: list[bytes]) -> None:
    call = call_of([b"MDPC01", b"add", BODY])
    head = heads.Head(heads.REPLY, body_frames=len(meta))
    *_, body = mdp.encode_reply(call.caller, [heads.pack(head), *meta])
    assert msgpack.unpackb(body)["reason"] == "failed"
