"""The client session and requests without a reply."""

from __future__ import annotations

from protocol import head as heads
from protocol.client_session import ClientSession, ClientSettings
from protocol.native import decode_failure

MS = 1_000_000
HEAD = heads.pack(
    heads.Head(heads.REQUEST, heads.FLAG_ONE_WAY, body_frames=1, service=b"add/0", method=b"m")
)


def ended(session: ClientSession) -> list[tuple[int, str]]:
    completed, session.completed = session.completed, []
    session.check_invariants()
    return [
        (each.request_id, decode_failure(each.frames).reason if each.frames else "sent")
        for each in completed
    ]


def test_it_ends_when_it_is_given_to_the_connection() -> None:
    session = ClientSession(ClientSettings())
    session.connected(0)
    session.submit(HEAD, [b"1"], 0)
    assert ended(session) == [(1, "sent")]
    ((head, body),) = session.outbox
    assert (heads.unpack(bytes(head)).request_id, body) == (1, b"1")
    assert session.outstanding_count == 0
    assert session.next_timer_ns() is None


def test_without_a_connection_it_waits_and_then_fails_as_any_other() -> None:
    session = ClientSession(ClientSettings(patience_ms=100))
    session.submit(HEAD, [b"1"], 0)
    session.submit(HEAD, [b"2"], 50 * MS)
    session.handle_timer(130 * MS)
    assert ended(session) == [(1, "broker_lost")]
    session.connected(0)
    assert ended(session) == [(2, "sent")]
    assert len(session.outbox) == 1


def test_what_has_not_left_when_the_client_closes_leaves_as_its_last_words() -> None:
    session = ClientSession(ClientSettings())
    session.connected(0)
    plain = heads.pack(heads.unpack(HEAD)._replace(flags=0))
    session.submit(HEAD, [b"1"], 0)
    session.submit(plain, [b"2"], 0)
    session.close("the client ends")
    assert ended(session) == [(1, "sent"), (2, "broker_lost")]
    commands = [message[0][3] for message in session.outbox]
    assert commands == [heads.REQUEST, heads.CANCEL]
    assert session.has_one_way


def test_what_cannot_leave_is_bounded() -> None:
    session = ClientSession(ClientSettings(requests_max=2))
    session.connected(0)
    for _ in range(3):
        session.submit(HEAD, [b"1"], 0)
    assert ended(session) == [(1, "sent"), (2, "sent"), (3, "queue_full")]
