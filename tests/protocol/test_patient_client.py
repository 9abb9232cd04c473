"""A patient client loses nothing with a broker that drains: it asks to be told beforehand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from protocol import head as heads
from protocol import native
from protocol.client_session import NS_PER_MS, ClientSession, ClientSettings

SETTINGS = ClientSettings(
    is_patient=True, budget_ms_default=10_000, patience_ms=200, drain_patience_ms=600
)
BUCKET_NS = 1 << 24
AGREED = [heads.pack(heads.Head(heads.HEARTBEAT))]
DRAINS = [heads.pack(heads.Head(heads.DRAIN))]
REQUEST = heads.pack(heads.Head(heads.REQUEST, body_frames=1, service=b"add/1", method=b"m"))


@pytest.fixture
def session() -> Iterator[ClientSession]:
    """There is a connection, and the broker has not answered yet."""
    session = ClientSession(SETTINGS)
    session.connected(0)
    assert sent(session) == ["DRAIN"]
    yield session
    session.check_invariants()


def sent(session: ClientSession) -> list[str]:
    """Take the outbox: the command of each message."""
    commands = [heads.COMMANDS[message[0][3]] for message in session.outbox]  # type: ignore[index]
    session.outbox.clear()
    return commands


def test_requests_wait_until_the_broker_has_agreed(session: ClientSession) -> None:
    session.submit(REQUEST, [b"a"], 0)
    assert sent(session) == []
    assert not session.is_connected
    session.receive(AGREED, 0)
    assert session.is_connected
    assert sent(session) == ["REQUEST"]
    session.submit(REQUEST, [b"b"], 0)
    assert sent(session) == ["REQUEST"]


def test_a_broker_that_drains_gets_nothing_and_the_next_one_everything(
    session: ClientSession,
) -> None:
    session.receive(AGREED, 0)
    session.receive(DRAINS, 0)
    session.submit(REQUEST, [b"a"], 0)
    session.receive(AGREED, 0)
    assert sent(session) == [], "a probe's echo does not make it agree"
    session.broker_lost()
    session.connected(0)
    assert sent(session) == ["DRAIN"]
    session.receive(AGREED, 0)
    assert sent(session) == ["REQUEST"]
    assert session.completed == []


def test_a_broker_that_drains_already_gets_nothing(session: ClientSession) -> None:
    session.receive(DRAINS, 0)
    number = session.submit(REQUEST, [b"a"], 0)
    assert sent(session) == []
    session.handle_timer(600 * NS_PER_MS)
    assert session.completed == []
    session.handle_timer(600 * NS_PER_MS + BUCKET_NS)
    ((ended, _, frames),) = session.completed
    assert (ended, native.decode_failure(frames).reason) == (number, "broker_lost")


def test_what_waits_for_the_answer_waits_longer_when_the_broker_drains(
    session: ClientSession,
) -> None:
    short = heads.pack(heads.unpack(REQUEST)._replace(budget_ms=300))
    numbers = [session.submit(head, [b"a"], 0) for head in (REQUEST, short)]
    session.receive(DRAINS, 0)
    session.handle_timer(300 * NS_PER_MS + BUCKET_NS)
    assert [ended.request_id for ended in session.completed] == numbers[1:], "its budget is over"
    session.handle_timer(600 * NS_PER_MS + BUCKET_NS)
    assert [ended.request_id for ended in session.completed] == [numbers[1], numbers[0]]


def test_a_connection_that_breaks_before_the_answer_loses_nothing(session: ClientSession) -> None:
    session.submit(REQUEST, [b"a"], 0)
    session.broker_lost()
    assert session.completed == []
    session.connected(0)
    session.connected(0)
    assert sent(session) == ["DRAIN"], "the shell may say it twice"
    session.receive(AGREED, 0)
    assert sent(session) == ["REQUEST"]


def test_who_is_not_patient_sends_at_once_and_is_refused() -> None:
    session = ClientSession(ClientSettings())
    session.connected(0)
    session.submit(REQUEST, [b"a"], 0)
    assert sent(session) == ["REQUEST"]
    session.receive(DRAINS, 0)
    assert session.is_connected
    session.check_invariants()
