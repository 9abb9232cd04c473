"""The journal: ids that are taken or made, numbers, and the line of the access log."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.exchange import current
from gateway.journal import Journal
from gateway.requests import pack_request
from protocol import head as heads
from protocol.trace_context import TraceContext, format_traceparent, parse_traceparent
from protocol.values import RequestSpec

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPEC = RequestSpec("add", "add_common", 1)


def test_an_id_of_the_client_is_kept_and_given_back() -> None:
    journal = Journal()
    exchange = journal.begin("rest", "order-17", None)
    assert exchange.request_id == "order-17"
    assert journal.reply_keys(exchange) == (("x-request-id", "order-17"),)


@pytest.mark.parametrize("given", [None, "", "x" * 129, "two\nlines", "nüll"])
def test_an_id_that_is_missing_or_unusable_is_made(given: str | None) -> None:
    journal = Journal()
    made = {journal.begin("grpc", given, None).request_id for _ in range(3)}
    assert len(made) == 3
    assert given not in made


def test_the_head_carries_the_trace_of_the_clients_header() -> None:
    Journal().begin("rest", None, TRACE)
    head = heads.unpack(pack_request(SPEC, heads.DIALECT_RESTFUL, 1, 0, [b"x"])[0])
    assert head.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert head.span_id.hex() == "b7ad6b7169203331"
    assert head.flags & heads.FLAG_SAMPLED
    Journal().begin("rest", None, TRACE[:-1] + "0")
    head = heads.unpack(pack_request(SPEC, heads.DIALECT_RESTFUL, 1, 0, [b"x"])[0])
    assert not head.flags & heads.FLAG_SAMPLED


def test_without_a_trace_the_head_has_none() -> None:
    Journal().begin("rest", None, "nonsense")
    head = heads.unpack(pack_request(SPEC, heads.DIALECT_RESTFUL, 1, 0, [b"x"])[0])
    assert (head.trace_id, head.span_id) == (heads.NO_TRACE, heads.NO_SPAN)


def test_a_line_of_the_access_log_says_who_what_and_how_it_ended() -> None:
    lines: list[dict[str, Any]] = []
    journal = Journal(lines.append)
    exchange = journal.begin("rest", "r1", TRACE, request_bytes=12)
    exchange.peer = ("127.0.0.1", 4711)
    pack_request(SPEC, heads.DIALECT_RESTFUL, 1, 0, [b"x"])
    exchange.fail("queue_full")
    journal.end(exchange, 34)
    (line,) = lines
    assert line.pop("duration_ms") >= 0
    assert line == {
        "door": "rest",
        "peer": "127.0.0.1:4711",
        "request_id": "r1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "servable": "add",
        "version": 1,
        "method": "add_common",
        "code": "RESOURCE_EXHAUSTED",
        "reason": "queue_full",
        "queue_ms": 0.0,
        "request_bytes": 12,
        "reply_bytes": 34,
    }


def test_what_ends_is_counted_at_its_door() -> None:
    journal = Journal()
    first, second = journal.begin("rest", None, None), journal.begin("rest", None, None)
    assert journal.numbers.doors["rest"].inflight == 2
    journal.end(first, 1)
    second.fail("cancelled")
    journal.end(second, 0)
    rest = journal.numbers.describe(0, 0)["doors"]["rest"]
    assert (rest["inflight"], rest["codes"]) == (0, {"OK": 1, "CANCELLED": 1})
    assert sum(rest["counts"]) == 2


def test_the_exchange_is_the_tasks_own() -> None:
    journal = Journal()
    exchange = journal.begin("grpc", None, None)
    assert current() is exchange


# ---------------------------------------------------------------- traceparent


def test_a_traceparent_is_read_and_written() -> None:
    context = parse_traceparent(TRACE)
    assert context == TraceContext(
        bytes.fromhex("0af7651916cd43dd8448eb211c80319c"), bytes.fromhex("b7ad6b7169203331"), True
    )
    assert format_traceparent(context) == TRACE


@pytest.mark.parametrize(
    "text",
    [
        "",
        TRACE.upper(),
        TRACE + "-more",
        "ff" + TRACE[2:],
        TRACE[:-1],
        TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        TRACE.replace("b7ad6b7169203331", "0" * 16),
        f"{TRACE}, {TRACE}",
    ],
)
def test_what_is_no_traceparent_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


def test_a_later_version_may_say_more() -> None:
    assert parse_traceparent("cc" + TRACE[2:] + "-more") is not None
