"""The client's end of the wire: every request ends once, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from protocol import head as heads
from protocol import native, status
from protocol.client_session import NS_PER_MS, ClientSession, ClientSettings, Completion

SETTINGS = ClientSettings(requests_max=3, budget_ms_default=1_000, patience_ms=200, slack_ms=100)
#: one bucket of deadlines: what is overdue is noticed that much later
BUCKET_NS = 1 << 24


@pytest.fixture
def session() -> Iterator[ClientSession]:
    session = ClientSession(SETTINGS)
    session.connected(0)
    yield session
    session.check_invariants()


def request(budget_ms: int = 0, service: bytes = b"add/1") -> bytes:
    return heads.pack(
        heads.Head(
            heads.REQUEST,
            flags=heads.FLAG_COALESCE,
            budget_ms=budget_ms,
            instance_count=2,
            body_frames=1,
            service=service,
            method=b"m",
        )
    )


def reply(request_id: int, command: int = heads.REPLY) -> bytes:
    return heads.pack(heads.Head(command, request_id=request_id, body_frames=1))


def reasons(completed: list[Completion]) -> list[tuple[int, str, int]]:
    """(request id, reason, status) of failures that the session made."""
    found = []
    for request_id, head, frames in completed:
        fields = heads.unpack(head)
        assert (fields.command, fields.dialect) == (heads.REPLY, heads.DIALECT_NATIVE)
        assert fields.request_id == request_id
        reason = native.decode_failure(frames).reason
        assert fields.status == status.REASONS[reason].grpc
        found.append((request_id, reason, fields.status))
    return found


def test_a_request_leaves_under_a_number_of_its_own_and_is_else_unchanged(
    session: ClientSession,
) -> None:
    head = request(budget_ms=700)
    assert [session.submit(head, [b"a"], 0), session.submit(head, [b"b"], 0)] == [1, 2]
    first, second = session.outbox
    assert heads.unpack(bytes(first[0])) == heads.unpack(head)._replace(request_id=1)
    assert heads.unpack(bytes(second[0])) == heads.unpack(head)._replace(request_id=2)
    assert (first[1:], second[1:]) == ([b"a"], [b"b"])


def test_a_message_of_several_replies_ends_several_requests_in_any_order(
    session: ClientSession,
) -> None:
    for body in (b"a", b"b", b"c"):
        session.submit(request(), [body], 0)
    session.receive([reply(3), b"C", reply(1), b"A"], 1)
    assert session.completed == [
        Completion(3, reply(3), [b"C"]),
        Completion(1, reply(1), [b"A"]),
    ]
    assert session.outstanding_count == 1


def test_a_second_reply_is_dropped_and_counted(session: ClientSession) -> None:
    session.submit(request(), [b"a"], 0)
    session.receive([reply(1), b"A"], 1)
    session.receive([reply(1), b"A"], 2)
    session.receive([reply(99), b"?"], 2)
    assert len(session.completed) == 1
    assert session.replies_late == 2


def test_a_cancelled_request_ends_with_nothing_and_the_broker_is_told(
    session: ClientSession,
) -> None:
    session.submit(request(), [b"a"], 0)
    session.outbox.clear()
    session.cancel(1)
    session.cancel(1)
    assert session.outbox == [[heads.pack(heads.Head(heads.CANCEL, request_id=1))]]
    session.receive([reply(1), b"A"], 1)
    assert session.completed == []
    assert session.replies_late == 1


def test_a_request_that_waits_for_a_connection_is_cancelled_without_a_word() -> None:
    session = ClientSession(SETTINGS)
    session.submit(request(), [b"a"], 0)
    session.submit(request(), [b"b"], 0)
    session.cancel(1)
    session.connected(0)
    assert [message[1] for message in session.outbox] == [b"b"]
    session.check_invariants()


def test_what_was_sent_fails_at_once_when_the_broker_is_lost(session: ClientSession) -> None:
    session.submit(request(), [b"a"], 0)
    session.submit(request(), [b"b"], 0)
    session.broker_lost()
    assert reasons(session.completed) == [
        (1, "broker_lost", status.UNAVAILABLE),
        (2, "broker_lost", status.UNAVAILABLE),
    ]
    assert session.outbox == []
    assert session.next_timer_ns() is None


def test_a_request_made_without_a_connection_waits_for_the_next_one(
    session: ClientSession,
) -> None:
    session.broker_lost()
    session.submit(request(), [b"a"], 0)
    session.submit(request(), [b"b"], 0)
    assert session.outbox == []
    session.connected(0)
    assert [message[1] for message in session.outbox] == [b"a", b"b"]
    session.handle_timer(SETTINGS.patience_ms * NS_PER_MS + BUCKET_NS)
    assert session.completed == []


def test_the_budget_of_a_request_goes_on_running_while_it_waits_for_a_connection() -> None:
    session = ClientSession(SETTINGS)
    session.submit(request(budget_ms=500), [b"a"], 0)
    session.connected(200 * 1_000_000)
    assert heads.unpack(bytes(session.outbox[0][0])).budget_ms == 300
    session.check_invariants()


def test_patience_without_a_connection_ends_with_broker_lost() -> None:
    session = ClientSession(SETTINGS)
    session.submit(request(), [b"a"], 0)
    patience_ns = SETTINGS.patience_ms * NS_PER_MS
    next_ns = session.next_timer_ns()
    assert next_ns is not None
    assert patience_ns <= next_ns <= patience_ns + BUCKET_NS
    session.handle_timer(patience_ns - 1)
    assert session.completed == []
    session.handle_timer(next_ns)
    assert reasons(session.completed) == [(1, "broker_lost", status.UNAVAILABLE)]
    session.connected(0)
    assert session.outbox == []
    session.check_invariants()


def test_a_budget_shorter_than_the_patience_ends_the_wait_for_a_connection() -> None:
    session = ClientSession(SETTINGS)
    session.submit(request(), [b"a"], 0)
    session.submit(request(budget_ms=20), [b"b"], 0)
    next_ns = session.next_timer_ns()
    assert next_ns is not None
    assert next_ns <= 20 * NS_PER_MS + BUCKET_NS
    session.handle_timer(next_ns)
    assert reasons(session.completed) == [(2, "broker_lost", status.UNAVAILABLE)]
    session.check_invariants()


@pytest.mark.parametrize(("budget_ms", "overdue_ms"), [(0, 1_100), (250, 350)])
def test_a_broker_that_never_answers_is_given_up_after_budget_and_slack(
    session: ClientSession, budget_ms: int, overdue_ms: int
) -> None:
    session.submit(request(budget_ms), [b"a"], 5)
    session.handle_timer(overdue_ms * NS_PER_MS)
    assert session.completed == []
    next_ns = session.next_timer_ns()
    assert next_ns is not None
    assert 0 <= next_ns - (overdue_ms * NS_PER_MS + 5) <= BUCKET_NS
    session.handle_timer(next_ns)
    assert reasons(session.completed) == [(1, "deadline_exceeded", status.DEADLINE_EXCEEDED)]
    assert session.next_timer_ns() is None
    session.receive([reply(1), b"A"], next_ns + 1)
    assert session.replies_late == 1


def test_requests_that_ended_leave_no_timer_behind(session: ClientSession) -> None:
    for now_ns in range(0, 100 * BUCKET_NS, BUCKET_NS):
        request_id = session.submit(request(), [b"a"], now_ns)
        session.receive([reply(request_id), b"A"], now_ns)
    assert session.next_timer_ns() is None
    assert (session._buckets, session._bucket_heap) == ({}, [])


def test_one_request_above_the_limit_is_refused_at_once(session: ClientSession) -> None:
    for _ in range(3):
        session.submit(request(), [b"a"], 0)
    assert session.completed == []
    assert session.submit(request(), [b"a"], 0) == 4
    ((_, head, frames),) = session.completed
    assert heads.unpack(head).status == status.RESOURCE_EXHAUSTED
    error = native.decode_failure(frames)
    assert error.reason == "queue_full"
    assert error.message == "enqueued requests count exceeds the limit 3"
    assert len(session.outbox) == 3


def test_statistics_are_answered_under_their_request_id(session: ClientSession) -> None:
    request_id = session.submit(heads.pack(heads.Head(heads.STATS)), [], 0)
    session.receive([reply(request_id, heads.STATS), b"{}"], 1)
    assert session.completed == [Completion(1, reply(1, heads.STATS), [b"{}"])]


def test_a_broker_that_disconnects_ends_what_was_sent(session: ClientSession) -> None:
    session.submit(request(), [b"a"], 0)
    session.receive([heads.pack(heads.Head(heads.DISCONNECT, body_frames=1)), b"\x80"], 1)
    assert reasons(session.completed) == [(1, "broker_lost", status.UNAVAILABLE)]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b""],
        [b"GET / HTTP/1.1"],
        [reply(1)],
        [heads.pack(heads.Head(heads.WELCOME))],
        [b"MS\x07\x04" + reply(1)[4:], b"A"],
    ],
)
def test_messages_that_break_the_protocol_are_counted_and_change_nothing(
    session: ClientSession, parts: list[bytes]
) -> None:
    session.submit(request(), [b"a"], 0)
    session.receive(parts, 1)
    assert session.completed == []
    assert session.outstanding_count == 1
    assert session.messages_malformed == (1 if parts else 0)


def test_a_heartbeat_is_welcome_at_any_time(session: ClientSession) -> None:
    session.receive([heads.pack(heads.Head(heads.HEARTBEAT))], 1)
    assert (session.completed, session.messages_malformed) == ([], 0)


def test_closing_fails_and_cancels_what_was_sent(session: ClientSession) -> None:
    session.submit(request(), [b"a"], 0)
    session.submit(request(), [b"b"], 0)
    session.close("closed")
    assert [reason for _, reason, _ in reasons(session.completed)] == ["broker_lost"] * 2
    (message,) = session.outbox
    assert [heads.unpack(bytes(head)) for head in message] == [
        heads.Head(heads.CANCEL, request_id=1),
        heads.Head(heads.CANCEL, request_id=2),
    ]
    assert session.outstanding_count == 0
    session.close("closed again")
    assert session.outbox == [message], "the last words are still to be sent"


def test_closing_without_a_connection_fails_what_waits_and_sends_nothing() -> None:
    session = ClientSession(SETTINGS)
    session.submit(request(), [b"a"], 0)
    session.close("closed")
    assert reasons(session.completed) == [(1, "broker_lost", status.UNAVAILABLE)]
    assert session.outbox == []
    session.check_invariants()


def test_a_session_that_holds_sends_nothing_more_and_still_takes_replies(
    session: ClientSession,
) -> None:
    sent = session.submit(request(), [b"a"], 0)
    session.outbox.clear()
    session.hold()
    waiting = session.submit(request(), [b"b"], 0)
    assert session.outbox == []
    session.receive([reply(sent), b"x"], 1)
    assert [done.request_id for done in session.completed] == [sent]
    session.broker_lost()
    session.connected(0)
    assert [heads.unpack(bytes(m[0])).request_id for m in session.outbox] == [waiting]


def test_what_is_held_waits_longer_than_without_a_connection_but_not_beyond_its_budget() -> None:
    session = ClientSession(replace(SETTINGS, drain_patience_ms=600))
    session.connected(0)
    session.hold()
    session.submit(request(budget_ms=5_000), [b"a"], 0)
    session.submit(request(budget_ms=300), [b"b"], 0)
    session.handle_timer(300 * NS_PER_MS + BUCKET_NS)
    assert [done[0] for done in reasons(session.completed)] == [2]
    session.handle_timer(600 * NS_PER_MS + BUCKET_NS)
    assert [done[0] for done in reasons(session.completed)] == [2, 1]
    session.check_invariants()


def test_the_story_tells_what_was_not_routine(session: ClientSession) -> None:
    session.submit(request(), [b"a"], 0)
    session.broker_lost()
    session.connected(0)
    assert session.story() == [("connected", 0), ("broker_lost", 1, 0), ("connected", 0)]
