"""Idempotency keys: asked again under its key, a request is not executed again."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from broker import mdp_door
from broker.core import Core
from protocol import head as heads
from protocol import limits, native
from tests.broker.helpers import (
    MS,
    answers,
    broker_with_worker,
    cancel,
    dispatched,
    ready,
    reply,
    request,
)

SECOND = 1_000 * MS


def keyed(number: int, key: bytes = b"k", **options: Any) -> list[bytes]:
    """A request parcel with a key behind its body."""
    options["flags"] = options.get("flags", 0) | heads.FLAG_KEYED
    head, body = request(number, **options)
    at = heads.BODY_FRAMES_OFFSET
    return [head[:at] + b"\2" + head[at + 1 :], body, key]


def answer_all(core: Core, body: bytes = b"answer", status: int = 0, now_ns: int = 0) -> int:
    """Answer what has been dispatched; returns how much it was."""
    seen = dispatched(core)
    for routing_id, ticket, _ in seen:
        core.receive_from_worker(routing_id, reply(ticket, body, status), now_ns)
    core.check_invariants()
    return len(seen)


def test_the_worker_gets_the_request_without_its_key() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", [*keyed(1), *request(2)], 0)
    (parts,) = core.outbox.take()[1].values()
    head = heads.unpack(parts[0])
    assert (head.flags, head.body_frames, parts[1:]) == (0, 1, [b"body"])
    assert core.load()[0] == 2


@pytest.mark.shows("R15")
def test_an_answer_is_given_again_while_it_is_remembered() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", keyed(1), 0)
    assert answer_all(core) == 1
    core.outbox.take()
    core.receive_from_client(b"other", keyed(7), 59 * SECOND)
    assert answers(core) == [(b"other", 7, b"answer")]
    counters = core.counters
    assert (counters.accepted, core.book.answered(), counters.replayed) == (1, 1, 1)
    core.receive_from_client(b"c", keyed(2), 60 * SECOND)
    assert answer_all(core, now_ns=60 * SECOND) == 1
    core.check_invariants()


@pytest.mark.parametrize("is_waiting", [False, True])
def test_who_asks_last_gets_the_answer_and_who_asked_before_is_told(is_waiting: bool) -> None:
    core = broker_with_worker()
    if is_waiting:
        core.receive_from_client(b"x", request(9), 0)
    core.receive_from_client(b"c", keyed(1, budget_ms=100), 0)
    core.receive_from_client(b"d", keyed(1, budget_ms=5_000), 50 * MS)
    assert answer_to(core, b"c") == [(1, "cancelled")]
    core.check_invariants()
    core.handle_timer(1_000 * MS)
    for _ in range(2 if is_waiting else 1):
        assert answer_all(core) == 1
    assert answer_to(core, b"d") == [(1, b"answer")]
    counters = core.counters
    expected = 3 if is_waiting else 2
    assert (counters.accepted, counters.cancelled) == (expected, 1)
    assert core.load() == (0, 0)


def answer_to(core: Core, client: bytes) -> list[tuple[int, Any]]:
    """Take the replies of one client; those of others stay."""
    mine = [each for each in core.outbox.to_clients if each[0] == client]
    core.outbox.to_clients = [each for each in core.outbox.to_clients if each[0] != client]
    spare = Core(core.settings)
    spare.outbox.to_clients = mine
    return [(number, content) for _, number, content in answers(spare)]


def test_its_place_in_line_is_kept_when_it_is_asked_for_again_with_another_priority() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"x", request(9), 0)
    core.receive_from_client(b"c", keyed(1, body=b"one", flags=heads.FLAG_LOW), 0)
    core.receive_from_client(b"c", request(2, body=b"two"), 0)
    core.receive_from_client(b"d", keyed(1, body=b"one", flags=heads.FLAG_HIGH), 0)
    core.check_invariants()
    order = []
    for _ in range(3):
        ((_, ticket, body),) = dispatched(core)
        order.append(body)
        core.receive_from_worker(b"w1", reply(ticket), 0)
    assert order == [b"body", b"two", b"one"]


@pytest.mark.shows("R15")
def test_it_stays_when_its_client_leaves_and_is_found_again() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", keyed(1), 0)
    core.client_lost(b"c", 0)
    assert core.load()[0] == 1
    core.receive_from_client(b"again", keyed(1), 0)
    assert answer_all(core) == 1
    assert answer_to(core, b"again") == [(1, b"answer")]
    core.client_lost(b"again", 0)
    core.receive_from_client(b"once more", keyed(1), 0)
    assert answers(core) == [(b"once more", 1, b"answer")]


def test_the_same_number_twice_is_the_same_request() -> None:
    core = broker_with_worker()
    for _ in range(2):
        core.receive_from_client(b"c", keyed(1), 0)
    assert core.counters.duplicates == 1
    assert answer_all(core) == 1
    assert answers(core) == [(b"c", 1, b"answer")]


@pytest.mark.parametrize("end", ["failed", "deadline", "cancelled"])
def test_what_was_not_answered_well_is_executed_again(end: str) -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", keyed(1, budget_ms=10), 0)
    if end == "cancelled":
        core.receive_from_client(b"c", cancel(1), 0)
    if end == "deadline":
        core.handle_timer(SECOND)
    assert answer_all(core, native.pack_meta({"reason": "failed"}), 13) == 1
    core.receive_from_client(b"c", keyed(2), 0)
    assert answer_all(core) == 1
    assert answer_to(core, b"c")[-1] == (2, b"answer")


def test_a_key_of_another_request_is_refused() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", keyed(1), 0)
    others = [keyed(2, body=b"longer"), keyed(3, method=b"n"), keyed(4, service=b"add/0")]
    for _ in range(2):
        for parts in others:
            core.receive_from_client(b"c", parts, 0)
        expected = [(b"c", number, "malformed") for number in (2, 3, 4)]
        assert answers(core)[-3:] == expected
        core.receive_from_worker(b"w1", reply(1), 0)
    core.check_invariants()


def test_a_key_that_is_none_is_refused_with_the_limit() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", keyed(1, key=b""), 0)
    core.receive_from_client(b"c", keyed(2, key=bytes(limits.KEY_BYTES_MAX + 1)), 0)
    head = heads.pack(
        heads.Head(heads.REQUEST, heads.FLAG_KEYED, request_id=3, service=b"add/1", method=b"m")
    )
    core.receive_from_client(b"c", [head], 0)
    texts = [native.decode_failure(parts[1:]).message for _, parts in core.outbox.take()[0]]
    sizes = [0, 65, 0]
    assert texts == [f"a key of {size} B is not of 1 to key_bytes_max 64 B" for size in sizes]
    core.receive_from_client(b"c", keyed(4, flags=heads.FLAGS_PRIORITY), 0)
    assert answers(core) == [(b"c", 4, "malformed")]


def test_a_key_whose_request_is_refused_stands_for_nothing() -> None:
    core = broker_with_worker(requests_max=1)
    core.receive_from_client(b"c", request(1), 0)
    core.receive_from_client(b"c", keyed(2), 0)
    core.receive_from_client(b"c", keyed(2, service=b"other/1"), 0)
    assert answers(core) == [(b"c", 2, "queue_full"), (b"c", 2, "unknown_service")]
    assert not core.keys.requests
    core.receive_from_worker(b"w1", reply(1), 0)
    core.receive_from_client(b"c", keyed(2), 0)
    assert answer_all(core) == 1


@pytest.mark.pure
def test_the_memory_of_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWERS_BYTES_MAX", 10_000)
    core = broker_with_worker()
    for number in range(30):
        core.receive_from_client(b"c", keyed(number, key=b"%d" % number), 0)
        answer_all(core, bytes(500))
        assert core.keys.answer_bytes <= 10_000
    assert 5 < len(core.keys.answers) < 20
    assert list(core.keys.answers)[-1] == b"29"
    core.receive_from_client(b"c", keyed(99, key=b"large"), 0)
    answer_all(core, bytes(10_000))
    assert b"large" not in core.keys.answers
    core.check_invariants()


def test_a_worker_that_dies_changes_nothing_of_it() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", keyed(1), 0)
    core.worker_lost(core.registration.workers[b"w1"], 0, "it died")
    core.outbox.take()
    core.receive_from_client(b"d", keyed(1), 0)
    core.check_invariants()
    core.receive_from_worker(b"w2", ready("slot2"), 0)
    assert answer_all(core) == 1
    assert answer_to(core, b"d") == [(1, b"answer")]
    assert not core.keys.running


def test_a_client_of_mdp_names_its_key_in_the_map() -> None:
    core = broker_with_worker()
    body = msgpack.packb({"method": "m", "key": "request-1", "instances": [{}]})
    for number, address in enumerate(((b"r1", b""), (b"r2", b""))):
        options = {"method": "m", "key": "request-1", "id": 1_000 * number, "instances": [{}]}
        parts = [b"MDPC01", b"add", msgpack.packb(options)]
        mdp_door.receive(core, address, parts, 0)
    assert core.counters.cancelled == 1
    assert core.outbox.to_clients[0][0].address[0] == b"r1"  # type: ignore[attr-defined]
    meta = native.pack_meta({"instances": [{}]})
    assert answer_all(core, meta) == 1
    mdp_door.receive(core, (b"r3", b""), [b"MDPC01", b"add", body], 0)
    to_clients, _ = core.outbox.take()
    addresses = [caller.address[0] for caller, _ in to_clients]  # type: ignore[attr-defined]
    assert addresses == [b"r2", b"r3"]
    assert core.counters.replayed == 1
