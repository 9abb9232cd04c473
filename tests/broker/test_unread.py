"""Bytes of replies that clients have not read."""

from __future__ import annotations

from broker.unread import UnreadReplies


class Departure:
    """A message that leaves when the test says so."""

    def __init__(self) -> None:
        self.done = False


def test_a_client_has_room_until_its_unread_bytes_reach_the_limit() -> None:
    unread = UnreadReplies(100)
    first, second = Departure(), Departure()
    unread.add("a", 60, first)
    assert unread.has_room("a", 40)
    assert not unread.has_room("a", 41)
    assert unread.has_room("b", 100)
    unread.add("a", 40, second)
    assert not unread.has_room("a", 1)
    first.done = True
    assert unread.has_room("a", 60)
    assert unread.bytes_of("a") == 40


def test_one_message_over_the_limit_is_sent_to_who_has_read_everything() -> None:
    unread = UnreadReplies(100)
    assert unread.has_room("a", 1_000)
    huge = Departure()
    unread.add("a", 1_000, huge)
    assert not unread.has_room("a", 1)
    huge.done = True
    assert unread.has_room("a", 1_000)


def test_messages_leave_in_their_order() -> None:
    unread = UnreadReplies(100)
    first, second = Departure(), Departure()
    unread.add("a", 60, first)
    unread.add("a", 40, second)
    second.done = True
    assert not unread.has_room("a", 1)


def test_nothing_is_remembered_of_clients_that_have_read_everything() -> None:
    unread = UnreadReplies(100)
    departures = [Departure() for _ in range(3)]
    for client, departure in zip("aab", departures, strict=True):
        unread.add(client, 10, departure)
    assert len(unread) == 2
    for departure in departures:
        departure.done = True
    unread.settle()
    assert len(unread) == 0
    assert unread.bytes_of("a") == 0
