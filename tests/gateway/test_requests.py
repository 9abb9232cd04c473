"""What a client says of a request by headers or metadata comes into the head that the bus gets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.exchange import Exchange, enter
from gateway.journal import Journal
from gateway.requests import pack_request
from protocol import head as heads
from protocol import limits
from protocol.errors import RequestError
from protocol.values import RequestSpec

SPEC = RequestSpec("add", "add_common", 1)


def packed(exchange: Exchange, flag: int = 0) -> tuple[heads.Head, list[bytes]]:
    """Head and frames of a request of this task, whose exchange was made last."""
    assert exchange.door == "rest"
    head, frames = pack_request(SPEC, heads.DIALECT_RESTFUL, 1, 0, [b"body"], flag)
    return heads.unpack(head), [bytes(frame) for frame in frames]


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    yield Journal().begin("rest", None, None)
    enter(None)  # it was this thread's, whose other tests have none


@pytest.mark.parametrize(
    ("word", "flag"),
    [("high", heads.FLAG_HIGH), ("normal", 0), (None, 0), ("low", heads.FLAG_LOW)],
)
def test_a_word_names_the_priority(exchange: Exchange, word: str | None, flag: int) -> None:
    exchange.priority = word
    head, _ = packed(exchange)
    assert head.flags & heads.FLAGS_PRIORITY == flag


def test_what_the_body_says_of_its_priority_comes_first(exchange: Exchange) -> None:
    exchange.priority = "high"
    head, _ = packed(exchange, heads.FLAG_LOW)
    assert head.flags & heads.FLAGS_PRIORITY == heads.FLAG_LOW


def test_a_key_is_the_last_frame(exchange: Exchange) -> None:
    head, frames = packed(exchange)
    assert (heads.is_keyed(heads.pack(head)), head.body_frames, frames) == (False, 1, [b"body"])
    exchange.key = "order-17"
    head, frames = packed(exchange)
    assert (heads.is_keyed(heads.pack(head)), head.body_frames) == (True, 2)
    assert frames == [b"body", b"order-17"]


def test_words_that_mean_nothing_are_named(exchange: Exchange) -> None:
    exchange.priority = "urgent"
    with pytest.raises(RequestError) as raised:
        packed(exchange)
    assert raised.value.reason == "invalid_inputs"
    assert str(raised.value.message) == "mindbus-priority 'urgent' is not one of high, normal, low"
    exchange.priority = None
    for key in ("k" * (limits.KEY_BYTES_MAX + 1), "", "ü"):
        exchange.key = key
        with pytest.raises(RequestError, match=r"idempotency-key '.*' is not 1 to 64 characters"):
            packed(exchange)
