"""Clients that are told when the broker drains."""

from __future__ import annotations

from broker.core import Core
from protocol import head as heads
from protocol import limits
from tests.broker.helpers import broker_with_worker, request

WATCH = [heads.pack(heads.Head(heads.DRAIN))]


def told(core: Core) -> list[tuple[object, str]]:
    """Take the client outbox: (client, command) of every message."""
    to_clients, _ = core.outbox.take()
    return [(client, heads.COMMANDS[parts[0][3]]) for client, parts in to_clients]


def test_who_asked_is_told_once_when_the_broker_drains() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", WATCH, 0)
    core.receive_from_client(b"d", request(1), 0)
    assert told(core) == [(b"c", "HEARTBEAT")]
    core.drain()
    core.drain()
    assert told(core) == [(b"c", "DRAIN")]


def test_who_asks_a_broker_that_drains_is_told_at_once() -> None:
    core = broker_with_worker()
    core.drain()
    core.receive_from_client(b"c", WATCH, 0)
    assert told(core) == [(b"c", "DRAIN")]


def test_who_is_gone_is_not_told() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", WATCH, 0)
    core.outbox.take()
    core.client_lost(b"c", 0)
    core.drain()
    assert told(core) == []


def test_only_so_many_are_remembered_and_who_asks_again_is_the_last() -> None:
    core = broker_with_worker()
    for number in range(limits.WATCHERS_MAX):
        core.receive_from_client(b"%d" % number, WATCH, 0)
    core.receive_from_client(b"0", WATCH, 0)
    core.receive_from_client(b"new", WATCH, 0)
    core.outbox.take()
    core.drain()
    clients = [client for client, _ in told(core)]
    assert len(clients) == limits.WATCHERS_MAX
    assert clients[0] == b"2"
    assert clients[-2:] == [b"0", b"new"]
