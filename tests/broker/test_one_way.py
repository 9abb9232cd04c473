"""Requests without a reply: counted like all others, never answered, not lost with their client."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from broker import mdp_door
from broker.core import Core
from broker.stats import totals
from protocol import head as heads
from protocol import mdp
from tests.broker.helpers import broker_with_worker, cancel, dispatched, reply, request

ONE_WAY = heads.FLAG_ONE_WAY


def ask(core: Core, number: int, **options: Any) -> None:
    flags = options.pop("flags", 0) | ONE_WAY
    core.receive_from_client(b"c", request(number, flags=flags, **options), 0)


def books(core: Core) -> tuple[int, int, int, int, int]:
    core.check_invariants()
    counted = totals(core)
    accepted, answered, failed, cancelled, refused = (
        counted[name] for name in ("accepted", "answered", "failed", "cancelled", "refused")
    )
    assert accepted == answered + failed + cancelled + core.load()[0]
    return accepted, answered, failed, cancelled, refused


@pytest.mark.parametrize("flags", [0, heads.FLAG_COALESCE])
def test_whatever_becomes_of_it_there_is_no_reply_and_the_books_balance(flags: int) -> None:
    core = broker_with_worker(requests_max=3)
    for number in (1, 2, 3, 4):
        ask(core, number, flags=flags, budget_ms=10 if number == 3 else 0)
    ask(core, 5, service=b"other/1", flags=flags)
    ask(core, 6, flags=flags | heads.FLAGS_PRIORITY)
    ((_, ticket, _),) = dispatched(core)
    core.receive_from_worker(b"w1", reply(ticket), 0)
    ((_, ticket, _),) = dispatched(core)
    core.receive_from_worker(b"w1", reply(ticket, status=13), 0)
    core.handle_timer(1_000_000_000)
    assert not core.outbox.to_clients
    assert books(core) == (3, 1, 2, 0, 3)
    assert core.counters.reasons["deadline_exceeded"] == 1


def test_replies_to_others_of_the_same_client_are_not_touched() -> None:
    core = broker_with_worker(credit=3)
    ask(core, 1, flags=heads.FLAG_COALESCE)
    core.receive_from_client(b"c", request(2, flags=heads.FLAG_COALESCE), 0)
    tickets = [ticket for _, ticket, _ in dispatched(core)]
    for ticket in tickets:
        core.receive_from_worker(b"w1", reply(ticket), 0)
    ((client, parts),) = core.outbox.take()[0]
    assert client == b"c"
    assert [heads.unpack(head).request_id for head, _ in heads.split_parcels(parts)] == [2]


def test_its_client_may_leave_and_it_is_computed_all_the_same() -> None:
    core = broker_with_worker()
    ask(core, 1)
    ask(core, 2)
    core.receive_from_client(b"c", request(3), 0)
    core.client_lost(b"c", 0)
    assert core.load()[0] == 2
    for _ in range(2):
        ((_, ticket, _),) = dispatched(core)
        core.receive_from_worker(b"w1", reply(ticket), 0)
    assert books(core) == (3, 2, 0, 1, 0)
    assert core.load() == (0, 0)


def test_it_can_be_cancelled() -> None:
    core = broker_with_worker()
    for number in (1, 2):
        ask(core, number)
    core.receive_from_client(b"c", cancel(2), 0)
    assert books(core) == (2, 0, 0, 1, 0)


def test_an_mdp_client_asks_for_it_by_a_key() -> None:
    core = broker_with_worker()
    body = msgpack.packb({"method": "m", "one_way": True, "instances": [{}]})
    mdp_door.receive(core, (b"r", b""), [b"MDPC01", b"add", body], 0)
    ((_, ticket, _),) = dispatched(core)
    core.receive_from_worker(b"w1", reply(ticket), 0)
    assert not core.outbox
    assert books(core) == (1, 1, 0, 0, 0)
    assert "one_way" in mdp.OPTIONS
