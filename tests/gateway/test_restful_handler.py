"""The handler of the RESTful interface: order of checks, what goes to the bus, texts."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.restful_handler import RestfulHandler
from protocol import head as heads
from protocol import limits
from tests.gateway.fakes import FakeBus, bus_failure, reply_head

BODY = b'{"instances":[{"x1":[[1,2]],"x2":[[3,4]]}]}'
TARGET = b"/model/add/version/7:m"


def handle(
    bus: FakeBus, verb: str = "POST", target: bytes = TARGET, body: bytes | None = BODY
) -> tuple[int, bytes]:
    return asyncio.run(RestfulHandler(bus, 100).answer(verb, target, body))


def error_of(answer: tuple[int, bytes]) -> str:
    code, body = answer
    assert code == 200
    document = json.loads(body)
    assert list(document) == ["error_msg"]
    text = document["error_msg"]
    assert isinstance(text, str)
    return text


def test_json_travels_unparsed_under_a_head_made_from_the_target() -> None:
    bus = FakeBus((reply_head(heads.DIALECT_RESTFUL), [b'{"instances":', b"[]}"]))
    assert handle(bus, body=b"not even JSON") == (200, b'{"instances":[]}')
    assert bus.asked == [
        (
            heads.Head(
                heads.REQUEST,
                flags=heads.FLAG_COALESCE,
                dialect=heads.DIALECT_RESTFUL,
                instance_count=1,
                body_frames=1,
                service=b"add/7",
                method=b"m",
            ),
            [b"not even JSON"],
        )
    ]


def test_a_target_without_a_version_means_the_latest() -> None:
    bus = FakeBus((reply_head(heads.DIALECT_RESTFUL), [b"{}"]))
    handle(bus, target=b"/model/add:m")
    assert bus.asked[0][0].service == b"add/0"


def test_a_failure_that_a_worker_wrote_passes_through() -> None:
    bus = FakeBus((reply_head(heads.DIALECT_RESTFUL, code=3), [b'{"error_msg":"x"}']))
    assert handle(bus) == (200, b'{"error_msg":"x"}')


@pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "DELETE"])
def test_verbs_that_the_http_library_knows_are_told_to_post(verb: str) -> None:
    bus = FakeBus()
    answer = handle(bus, verb, b"/", None)
    assert error_of(answer) == "http message only support POST right now"
    assert bus.asked == []


@pytest.mark.parametrize("verb", ["PATCH", "OPTIONS", "TRACE"])
def test_other_verbs_are_not_implemented(verb: str) -> None:
    code, _ = handle(FakeBus(), verb)
    assert code == 501


URL_ERROR = "please check url, the keyword:[model] must contain."


@pytest.mark.parametrize(
    ("target", "body", "text"),
    [
        (b"/", b"", "http message invalid"),
        (b"/", None, "http message is bigger than 100"),
        (b"/", b"{", "Illegal JSON format."),
        (b"/", b'{"instances":[]}', URL_ERROR),
        (b"/", BODY, URL_ERROR),
        (TARGET, b"{", "Illegal JSON format."),
        (TARGET, b"{}", "Parser request failed, key 'instances' expects to exist once, but"),
        (TARGET, BODY, "Request servable(add) method(m)  version(7) , servable is not available"),
    ],
)
def test_of_several_mistakes_the_first_is_told(
    target: bytes, body: bytes | None, text: str
) -> None:
    bus = FakeBus(bus_failure("unknown_service", "service add/7 is not available"))
    assert error_of(handle(bus, target=target, body=body)).startswith(text)


FULL = "enqueued requests count exceeds the limit 2"


@pytest.mark.parametrize(
    ("reason", "message", "text"),
    [
        (
            "no_worker",
            "x",
            "Request servable(add) method(m)  version(7) , servable is not available",
        ),
        ("queue_full", FULL, "Serving Error: " + FULL),
        ("broker_lost", "the connection broke", "the connection broke"),
        ("deadline_exceeded", "the budget ran out", "the budget ran out"),
    ],
)
def test_a_failure_of_the_bus_is_told_in_mindspore_servings_words(
    reason: str, message: str, text: str
) -> None:
    assert error_of(handle(FakeBus(bus_failure(reason, message)))) == text


@pytest.mark.parametrize(
    ("timeout", "reading_ms", "budget_ms"),
    [
        (b"1500m", 0, 1_500),
        (b"1500m", 200, 1_300),
        (b"2S", 3_000, 1),
        (b"99999999H", 0, limits.BUDGET_MS_MAX),
    ],
)
def test_a_deadline_becomes_the_budget(timeout: bytes, reading_ms: int, budget_ms: int) -> None:
    bus = FakeBus(bus_failure("deadline_exceeded", "the budget ran out after 9 ms"))
    handler = RestfulHandler(bus, 100)
    code, body = asyncio.run(handler.answer("POST", TARGET, BODY, timeout, reading_ms))
    assert bus.asked[0][0].budget_ms == budget_ms
    assert (code, json.loads(body)) == (504, {"error_msg": "the budget ran out after 9 ms"})


def test_a_deadline_that_is_none_is_a_bad_request() -> None:
    bus = FakeBus()
    handler = RestfulHandler(bus, 100)
    code, body = asyncio.run(handler.answer("POST", TARGET, BODY, b"5 s"))
    assert (code, json.loads(body)["error_msg"].partition(",")[0]) == (
        400,
        "header grpc-timeout is '5 s'",
    )
    assert bus.asked == []


@pytest.mark.parametrize("reason", ["queue_full", "queue_bytes_full"])
def test_what_an_overloaded_bus_refuses_is_not_parsed(reason: str) -> None:
    assert error_of(handle(FakeBus(bus_failure(reason, FULL)), body=b"{")).endswith(FULL)


def test_a_large_document_is_checked_beside_the_event_loop_with_the_same_result() -> None:
    bus = FakeBus(bus_failure("no_worker", "x"))
    body = b" " * limits.TENSOR_INLINE_BYTES_MAX + b"[1"
    assert error_of(handle(bus, body=body)).startswith("Illegal JSON format.")
    assert bus.asked[0][0].flags & heads.FLAG_BODY_LARGE


def test_a_name_too_long_for_a_head_is_of_a_servable_that_is_not_there() -> None:
    bus = FakeBus()
    text = error_of(handle(bus, target=b"/model/" + b"s" * 300 + b":m"))
    assert text == f"Request servable({'s' * 300}) method(m) , servable is not available"
    assert bus.asked == []
