"""Extra workers in the core: what they are given, and what becomes of a service with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.core import Core
from protocol import control, limits
from tests.broker.helpers import (
    MS,
    answers,
    broker_with_worker,
    controls,
    dispatched,
    ready,
    reply,
    request,
)

#: What only a device worker runs.
CALL = b"@call_add.mindir_0"


@pytest.fixture
def core() -> Iterator[Core]:
    """A device worker `w1` and an extra worker `e1` that runs `m`, each with credit 1."""
    core = broker_with_worker(service_grace_ms=1_000)
    core.receive_from_worker(b"e1", extra("extra0"), 0)
    core.outbox.take()
    yield core
    core.check_invariants()


def extra(worker_id: str, methods: tuple[str, ...] = ("m",), generation: int = 1) -> list[bytes]:
    return ready(worker_id, methods=methods, is_extra=True, generation=generation)


def send(core: Core, number: int, method: bytes = b"m", service: bytes = b"add/1") -> None:
    core.receive_from_client(
        b"c", request(number, body=b"%d" % number, method=method, service=service), 0
    )


def test_a_method_that_an_extra_worker_offers_goes_to_either_worker(core: Core) -> None:
    send(core, 1)
    send(core, 2)
    assert {worker for worker, _, _ in dispatched(core)} == {b"w1", b"e1"}


def test_an_idle_device_worker_is_preferred_to_an_idle_extra_worker(core: Core) -> None:
    for number in range(1, 4):
        send(core, number)
        assert dispatched(core) == [(b"w1", number, b"%d" % number)]
        core.receive_from_worker(b"w1", reply(number), 0)


def test_a_method_that_no_extra_worker_offers_waits_for_the_device_worker(core: Core) -> None:
    send(core, 1, CALL)
    send(core, 2, CALL)
    assert dispatched(core) == [(b"w1", 1, b"1")]
    core.receive_from_worker(b"w1", reply(1), 0)
    assert dispatched(core) == [(b"w1", 2, b"2")]


def test_what_needs_a_device_is_not_held_up_by_what_waits_for_any_worker(core: Core) -> None:
    for number in (1, 2, 3):
        send(core, number)
    send(core, 4, CALL)
    tickets = {worker: ticket for worker, ticket, _ in dispatched(core)}
    core.receive_from_worker(b"w1", reply(tickets[b"w1"]), 0)
    assert dispatched(core) == [(b"w1", 3, b"4")]
    core.receive_from_worker(b"e1", reply(tickets[b"e1"]), 0)
    assert dispatched(core) == [(b"e1", 4, b"3")]


def test_version_0_is_routed_by_method_as_well(core: Core) -> None:
    send(core, 1, CALL, service=b"add/0")
    send(core, 2, CALL, service=b"add/0")
    assert dispatched(core) == [(b"w1", 1, b"1")]


def test_what_waited_before_the_first_extra_worker_came_is_sorted_out() -> None:
    core = broker_with_worker()
    send(core, 1)
    send(core, 2, CALL)
    send(core, 3)
    dispatched(core)
    core.receive_from_worker(b"e1", extra("extra0"), 0)
    core.check_invariants()
    assert dispatched(core) == [(b"e1", 2, b"3")]
    core.receive_from_worker(b"w1", reply(1), 0)
    assert dispatched(core) == [(b"w1", 3, b"2")]
    core.check_invariants()


def test_an_extra_worker_is_given_what_all_extra_workers_offer(core: Core) -> None:
    core.receive_from_worker(b"e2", extra("extra1", ("m", "n")), 0)
    core.outbox.take()
    send(core, 1, b"n")
    send(core, 2, b"n")
    assert dispatched(core) == [(b"w1", 1, b"1")]
    core.receive_from_worker(b"e3", extra("extra2", ("n",)), 0)
    core.outbox.take()
    send(core, 3, b"m")
    assert dispatched(core) == []
    core.receive_from_worker(b"w1", reply(1), 0)
    assert dispatched(core) == [(b"w1", 2, b"2")]


def test_requests_of_a_lost_extra_worker_are_dispatched_again(core: Core) -> None:
    send(core, 1)
    send(core, 2)
    tickets = {worker: (ticket, body) for worker, ticket, body in dispatched(core)}
    core.receive_from_worker(b"s", control.pack(control.Lost("extra0", 1, "killed")), 0)
    core.receive_from_worker(b"w1", reply(tickets[b"w1"][0]), 0)
    assert dispatched(core) == [(b"w1", 3, tickets[b"e1"][1])]


def test_a_suspect_waits_for_a_device_worker_beside_an_idle_extra_worker(core: Core) -> None:
    send(core, 1)
    ((first, ticket, _),) = dispatched(core)
    assert first == b"w1"
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "x", (ticket,))), 0)
    assert dispatched(core) == []
    send(core, 2)
    assert dispatched(core) == [(b"e1", 2, b"2")], "others go to the extra worker"
    core.receive_from_worker(b"w2", ready("slot1", generation=2), 0)
    assert dispatched(core) == [(b"w2", 3, b"1")]


def test_calls_of_a_lost_device_worker_wait_for_its_successor(core: Core) -> None:
    send(core, 1, CALL)
    dispatched(core)
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "killed")), 0)
    assert dispatched(core) == []
    core.receive_from_worker(b"w2", ready("slot1", generation=2), 500 * MS)
    assert dispatched(core) == [(b"w2", 2, b"1")]


def test_a_service_with_extra_workers_only_is_given_up_after_the_grace(core: Core) -> None:
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "killed")), 0)
    send(core, 1)
    send(core, 2, CALL)
    assert dispatched(core) == [(b"e1", 1, b"1")]
    core.handle_timer(999 * MS)
    assert answers(core) == []
    core.handle_timer(1_000 * MS)
    to_clients, to_workers = core.outbox.take()
    assert list(to_workers) == [b"e1"]
    assert len(to_clients) == 2
    send(core, 3)
    assert answers(core) == [(b"c", 3, "no_worker")]


def test_an_extra_worker_does_not_prolong_the_grace(core: Core) -> None:
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "killed")), 0)
    send(core, 1, CALL)
    core.receive_from_worker(b"s", control.pack(control.Lost("extra0", 1, "killed")), 900 * MS)
    core.receive_from_worker(b"e2", extra("extra0", generation=2), 950 * MS)
    core.handle_timer(1_000 * MS)
    assert answers(core) == [(b"c", 1, "no_worker")]


def test_a_retired_service_gives_its_calls_up_at_once(core: Core) -> None:
    send(core, 1, CALL)
    send(core, 2, CALL)
    core.receive_from_worker(b"s", control.pack(control.Retire("add/1", "slot FAILED")), 0)
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "killed")), 0)
    core.handle_timer(0)
    assert answers(core) == [(b"c", 1, "no_worker"), (b"c", 2, "no_worker")]


def test_version_0_falls_back_when_only_extra_workers_of_the_highest_are_left(core: Core) -> None:
    core.receive_from_worker(b"w2", ready("slot2", "add/2"), 0)
    core.receive_from_worker(b"e2", ready("extra2", "add/2", is_extra=True), 0)
    core.receive_from_worker(b"s", control.pack(control.Lost("slot2", 1, "killed")), 0)
    core.outbox.take()
    send(core, 1, CALL, service=b"add/0")
    assert dispatched(core) == [(b"w1", 1, b"1")]


def test_an_extra_worker_may_come_before_the_device_worker() -> None:
    core = broker_with_worker()
    core.receive_from_worker(b"e1", ready("extra0", "late/1", is_extra=True), 0)
    core.check_invariants()
    core.outbox.take()
    send(core, 1, CALL, service=b"late/1")
    assert dispatched(core) == []
    core.receive_from_worker(b"w2", ready("slot2", "late/1"), 0)
    assert dispatched(core) == [(b"w2", 1, b"1")]
    core.check_invariants()


def test_a_drained_extra_worker_gets_nothing_more(core: Core) -> None:
    core.receive_from_worker(b"e1", control.pack(control.Drain()), 0)
    assert controls(core) == [(b"e1", "DRAIN")]
    for number in (1, 2):
        send(core, number)
    assert dispatched(core) == [(b"w1", 1, b"1")]


def test_a_draining_broker_takes_the_calls_that_finish_what_it_accepted(core: Core) -> None:
    core.drain()
    send(core, 1)
    send(core, 2, CALL)
    assert answers(core) == [(b"c", 1, "draining")]
    core.receive_from_client(b"c", request(3, method=CALL), 0)
    core.receive_from_worker(b"w1", reply(1), 0)
    assert answers(core) == [(b"c", 2, b"answer")]


def test_a_full_broker_takes_calls_out_of_a_reserve_that_has_an_end() -> None:
    core = broker_with_worker(requests_max=2)
    for number in range(1, 4):
        send(core, number)
    assert answers(core) == [(b"c", 3, "queue_full")]
    for number in range(10, 10 + limits.CALLS_RESERVE):
        send(core, number, CALL)
    assert answers(core) == []
    send(core, 5_000, CALL)
    assert answers(core) == [(b"c", 5_000, "queue_full")]
    core.check_invariants()
