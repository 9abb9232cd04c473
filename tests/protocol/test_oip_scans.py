"""Remembered scans say what a scan of the same bytes says, whatever the bytes are."""

from __future__ import annotations

import random

import pytest

from protocol import oip
from protocol.errors import RequestError
from protocol.oip_messages import ModelInferRequest
from protocol.oip_scans import COMPARED_BYTES_MAX, SAME_SIZE_MAX, SCANS_MAX, Scans


def request(
    model: str = "add", request_id: str = "", raw: bytes = b"abcd", **more: object
) -> bytes:
    """A request with one input of 4 bytes."""
    message = ModelInferRequest(model_name=model, id=request_id, **more)
    message.inputs.add(name="x", datatype="FP32", shape=[1, len(raw) // 4])
    message.raw_input_contents.append(raw)
    return message.SerializeToString()


def outcome(scan: object, body: bytes) -> object:
    """What a scan says, or raises."""
    try:
        return scan(body)  # type: ignore[operator]
    except RequestError as error:
        return (error.reason, error.message)


def test_requests_that_differ_in_their_tensors_are_one_scan() -> None:
    scans = Scans()
    first = scans.scan(request(raw=b"abcd"))
    assert first == oip.scan_request(request(raw=b"abcd"))
    assert scans.scan(request(raw=b"\xff\xff\xff\xff")) is first


def test_ids_are_those_of_each_request() -> None:
    scans = Scans()
    assert [scans.scan(request(request_id=each)).id for each in ("a1", "b2", "c3", "")] == [
        "a1", "b2", "c3", "",
    ]  # fmt: skip


def test_an_id_that_is_not_utf8_is_refused_also_where_others_like_it_were_not() -> None:
    scans = Scans()
    body = request(request_id="abcd")
    scans.scan(body)
    with pytest.raises(RequestError, match="not UTF-8"):
        scans.scan(body.replace(b"abcd", b"ab\xff\xfe", 1))


def test_every_byte_but_those_of_id_and_tensors_is_compared() -> None:
    body = request("add", "id-7", b"0123", model_version="1")
    scans = Scans()
    scans.scan(body)
    for at in range(len(body)):
        for change in (1, 0x20, 0x80, 0xFF):
            other = body[:at] + bytes((body[at] ^ change,)) + body[at + 1 :]
            assert outcome(scans.scan, other) == outcome(oip.scan_request, other), (at, change)


def test_mutated_requests_are_read_as_if_nothing_were_remembered() -> None:
    chance = random.Random(7)
    scans = Scans()
    bodies = [request(name, i, r) for name in ("a", "b") for i in ("", "x") for r in (b"", b"1234")]
    for _ in range(5_000):
        body = bytearray(chance.choice(bodies))
        for _ in range(chance.randrange(3)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        assert outcome(scans.scan, bytes(body)) == outcome(oip.scan_request, bytes(body))


def test_several_ids_mean_the_last_one() -> None:
    body = b"\x0a\x03add\x1a\x02a1\x1a\x02b2"
    scans = Scans()
    assert scans.scan(body).id == oip.scan_request(body).id == "b2"
    assert scans.scan(body.replace(b"b2", b"c3")).id == "c3"


def test_what_is_remembered_is_bounded() -> None:
    scans = Scans()
    for number in range(3 * SCANS_MAX):
        scans.scan(request(f"model{number}", raw=bytes(4 * (number % 40))))
    kinds = scans._kinds
    assert sum(map(len, kinds.values())) == scans._count <= SCANS_MAX
    assert max(map(len, kinds.values())) <= SAME_SIZE_MAX


def test_requests_with_much_beside_their_tensors_are_not_remembered() -> None:
    scans = Scans()
    body = request("m" * (COMPARED_BYTES_MAX + 1))
    assert scans.scan(body) == scans.scan(body)
    assert not scans._kinds
