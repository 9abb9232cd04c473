"""The core's rules, one test each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.admission import Settings
from broker.core import Core
from protocol import control
from protocol import head as heads
from protocol.native import decode_failure, unpack_meta
from tests.broker.helpers import (
    MS,
    answers,
    broker_with_worker,
    cancel,
    controls,
    dispatched,
    ready,
    reply,
    request,
)


@pytest.fixture
def core() -> Iterator[Core]:
    """One worker `w1` with credit 1; invariants are checked at the end of every test."""
    core = broker_with_worker()
    yield core
    core.check_invariants()


def test_request_goes_to_the_worker_under_a_ticket_and_its_reply_under_the_clients_id(
    core: Core,
) -> None:
    core.receive_from_client(b"c", request(7), 0)
    assert dispatched(core) == [(b"w1", 1, b"body")]
    core.receive_from_worker(b"w1", reply(1), 1 * MS)
    assert answers(core) == [(b"c", 7, b"answer")]
    assert core.load() == (0, 0)


def test_the_head_towards_the_worker_carries_what_is_left_of_the_budget() -> None:
    core = broker_with_worker(credit=1)
    core.receive_from_client(b"c", request(1, budget_ms=100), 0)
    core.receive_from_client(b"c", request(2, budget_ms=100), 0)
    core.outbox.take()
    core.receive_from_worker(b"w1", reply(1), 30 * MS)
    (parts,) = core.outbox.take()[1].values()
    assert heads.unpack(parts[0]).budget_ms == 70


def test_without_credit_requests_wait_and_leave_in_their_order(core: Core) -> None:
    for number in (1, 2, 3):
        core.receive_from_client(b"c", request(number, body=b"%d" % number), 0)
    assert dispatched(core) == [(b"w1", 1, b"1")]
    core.receive_from_worker(b"w1", reply(1), 0)
    assert dispatched(core) == [(b"w1", 2, b"2")]
    core.receive_from_worker(b"w1", reply(2), 0)
    assert dispatched(core) == [(b"w1", 3, b"3")]
    core.receive_from_worker(b"w1", reply(3), 0)


def test_the_least_loaded_worker_is_next() -> None:
    core = broker_with_worker(credit=4)
    core.receive_from_worker(b"w2", ready("slot2", credit=4), 0)
    for number in range(4):
        core.receive_from_client(b"c", request(number), 0)
    by_ticket = {ticket: worker for worker, ticket, _ in dispatched(core)}
    assert by_ticket == {1: b"w1", 2: b"w2", 3: b"w1", 4: b"w2"}
    core.receive_from_worker(b"w2", reply(2) + reply(4), 0)
    core.receive_from_client(b"c", request(9), 0)
    assert [worker for worker, _, _ in dispatched(core)] == [b"w2"]
    core.check_invariants()


def test_what_is_ready_for_one_worker_leaves_as_one_message() -> None:
    core = broker_with_worker(credit=3)
    core.receive_from_client(b"c", request(1) + request(2) + request(3), 0)
    assert len(core.outbox.to_workers) == 1
    assert len(dispatched(core)) == 3


def test_replies_share_a_message_only_for_clients_that_asked_for_it() -> None:
    core = broker_with_worker(credit=4)
    for number in (1, 2):
        core.receive_from_client(b"plain", request(number), 0)
        core.receive_from_client(b"dense", request(number, flags=heads.FLAG_COALESCE), 0)
    core.receive_from_worker(b"w1", reply(1) + reply(2) + reply(3) + reply(4), 0)
    messages = [(client, len(parts)) for client, parts in core.outbox.to_clients]
    assert messages == [(b"plain", 2), (b"dense", 4), (b"plain", 2)]


def test_unknown_service_is_refused_by_name(core: Core) -> None:
    core.receive_from_client(b"c", request(1, service=b"sub/1"), 0)
    ((_, parts),) = core.outbox.take()[0]
    assert decode_failure(parts[1:]).message == "service sub/1 is not available"


@pytest.mark.shows("R11")
def test_at_requests_max_a_request_is_refused_with_the_limits_value() -> None:
    core = broker_with_worker(requests_max=2)
    for number in (1, 2, 3):
        core.receive_from_client(b"c", request(number), 0)
    ((_, parts),) = core.outbox.take()[0]
    error = decode_failure(parts[1:])
    assert error.reason == "queue_full"
    assert error.message == "enqueued requests count exceeds the limit 2"
    core.check_invariants()


@pytest.mark.shows("R11")
def test_body_and_byte_limits_refuse_and_name_the_limit() -> None:
    core = broker_with_worker(body_bytes_max=10, request_bytes_max=15)
    core.receive_from_client(b"c", request(1, body=b"x" * 11), 0)
    core.receive_from_client(b"c", request(2, body=b"x" * 10), 0)
    core.receive_from_client(b"c", request(3, body=b"x" * 6), 0)
    assert answers(core) == [(b"c", 1, "body_too_large"), (b"c", 3, "queue_bytes_full")]
    assert core.load() == (1, 10)
    core.check_invariants()


@pytest.mark.shows("F23", "R10")
def test_deadline_answers_a_waiting_request_while_the_worker_is_busy(core: Core) -> None:
    core.receive_from_client(b"c", request(1), 0)
    core.receive_from_client(b"c", request(2, budget_ms=50), 0)
    assert (core.next_timer_ns() or 0) == 55 * MS
    core.handle_timer(49 * MS)
    assert answers(core) == []
    core.handle_timer(55 * MS)
    assert answers(core) == [(b"c", 2, "deadline_exceeded")]


@pytest.mark.shows("F23")
def test_late_reply_after_deadline_is_dropped_and_token_returns(core: Core) -> None:
    core.receive_from_client(b"c", request(1, budget_ms=10), 0)
    core.handle_timer(20 * MS)
    assert answers(core) == [(b"c", 1, "deadline_exceeded")]
    core.check_invariants()
    core.receive_from_client(b"c", request(2), 21 * MS)
    assert dispatched(core) == []
    core.receive_from_worker(b"w1", reply(1), 30 * MS)
    assert core.counters.replies_late == 1
    ((_, ticket, _),) = dispatched(core)
    assert ticket == 2


@pytest.mark.shows("F24")
def test_cancel_takes_a_waiting_request_out_and_drops_a_running_ones_reply(core: Core) -> None:
    core.receive_from_client(b"c", request(1) + request(2), 0)
    core.receive_from_client(b"c", cancel(2) + cancel(1), 0)
    assert core.load() == (0, 0)
    core.receive_from_worker(b"w1", reply(1), 0)
    assert answers(core) == []
    assert core.counters.cancelled == 2


def lost(worker_id: str = "slot1", started: tuple[int, ...] | None = None) -> list[bytes]:
    return control.pack(control.Lost(worker_id, 1, "killed by signal 9", started))


def broker_that_lost_a_worker(started: tuple[int, ...] | None) -> Core:
    """`w1` died with requests 1 and 2 in its hands (tickets 1 and 2), 3 waited, `w2` is idle."""
    core = broker_with_worker(credit=2)
    for number in (1, 2, 3):
        core.receive_from_client(b"c", request(number, body=b"%d" % number), 0)
    core.outbox.take()
    core.receive_from_worker(b"s", lost(started=started), 0)
    core.receive_from_worker(b"w2", ready("slot2", credit=4), 0)
    core.check_invariants()
    return core


@pytest.mark.shows("F1")
def test_what_a_lost_worker_had_not_started_goes_first_to_the_next_one_in_its_order() -> None:
    core = broker_that_lost_a_worker(started=())
    assert [body for _, _, body in dispatched(core)] == [b"1", b"2", b"3"]
    core.check_invariants()


def test_what_had_not_started_was_no_attempt_and_is_not_said_to_be_redelivered() -> None:
    core = broker_that_lost_a_worker(started=())
    parcels = heads.split_parcels(core.outbox.take()[1][b"w2"])
    requests = [head for head, _ in parcels if head[3] == heads.REQUEST]
    assert not any(heads.unpack(head).flags & heads.FLAG_REDELIVERED for head in requests)


def test_what_kills_before_it_is_started_is_a_suspect_in_the_end() -> None:
    core = broker_that_lost_a_worker(started=())
    core.outbox.take()
    core.receive_from_worker(b"s", lost("slot2", started=()), 0)
    core.receive_from_worker(b"w3", ready("slot3", credit=4), 0)
    assert [body for _, _, body in dispatched(core)] == [b"1", b"2", b"3"]
    core.receive_from_worker(b"s", lost("slot3", started=()), 0)
    core.receive_from_worker(b"w4", ready("slot4", credit=4), 0)
    assert [body for _, _, body in dispatched(core)] == [b"1"], "alone"
    core.check_invariants()
    core.receive_from_worker(b"s", lost("slot4", started=()), 0)
    assert (b"c", 1, "worker_lost") in answers(core)
    core.check_invariants()


def test_a_suspect_whose_second_worker_dies_before_it_starts_stays_a_suspect() -> None:
    core = broker_that_lost_a_worker(started=(1, 2))
    core.outbox.take()
    core.receive_from_worker(b"s", lost("slot2", started=()), 0)
    core.receive_from_worker(b"w3", ready("slot3", credit=9), 0)
    assert [body for _, _, body in dispatched(core)] == [b"1"], "alone again"
    core.check_invariants()


def test_suspects_do_not_wait_for_a_kept_worker_whose_connection_is_gone() -> None:
    core = broker_that_lost_a_worker(started=(1, 2))
    core.receive_from_worker(b"w3", ready("slot3", credit=4), 0)
    core.outbox.take()
    core.worker_unreachable(core.registration.workers[b"w2"], 0)
    core.check_invariants()


@pytest.mark.shows("F5", "R29")
@pytest.mark.parametrize("started", [(1, 2), None])
def test_suspects_are_computed_one_by_one_by_a_worker_that_holds_nothing_else(
    started: tuple[int, ...] | None,
) -> None:
    core = broker_that_lost_a_worker(started)
    assert dispatched(core) == [(b"w2", 3, b"1")]
    core.receive_from_worker(b"w2", reply(3), 0)
    assert dispatched(core) == [(b"w2", 4, b"2")]
    core.check_invariants()
    core.receive_from_worker(b"w2", reply(4), 0)
    assert dispatched(core) == [(b"w2", 5, b"3")]
    core.check_invariants()


def test_a_busy_worker_is_kept_until_it_is_idle_and_the_others_go_on() -> None:
    core = broker_with_worker(credit=1)
    core.receive_from_worker(b"w2", ready("slot2", credit=2), 0)
    core.receive_from_worker(b"w3", ready("slot3", credit=2), 0)
    for number in range(1, 6):
        core.receive_from_client(b"c", request(number, body=b"%d" % number), 0)
    by_worker: dict[bytes, list[tuple[int, bytes]]] = {}
    for worker, ticket, body in dispatched(core):
        by_worker.setdefault(worker, []).append((ticket, body))
    core.receive_from_worker(b"s", lost(started=(by_worker[b"w1"][0][0],)), 0)
    core.receive_from_client(b"c", request(6, body=b"6"), 0)
    assert dispatched(core) == []
    first, second = by_worker[b"w2"], by_worker[b"w3"]
    core.receive_from_worker(b"w2", reply(first[0][0]), 0)
    core.check_invariants()
    assert dispatched(core) == [], "w2 is kept, and has something to do yet"
    core.receive_from_worker(b"w3", reply(second[0][0]), 0)
    assert [(worker, body) for worker, _, body in dispatched(core)] == [(b"w3", b"6")]
    core.receive_from_worker(b"w2", reply(first[1][0]), 0)
    assert [(worker, body) for worker, _, body in dispatched(core)] == [
        (b"w2", by_worker[b"w1"][0][1])
    ]
    core.check_invariants()


def test_the_second_death_ends_the_suspect_and_nobody_else() -> None:
    core = broker_that_lost_a_worker(started=(1,))
    assert dispatched(core) == [(b"w2", 3, b"1")]
    core.receive_from_worker(b"s", lost("slot2", started=(3,)), 0)
    assert answers(core) == [(b"c", 1, "worker_lost")]
    core.receive_from_worker(b"w3", ready("slot3", credit=4), 0)
    assert [body for _, _, body in dispatched(core)] == [b"2", b"3"]
    core.check_invariants()


def broker_that_met_poison() -> Core:
    """Request 1 killed two workers at 0 ms; `w3` is there now."""
    core = broker_that_lost_a_worker(started=(1,))
    core.receive_from_worker(b"s", lost("slot2", started=(3,)), 0)
    core.receive_from_worker(b"w3", ready("slot3", credit=9), 0)
    core.outbox.take()
    return core


@pytest.mark.shows("F5", "R29")
@pytest.mark.parametrize("service", [b"add/1", b"add/0"])
def test_the_same_bytes_are_refused_for_a_while_and_others_are_not(service: bytes) -> None:
    core = broker_that_met_poison()
    core.receive_from_client(b"d", request(8, body=b"1", service=service), 1_000 * MS)
    to_clients, _ = core.outbox.take()
    ((client, (_, body)),) = to_clients
    assert (client, decode_failure([body]).reason) == (b"d", "poison_suspected")
    assert decode_failure([body]).message == (
        "the same request killed 2 workers of add/1 lately; it is refused for 59000 ms more"
    )
    core.receive_from_client(b"d", request(9, body=b"11"), 1_000 * MS)
    core.receive_from_client(b"d", request(10, body=b"1", method=b"n"), 1_000 * MS)
    assert [body for _, _, body in dispatched(core)] == [b"11", b"1"]


@pytest.mark.shows("R29")
def test_who_was_killed_by_order_leaves_no_suspects_and_no_poison() -> None:
    core = broker_with_worker(credit=4)
    core.receive_from_worker(b"w2", ready("slot2", credit=4), 0)
    for number in (1, 2, 3, 4):
        core.receive_from_client(b"c", request(number), 0)
    tickets = {worker: ticket for worker, ticket, _ in dispatched(core)}
    for slot, worker in (("slot1", b"w1"), ("slot2", b"w2")):
        started = tuple(core.registration.workers[worker].in_flight)
        lost = control.Lost(slot, 1, "killed by order", started, is_blameless=True)
        core.receive_from_worker(b"s", control.pack(lost), 0)
        core.check_invariants()
        assert core.registration.services[b"add/1"].lanes[0].suspects.count == 0
    assert len(tickets) == 2
    assert [reason for _, _, reason in answers(core)] == ["worker_lost"] * 2, "twice is twice"
    core.receive_from_client(b"c", request(9), 0)
    assert answers(core) == [], "nothing is in quarantine"
    core.check_invariants()


def test_who_may_have_killed_once_is_no_poison() -> None:
    core = broker_with_worker(credit=2)
    core.receive_from_client(b"c", request(1, body=b"1"), 0)
    by_order = control.Lost("slot1", 1, "killed by order", (1,), is_blameless=True)
    core.receive_from_worker(b"s", control.pack(by_order), 0)
    core.receive_from_worker(b"w2", ready("slot2", credit=2), 0)
    core.receive_from_client(b"c", request(2, body=b"2"), 0)
    worker = core.registration.workers[b"w2"]
    assert list(worker.in_flight) == [2, 3], "it is not alone, for it is no suspect"
    core.receive_from_worker(b"s", lost("slot2", started=(2, 3)), 0)
    assert answers(core) == [(b"c", 1, "worker_lost")]
    core.receive_from_worker(b"w3", ready("slot3", credit=2), 0)
    core.receive_from_client(b"d", request(3, body=b"1"), 0)
    assert answers(core) == [], "what killed slot2 may have been the other one"
    core.check_invariants()


def test_a_worker_may_be_kept_while_it_tries_again_what_an_order_ended() -> None:
    core = broker_with_worker(credit=1)
    core.receive_from_client(b"c", request(1), 0)
    by_order = control.Lost("slot1", 1, "killed by order", (1,), is_blameless=True)
    core.receive_from_worker(b"s", control.pack(by_order), 0)
    core.receive_from_worker(b"w2", ready("slot2", credit=3), 0)
    core.receive_from_client(b"c", request(2), 0)
    core.receive_from_worker(b"w3", ready("slot3"), 0)
    core.receive_from_client(b"c", request(3), 0)
    core.receive_from_worker(b"s", lost("slot3", started=(4,)), 0)
    core.check_invariants()
    assert core.registration.workers[b"w2"].is_kept, "for request 3, which is a suspect"


def test_a_quarantine_ends(core: Core) -> None:
    core = broker_that_met_poison()
    core.receive_from_client(b"d", request(8, body=b"1"), 59_999 * MS)
    assert answers(core) == [(b"d", 8, "poison_suspected")]
    core.receive_from_client(b"d", request(9, body=b"1"), 60_000 * MS)
    assert [body for _, _, body in dispatched(core)] == [b"1"]


def test_a_request_that_survived_its_second_attempt_is_not_suspected() -> None:
    core = broker_that_lost_a_worker(started=(1,))
    core.outbox.take()
    core.receive_from_worker(b"w2", reply(3), 0)
    core.outbox.take()
    core.receive_from_client(b"d", request(8, body=b"1"), 0)
    assert [body for _, _, body in dispatched(core)] == [b"1"]


def test_a_kept_worker_that_drains_leaves_the_suspects_to_another() -> None:
    core = broker_that_lost_a_worker(started=(1, 2))
    core.outbox.take()
    core.receive_from_worker(b"w3", ready("slot3", credit=4), 0)
    assert dispatched(core) == [(b"w3", 4, b"3")]
    core.receive_from_worker(b"w2", control.pack(control.Drain()), 0)
    assert dispatched(core) == []
    core.receive_from_worker(b"w3", reply(4), 0)
    assert dispatched(core) == [(b"w3", 5, b"2")]
    core.check_invariants()


def test_a_worker_that_is_kept_for_suspects_who_all_left_is_free_again() -> None:
    core = broker_that_lost_a_worker(started=(1, 2))
    core.outbox.take()
    core.receive_from_client(b"c", cancel(1), 0)
    core.receive_from_client(b"c", cancel(2), 0)
    core.check_invariants()
    core.receive_from_worker(b"w2", reply(3), 0)
    assert dispatched(core) == [(b"w2", 4, b"3")]
    core.check_invariants()


def test_a_worker_whose_connection_is_gone_is_lost_after_a_grace_unless_it_is_said_sooner() -> None:
    core = broker_with_worker(credit=2)
    core.receive_from_client(b"c", request(1), 0)
    core.outbox.take()
    (worker,) = core.registration.workers.values()
    core.worker_unreachable(worker, 10 * MS)
    core.check_invariants()
    core.receive_from_client(b"c", request(2), 20 * MS)
    assert dispatched(core) == []
    assert core.next_timer_ns() == 510 * MS
    core.handle_timer(509 * MS)
    assert core.counters.workers_lost == 0
    core.handle_timer(510 * MS)
    assert core.counters.workers_lost == 1
    core.receive_from_worker(b"w2", ready("slot2", credit=4), 511 * MS)
    assert [body for _, _, body in dispatched(core)] == [b"body"], "the suspect, alone"
    core.check_invariants()


def test_a_redelivered_request_says_so_in_its_flags() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", request(1), 0)
    core.outbox.take()
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "gone")), 0)
    core.receive_from_worker(b"w2", ready("slot1", generation=2), 0)
    parcels = heads.split_parcels(core.outbox.take()[1][b"w2"])
    flags = [heads.unpack(head).flags for head, _ in parcels if head[3] == heads.REQUEST]
    assert flags == [heads.FLAG_REDELIVERED]


def test_a_request_fails_when_its_second_worker_is_lost_too(core: Core) -> None:
    core.receive_from_client(b"c", request(1), 0)
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "signal 9")), 0)
    core.receive_from_worker(b"w2", ready("slot1", generation=2), 0)
    core.outbox.take()
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 2, "signal 11")), 0)
    ((client, parts),) = core.outbox.take()[0]
    error = decode_failure(parts[1:])
    assert (client, error.reason) == (b"c", "worker_lost")
    assert "attempts_max 2" in error.message
    assert "signal 11" in error.message


def test_lost_of_an_older_incarnation_does_not_touch_the_newer_one() -> None:
    core = broker_with_worker()
    core.receive_from_worker(b"w2", ready("slot1", generation=2), 0)
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "late news")), 0)
    assert list(core.registration.workers) == [b"w2"]
    core.check_invariants()


@pytest.mark.shows("F14", "R20", "F2")
def test_a_newer_generation_replaces_and_an_older_one_is_disconnected() -> None:
    core = broker_with_worker()
    core.receive_from_worker(b"w2", ready("slot1", generation=3), 0)
    assert controls(core) == [(b"w1", "DISCONNECT"), (b"w2", "WELCOME")]
    core.receive_from_worker(b"w3", ready("slot1", generation=2), 0)
    assert controls(core) == [(b"w3", "DISCONNECT")]
    core.check_invariants()


@pytest.mark.shows("F2", "F11")
def test_a_reply_of_a_worker_that_was_given_up_is_counted_and_goes_nowhere() -> None:
    core = broker_with_worker()
    core.receive_from_client(b"c", request(1), 0)
    assert [worker for worker, _, _ in dispatched(core)] == [b"w1"]
    core.receive_from_worker(b"w2", ready("slot2"), 0)
    core.worker_lost(core.registration.workers[b"w1"], 0, "silent")
    assert [worker for worker, _, _ in dispatched(core)] == [b"w2"]
    core.receive_from_worker(b"w1", reply(1), 0)
    assert controls(core) == [(b"w1", "DISCONNECT")]
    assert core.counters.replies_stale == 1
    core.receive_from_worker(b"w2", reply(2), 0)
    assert answers(core) == [(b"c", 1, b"answer")]
    core.check_invariants()


def test_a_draining_worker_gets_nothing_more_and_still_answers(core: Core) -> None:
    core.receive_from_client(b"c", request(1), 0)
    core.outbox.take()
    core.receive_from_worker(b"w1", control.pack(control.Drain()), 0)
    assert controls(core) == [(b"w1", "DRAIN")]
    core.receive_from_client(b"c", request(2), 0)
    core.receive_from_worker(b"w1", reply(1), 0)
    to_clients, to_workers = core.outbox.take()
    assert [client for client, _ in to_clients] == [b"c"]
    assert to_workers == {}
    core.receive_from_worker(b"w1", control.pack(control.Disconnect("drained")), 0)
    core.receive_from_worker(b"w2", ready("slot1", generation=2), 0)
    assert [worker for worker, _, _ in dispatched(core)] == [b"w2"]


@pytest.mark.shows("F22")
def test_requests_of_a_service_without_workers_wait_then_fail_after_the_grace() -> None:
    core = broker_with_worker(service_grace_ms=100)
    core.receive_from_worker(b"w1", control.pack(control.Disconnect("bye")), 0)
    core.receive_from_client(b"c", request(1), 50 * MS)
    core.handle_timer(99 * MS)
    assert answers(core) == []
    core.handle_timer(100 * MS)
    assert answers(core) == [(b"c", 1, "no_worker")]
    core.receive_from_client(b"c", request(2), 101 * MS)
    assert answers(core) == [(b"c", 2, "no_worker")]
    core.check_invariants()


def test_requests_of_an_expected_service_wait_for_its_first_worker() -> None:
    core = Core(Settings(service_grace_ms=100))
    core.registration.expect(b"add/2", 0)
    core.receive_from_client(b"c", request(1, service=b"add/2") + request(2, service=b"add/0"), 0)
    core.handle_timer(99 * MS)
    assert answers(core) == []
    core.receive_from_worker(b"w1", ready("slot1", service="add/2", credit=2), 99 * MS)
    assert [ticket for _, ticket, _ in dispatched(core)] == [1, 2]
    core.handle_timer(200 * MS)
    assert answers(core) == []
    core.check_invariants()


def test_an_expected_service_is_given_up_after_the_grace() -> None:
    core = Core(Settings(service_grace_ms=100))
    core.registration.expect(b"add/2", 0)
    core.receive_from_client(b"c", request(1, service=b"add/0"), 0)
    core.handle_timer(100 * MS)
    assert answers(core) == [(b"c", 1, "no_worker")]
    core.receive_from_client(b"c", request(2, service=b"add/0"), 101 * MS)
    assert answers(core) == [(b"c", 2, "no_worker")]
    core.check_invariants()


def test_a_retired_service_is_given_up_at_once_and_comes_back_with_a_worker() -> None:
    core = broker_with_worker()
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "signal 9")), 0)
    core.receive_from_client(b"c", request(1) + request(2, service=b"add/0"), 0)
    core.receive_from_worker(b"s", control.pack(control.Retire("add/1", "slot1 is FAILED")), 0)
    core.handle_timer(0)
    assert answers(core) == [(b"c", 1, "no_worker"), (b"c", 2, "no_worker")]
    core.receive_from_client(b"c", request(3, service=b"add/0"), 1)
    ((_, parts),) = core.outbox.take()[0]
    assert decode_failure(parts[1:]).message == (
        "service add/1 has no worker and gets none: slot1 is FAILED"
    )
    core.receive_from_worker(b"w2", ready("slot1", generation=2), 2)
    core.receive_from_client(b"c", request(4, service=b"add/0"), 2)
    assert [worker for worker, _, _ in dispatched(core)] == [b"w2"]
    core.check_invariants()


def test_a_service_retired_while_its_worker_leaves_is_given_up_when_it_has_left(core: Core) -> None:
    core.receive_from_client(b"c", request(1) + request(2), 0)
    core.receive_from_worker(b"s", control.pack(control.Retire("add/1", "signed off")), 0)
    core.receive_from_worker(b"w1", reply(1), 0)
    core.receive_from_worker(b"w1", control.pack(control.Disconnect("drained")), 1)
    core.handle_timer(1)
    assert answers(core)[-1] == (b"c", 2, "no_worker")


def test_a_silent_worker_is_expired_and_a_heard_one_is_not() -> None:
    core = broker_with_worker(heartbeat_interval_ms=100, heartbeat_liveness=3)
    core.receive_from_worker(b"w2", ready("slot2"), 0)
    core.outbox.take()
    for now_ms in (100, 200, 300):
        core.receive_from_worker(b"w2", control.pack(control.Heartbeat()), now_ms * MS)
        core.handle_timer(now_ms * MS)
    assert list(core.registration.workers) == [b"w2"]
    assert (b"w1", "DISCONNECT") in controls(core)
    core.check_invariants()


def test_a_heartbeat_of_an_unknown_worker_is_answered_with_disconnect(core: Core) -> None:
    core.receive_from_worker(b"stranger", control.pack(control.Heartbeat()), 0)
    assert controls(core) == [(b"stranger", "DISCONNECT")]


def test_version_zero_is_the_highest_version_that_takes_work() -> None:
    core = broker_with_worker(credit=2)
    core.receive_from_worker(b"w2", ready("slot2", service="add/2", credit=2), 0)
    core.outbox.take()
    core.receive_from_client(b"c", request(1, service=b"add/0"), 0)
    core.receive_from_client(b"c", request(2, service=b"add/1"), 0)
    assert [worker for worker, _, _ in dispatched(core)] == [b"w2", b"w1"]
    core.receive_from_worker(b"w2", control.pack(control.Drain()), 0)
    core.outbox.take()
    core.receive_from_client(b"c", request(3, service=b"add/0"), 0)
    assert [worker for worker, _, _ in dispatched(core)] == [b"w1"]
    core.check_invariants()


@pytest.mark.shows("F13", "R15")
def test_a_duplicate_of_an_outstanding_request_is_executed_once(core: Core) -> None:
    core.receive_from_client(b"c", request(1) + request(1), 0)
    assert len(dispatched(core)) == 1
    core.receive_from_worker(b"w1", reply(1), 0)
    assert answers(core) == [(b"c", 1, b"answer")]


def test_a_duplicate_is_not_refused_at_a_limit_that_its_original_has_passed() -> None:
    core = broker_with_worker(requests_max=1)
    core.receive_from_client(b"c", request(1) + request(1), 0)
    core.receive_from_worker(b"w1", reply(1), 0)
    assert answers(core) == [(b"c", 1, b"answer")]


def test_a_client_that_left_takes_its_requests_with_it(core: Core) -> None:
    core.receive_from_client(b"c", request(1) + request(2), 0)
    core.client_lost(b"c", 0)
    assert core.load() == (0, 0)
    core.receive_from_worker(b"w1", reply(1), 0)
    assert answers(core) == []


def test_a_draining_broker_refuses_new_requests_and_finishes_the_old(core: Core) -> None:
    core.receive_from_client(b"c", request(1), 0)
    core.drain()
    core.receive_from_client(b"c", request(2), 0)
    core.receive_from_worker(b"w1", reply(1), 0)
    assert answers(core) == [(b"c", 2, "draining"), (b"c", 1, b"answer")]


def test_a_broker_that_goes_tells_its_workers() -> None:
    core = broker_with_worker()
    core.receive_from_worker(b"w2", ready("slot2"), 0)
    core.outbox.take()
    core.registration.say_goodbye()
    assert controls(core) == [(b"w1", "DISCONNECT"), (b"w2", "DISCONNECT")]


def test_rubbish_is_counted_and_answered_where_an_id_can_be_read(core: Core) -> None:
    core.receive_from_client(b"c", [b"GET / HTTP/1.1"], 0)
    core.receive_from_client(b"c", [b""], 0)
    core.receive_from_worker(b"w9", [b"\xff" * 100], 0)
    assert core.counters.malformed == 3
    truncated = request(5)[:1]
    core.receive_from_client(b"c", truncated, 0)
    newer = bytearray(request(6)[0])
    newer[2] = 9
    core.receive_from_client(b"c", [bytes(newer), b"body"], 0)
    assert answers(core) == [(b"c", 5, "malformed"), (b"c", 6, "unsupported")]


def test_flag_bits_that_nobody_knows_are_ignored(core: Core) -> None:
    core.receive_from_client(b"c", request(1, flags=0xFF80), 0)
    core.receive_from_worker(b"w1", reply(1), 0)
    assert answers(core) == [(b"c", 1, b"answer")]


def test_a_head_longer_than_any_can_be_is_refused_and_holds_no_memory(core: Core) -> None:
    head, body = request(1)
    core.receive_from_client(b"c", [head + bytes(heads.HEAD_BYTES_MAX), body], 0)
    assert answers(core) == [(b"c", 1, "malformed")]
    assert core.load() == (0, 0)


@pytest.mark.shows("F15")
@pytest.mark.parametrize(
    "broken",
    [
        [b"no head at all"],
        reply(1)[:1],
        [reply(1)[0] + bytes(heads.HEAD_BYTES_MAX), b"answer"],
        [heads.pack(heads.Head(heads.HEARTBEAT, body_frames=1)), b"no map"],
    ],
)
def test_a_worker_that_breaks_the_protocol_is_given_up_and_its_requests_go_to_others(
    core: Core, broken: list[bytes]
) -> None:
    core.receive_from_client(b"c", request(1), 0)
    core.receive_from_worker(b"w2", ready("slot2"), 0)
    core.outbox.take()
    core.receive_from_worker(b"w1", broken, 0)
    core.check_invariants()
    assert [worker for worker, _, _ in dispatched(core)] == [b"w2"]
    assert list(core.registration.workers) == [b"w2"]
    assert core.counters.malformed == 1


def test_a_connection_is_one_worker_whatever_it_says(core: Core) -> None:
    core.receive_from_client(b"c", request(1), 0)
    core.receive_from_worker(b"w1", ready("slot2"), 0)
    core.check_invariants()
    assert [worker.worker_id for worker in core.registration.workers.values()] == ["slot2"]
    for slot in ("slot1", "slot2"):
        core.receive_from_worker(b"s", control.pack(control.Lost(slot, 9, "killed")), 0)
    core.check_invariants()
    assert core.registration.workers == {}
    assert answers(core) == [(b"c", 1, "worker_lost")]


def test_a_disconnect_of_a_stranger_is_not_answered_with_another(core: Core) -> None:
    core.receive_from_worker(b"w9", control.pack(control.Disconnect("bye")), 0)
    assert controls(core) == []


def test_stats_tell_services_workers_and_totals(core: Core) -> None:
    core.receive_from_client(b"c", request(1) + request(2), 0)
    core.receive_from_client(b"cli", [heads.pack(heads.Head(heads.STATS, request_id=4))], 0)
    ((client, parts),) = core.outbox.take()[0]
    stats = unpack_meta(parts[1])
    assert client == b"cli"
    assert heads.unpack(parts[0]).request_id == 4
    assert stats["services"][0]["service"] == "add/1"
    assert (stats["services"][0]["queued"], stats["requests"]) == (1, 2)
    assert (stats["workers"][0]["worker_id"], stats["workers"][0]["in_flight"]) == ("slot1", 1)


def test_a_probe_is_answered_to_its_sender(core: Core) -> None:
    core.receive_from_client(b"c", [heads.pack(heads.Head(heads.HEARTBEAT, request_id=3))], 0)
    ((client, parts),) = core.outbox.take()[0]
    assert client == b"c"
    assert heads.unpack(parts[0])[:1] == (heads.HEARTBEAT,)


@pytest.mark.shows("R19")
def test_an_idle_broker_has_no_timer_and_keeps_nothing() -> None:
    core = Core(Settings())
    assert core.next_timer_ns() is None
    core.receive_from_client(b"c", request(1), 0)
    core.check_invariants()
    assert core.load() == (0, 0)
