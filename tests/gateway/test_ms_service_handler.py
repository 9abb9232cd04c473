"""The handler of Predict: what goes to the bus, and what a client is told."""

from __future__ import annotations

import asyncio

import pytest

from gateway.ms_service_handler import MsServiceHandler
from protocol import head as heads
from protocol import limits, ms_service_pb2
from protocol.errors import RequestError
from tests.gateway.fakes import FakeBus, bus_failure, reply_head


def predict_request(instances: int = 2, version: int = 0, padding: int = 0) -> bytes:
    request = ms_service_pb2.PredictRequest()
    request.servable_spec.name = "add"
    request.servable_spec.method_name = "m"
    request.servable_spec.version_number = version
    for _ in range(instances):
        request.instances.add().items["x"].data = bytes(padding)
    return request.SerializeToString()


def predict(bus: FakeBus, body: bytes, budget_ms: int | None = None) -> bytes:
    return asyncio.run(MsServiceHandler(bus).predict(body, budget_ms))


def test_a_request_travels_unopened_under_a_head_that_says_what_it_is() -> None:
    bus = FakeBus((reply_head(heads.DIALECT_MS_SERVICE), [b"the reply"]))
    body = predict_request(instances=3, version=7)
    assert predict(bus, body, budget_ms=250) == b"the reply"
    assert bus.asked == [
        (
            heads.Head(
                heads.REQUEST,
                flags=heads.FLAG_COALESCE,
                dialect=heads.DIALECT_MS_SERVICE,
                budget_ms=250,
                instance_count=3,
                body_frames=1,
                service=b"add/7",
                method=b"m",
            ),
            [body],
        )
    ]


def test_a_large_body_is_announced_as_large() -> None:
    bus = FakeBus((reply_head(heads.DIALECT_MS_SERVICE), [b""]))
    predict(bus, predict_request(1, padding=limits.TENSOR_INLINE_BYTES_MAX))
    predict(bus, predict_request(1, padding=limits.TENSOR_INLINE_BYTES_MAX - 100))
    assert [head.flags & heads.FLAG_BODY_LARGE for head, _ in bus.asked] == [
        heads.FLAG_BODY_LARGE,
        0,
    ]


@pytest.mark.parametrize(("budget_ms", "sent"), [(None, 0), (0, 0), (10**12, 86_400_000)])
def test_a_client_without_a_deadline_leaves_the_budget_to_the_broker(
    budget_ms: int | None, sent: int
) -> None:
    bus = FakeBus((reply_head(heads.DIALECT_MS_SERVICE), [b""]))
    predict(bus, predict_request(), budget_ms)
    assert bus.asked[0][0].budget_ms == sent


def test_zero_instances_are_forwarded_for_the_worker_to_answer() -> None:
    bus = FakeBus((reply_head(heads.DIALECT_MS_SERVICE), [b"no instances"]))
    assert predict(bus, predict_request(instances=0)) == b"no instances"
    assert bus.asked[0][0].instance_count == 0


def test_a_failure_that_a_worker_wrote_passes_through() -> None:
    bus = FakeBus((reply_head(heads.DIALECT_MS_SERVICE, code=3), [b"the ", b"failure"]))
    assert predict(bus, predict_request()) == b"the failure"


UNAVAILABLE = "Request servable(add) method(m)  version(7) , servable is not available"
FULL = "enqueued requests count exceeds the limit 2"


@pytest.mark.parametrize(
    ("reason", "message", "code", "text"),
    [
        ("unknown_service", "service add/7 is not available", 2, UNAVAILABLE),
        ("no_worker", "nobody", 5, UNAVAILABLE),
        ("queue_full", FULL, 1, "Serving Error: " + FULL),
        ("draining", "the broker is going down", 4, "the broker is going down"),
        ("broker_lost", "it broke", 4, "it broke"),
        ("worker_lost", "2 workers died of it", 4, "2 workers died of it"),
        ("deadline_exceeded", "its budget ran out", 1, "its budget ran out"),
        ("body_too_large", "body of 9 B exceeds 8", 2, "body of 9 B exceeds 8"),
    ],
)
def test_a_failure_of_the_bus_becomes_an_error_message_with_mindspore_servings_code(
    reason: str, message: str, code: int, text: str
) -> None:
    body = predict(FakeBus(bus_failure(reason, message)), predict_request(version=7))
    reply = ms_service_pb2.PredictReply.FromString(body)
    assert reply.servable_spec.name == "add"
    assert reply.servable_spec.method_name == "m"
    assert reply.servable_spec.version_number == 7
    assert len(reply.instances) == 0
    assert [(e.error_code, e.error_msg.decode()) for e in reply.error_msg] == [(code, text)]


def test_a_failure_that_cannot_be_read_is_a_failure_still() -> None:
    bus = FakeBus((reply_head(heads.DIALECT_NATIVE, code=14), [b"\xc1"]))
    reply = ms_service_pb2.PredictReply.FromString(predict(bus, predict_request()))
    (error,) = reply.error_msg
    assert error.error_code == 1
    assert b"unreadable" in error.error_msg


def test_names_too_long_for_a_head_are_of_servables_and_methods_that_are_not_there() -> None:
    request = ms_service_pb2.PredictRequest()
    request.servable_spec.name = "s" * 300
    request.servable_spec.method_name = "m"
    bus = FakeBus()
    (error,) = ms_service_pb2.PredictReply.FromString(
        predict(bus, request.SerializeToString())
    ).error_msg
    assert (error.error_code, error.error_msg.decode()) == (
        2,
        f"Request servable({'s' * 300}) method(m) , servable is not available",
    )
    request.servable_spec.name, request.servable_spec.method_name = "s", "m" * 256
    (error,) = ms_service_pb2.PredictReply.FromString(
        predict(bus, request.SerializeToString())
    ).error_msg
    assert (error.error_code, error.error_msg.decode()) == (
        2,
        f"Request servable(s) method({'m' * 256}) , method is not available",
    )
    assert bus.asked == []


def test_bytes_that_are_no_protobuf_are_an_error_of_the_call_itself() -> None:
    bus = FakeBus()
    with pytest.raises(RequestError) as malformed:
        predict(bus, b"\xff\xff\xff")
    assert malformed.value.reason == "malformed"
    assert bus.asked == []


def test_cancelling_cancels_the_request_in_the_bus() -> None:
    async def play() -> None:
        bus = FakeBus()
        call = asyncio.create_task(MsServiceHandler(bus).predict(predict_request()))
        await bus.arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert bus.cancelled.is_set()

    asyncio.run(play())
