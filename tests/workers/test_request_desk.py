"""The desk: every ticket is answered once, in its own dialect, whatever is wrong with it."""

import numpy as np
import pytest

from protocol import head, limits, native, status
from protocol.errors import RequestError
from protocol.values import EchoedInstances, Failure, MethodSignature
from protocol.worker_session import Arrival
from workers.stages.request_desk import BUG_TEXT, RequestDesk

METHOD = MethodSignature("add", "double", ("x",), ("y",))
MS = 1_000_000


class ShoutingDialect:
    """Native, but failures are shouted: shows which dialect wrote a reply."""

    decode_request = staticmethod(native.decode_request)
    encode_reply = staticmethod(native.encode_reply)

    @staticmethod
    def encode_failure(spec, reason, message):
        return [f"{spec} {reason}: {message}".upper().encode()]


class Desk:
    """A desk and the requests that it handed over; a desk that is compiled has no subclasses."""

    def __init__(self, dialects):
        self.taken = []
        self._desk = RequestDesk("add/1", {"double": METHOD}, self.taken.append, dialects)

    def __getattr__(self, name):
        return getattr(self._desk, name)


@pytest.fixture
def desk():
    return Desk({head.DIALECT_NATIVE: native, 1: ShoutingDialect})


def arrival(ticket, *values, method=b"double", received_ns=0, frames=None, **fields):
    body = frames or native.encode_request([{"x": value} for value in values])
    made = head.Head(
        head.REQUEST,
        request_id=ticket,
        method=method,
        body_frames=len(body),
        **{"service": b"add/0", "budget_ms": 100} | fields,
    )
    return Arrival(head.pack(made), body, received_ns)


def replies_of(desk):
    parcels = {}
    for frame, frames in head.split_parcels(desk.replies):
        parcels[head.unpack(frame).request_id] = (head.unpack(frame), frames)
    assert list(parcels) == desk.tickets
    desk.tickets.clear()
    desk.replies.clear()
    return parcels


def compute(desk, double=lambda value: (value * 2,)):
    """Give each request that was handed over its results, and write the replies."""
    for request in desk.taken:
        request.results = [double(*instance) for instance in request.instances]
    desk.take_back(desk.taken, [])
    desk.taken.clear()
    desk.write_replies()


def doubles(frames):
    return [int(result["y"]) for result in native.decode_reply(frames)]


def test_requests_are_answered_with_their_own_results_and_trace(desk):
    desk.receive(arrival(1, 10, 11, trace_id=b"t" * 16))
    desk.receive(arrival(2, 20))
    compute(desk)
    replies = replies_of(desk)
    assert {ticket: doubles(frames) for ticket, (_, frames) in replies.items()} == {
        1: [20, 22],
        2: [40],
    }
    assert replies[1][0] == head.Head(
        head.REPLY, request_id=1, instance_count=2, body_frames=1, trace_id=b"t" * 16
    )
    assert desk.is_idle


@pytest.mark.parametrize(
    ("made", "code", "reason", "text"),
    [
        (
            arrival(1, 1, method=b"halve", service=b"add/3"),
            status.NOT_FOUND,
            "unknown_method",
            "Request servable(add) method(halve)  version(3) , method is not available",
        ),
        (
            arrival(1, 1, dialect=99),
            status.UNIMPLEMENTED,
            "unsupported",
            "dialect 99 is not spoken",
        ),
        (
            arrival(1, 1, service=b"add"),
            status.INVALID_ARGUMENT,
            "malformed",
            "head of the request: service key b'add' is not servable/version",
        ),
        (
            arrival(1, 1, method=b"\xff"),
            status.INVALID_ARGUMENT,
            "malformed",
            "head of the request: method name b'\\xff' is not UTF-8",
        ),
        (
            arrival(1, frames=[b"\x90"]),
            status.INVALID_ARGUMENT,
            "malformed",
            "meta frame is a list, not a map",
        ),
    ],
)
def test_what_cannot_be_computed_is_answered_at_once(desk, made, code, reason, text):
    desk.receive(made)
    ((reply, frames),) = replies_of(desk).values()
    assert (reply.status, reply.dialect) == (code, head.DIALECT_NATIVE)
    failure = native.decode_failure(frames)
    assert (failure.reason, failure.message) == (reason, text)
    assert desk.taken == []


def test_a_failure_speaks_the_dialect_of_its_request(desk):
    desk.receive(arrival(1, 1, method=b"halve", dialect=1))
    ((reply, frames),) = replies_of(desk).values()
    assert (reply.status, reply.dialect) == (status.NOT_FOUND, 1)
    assert frames[0].endswith(
        b"UNKNOWN_METHOD: REQUEST SERVABLE(ADD) METHOD(HALVE) , METHOD IS NOT AVAILABLE"
    )


def test_the_budget_counts_from_the_moment_of_arrival(desk):
    desk.receive(arrival(1, 1, received_ns=5 * MS, budget_ms=10))
    assert [request.deadline_ns for request in desk.taken] == [15 * MS]


def test_a_request_that_names_no_budget_gets_the_default(desk):
    desk.receive(arrival(1, 1, budget_ms=0))
    assert [request.deadline_ns for request in desk.taken] == [limits.BUDGET_MS_DEFAULT * MS]


def test_the_scheduler_is_told_of_a_second_delivery(desk):
    desk.receive(arrival(1, 1))
    desk.receive(arrival(2, 1, flags=head.FLAG_REDELIVERED))
    assert [request.is_redelivered for request in desk.taken] == [False, True]


def test_an_expired_request_is_answered_with_where_it_waited(desk):
    desk.receive(arrival(1, 1))
    desk.receive(arrival(2, 2))
    expired = desk.taken.pop(0)
    desk.take_back([], [expired])
    assert not desk.is_idle
    compute(desk)
    replies = replies_of(desk)
    assert replies[1][0].status == status.DEADLINE_EXCEEDED
    assert native.decode_failure(replies[1][1]).message == (
        "the budget ran out, waiting in the worker (add/1, method double)"
    )
    assert doubles(replies[2][1]) == [4]
    assert desk.is_idle


def test_a_failed_instance_is_a_result_like_others(desk):
    desk.receive(arrival(1, 1, 2))
    failed = Failure(3, "stage failed")
    compute(desk, lambda value: failed if value == 2 else (value * 2,))
    ((reply, frames),) = replies_of(desk).values()
    good, bad = native.decode_reply(frames)
    assert (reply.status, int(good["y"]), bad) == (0, 2, failed)


def test_a_result_that_cannot_be_sent_fails_its_request_with_the_cause(desk):
    desk.receive(arrival(1, 1))
    compute(desk, lambda _: (np.asarray(1j),))
    ((reply, frames),) = replies_of(desk).values()
    assert reply.status == status.INTERNAL
    assert "dtype complex128 is not one of bool" in native.decode_failure(frames).message


class HugeDialect:
    """Native requests; a reply is the limit and one byte more, in frames that share their bytes."""

    decode_request = staticmethod(native.decode_request)
    encode_failure = staticmethod(native.encode_failure)
    frame = bytes(limits.BODY_BYTES_MAX // limits.BODY_FRAMES_MAX * 2)

    @classmethod
    def encode_reply(cls, spec, method, results):
        whole, rest = divmod(limits.BODY_BYTES_MAX + 1, len(cls.frame))
        return [cls.frame] * whole + [bytes(rest)]


def test_a_reply_over_the_limit_is_refused_with_both_sizes():
    desk = Desk({0: HugeDialect})
    desk.receive(arrival(1, 1))
    compute(desk)
    ((reply, frames),) = replies_of(desk).values()
    assert reply.status == status.RESOURCE_EXHAUSTED
    assert native.decode_failure(frames).message == (
        f"reply of {limits.BODY_BYTES_MAX + 1} B exceeds body_bytes_max {limits.BODY_BYTES_MAX} "
        "(add/1, method double)"
    )


def test_a_large_reply_says_so_in_its_head(desk):
    desk.receive(arrival(1, 1))
    compute(desk, lambda _: (np.zeros(limits.TENSOR_INLINE_BYTES_MAX, np.uint8),))
    assert replies_of(desk)[1][0].flags == head.FLAG_BODY_LARGE


class StumblingDialect(ShoutingDialect):
    """Cannot encode the result 4."""

    @staticmethod
    def encode_reply(spec, method, results):
        if results[0][0] == 4:
            raise ZeroDivisionError("a secret of the inside")
        return native.encode_reply(spec, method, results)


def test_a_bug_costs_the_reply_in_hand_and_leaks_nothing_and_the_others_are_still_due():
    desk = Desk({head.DIALECT_NATIVE: native, 1: StumblingDialect})
    for ticket in (1, 2, 3):
        desk.receive(arrival(ticket, ticket, dialect=1))
    with pytest.raises(ZeroDivisionError):
        compute(desk)
    assert desk.fail_in_hand()
    assert not desk.is_idle
    desk.write_replies()
    replies = replies_of(desk)
    assert (replies[2][0].status, replies[2][0].dialect) == (status.INTERNAL, head.DIALECT_NATIVE)
    assert native.decode_failure(replies[2][1]).message == BUG_TEXT
    assert [doubles(replies[ticket][1]) for ticket in (1, 3)] == [[2], [6]]


def test_between_requests_nothing_is_in_hand(desk):
    desk.receive(arrival(1, 1))
    desk.receive(arrival(2, 1, method=b"halve"))
    assert not desk.fail_in_hand()
    compute(desk)
    assert not desk.fail_in_hand()
    assert desk.tickets == [2, 1]


def test_a_cleared_desk_owes_nothing(desk):
    desk.receive(arrival(1, 1))
    desk.receive(arrival(2, 1, method=b"halve"))
    desk.take_back(desk.taken, [])
    desk.clear()
    desk.write_replies()
    assert (desk.tickets, desk.replies, desk.is_idle) == ([], [], True)


class OneErrorDialect:
    """Native, but a request has one error, and its reply says what came with it."""

    encode_failure = staticmethod(native.encode_failure)

    @staticmethod
    def decode_request(frames, method):
        return EchoedInstances(native.decode_request(frames, method), "came with it")

    @staticmethod
    def encode_reply(spec, method, results):
        for result in results:
            if isinstance(result, Failure):
                raise RequestError("failed", result.message)
        return [str(spec.echo).encode()]


def test_what_came_with_a_request_goes_to_its_reply() -> None:
    desk = Desk({head.DIALECT_NATIVE: native, 1: OneErrorDialect})
    desk.receive(arrival(1, np.int32(1), dialect=1))
    compute(desk)
    reply, frames = replies_of(desk)[1]
    assert (reply.status, frames) == (status.OK, [b"came with it"])


def test_a_dialect_with_one_error_per_request_fails_it_as_a_whole() -> None:
    desk = Desk({head.DIALECT_NATIVE: native, 1: OneErrorDialect})
    desk.receive(arrival(1, np.int32(1), np.int32(2), dialect=1))
    compute(desk, lambda value: Failure(1, "no") if value == 2 else (value,))
    reply, frames = replies_of(desk)[1]
    assert (reply.status, reply.dialect) == (status.INTERNAL, 1)
    assert native.decode_failure(frames).message == "no"
    assert desk.is_idle
