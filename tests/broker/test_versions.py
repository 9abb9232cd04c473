"""Version 0 while a servable goes from one version to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from broker.core import Core
from protocol import control, native
from tests.broker.helpers import MS, answers, broker_with_worker, dispatched, ready, reply, request


@pytest.fixture
def core() -> Iterator[Core]:
    """`w1` serves version 1, `w2` version 2, with credit for all that comes."""
    core = broker_with_worker(credit=1_000)
    core.receive_from_worker(b"w2", ready("slot2", "add/2", credit=1_000), 0)
    core.outbox.take()
    yield core
    core.check_invariants()


def share(core: Core, *shares: tuple[int, int], **labels: int) -> None:
    message = control.Share("add", shares, tuple(labels.items()))
    core.receive_from_worker(b"s", control.pack(message), 0)


def send(core: Core, count: int, service: bytes = b"add/0", first: int = 1) -> Counter[bytes]:
    """Send requests; returns how many each worker got."""
    for number in range(first, first + count):
        core.receive_from_client(b"c", request(number, service=service), 0)
    return Counter(worker for worker, _, _ in dispatched(core))


def test_without_shares_version_0_is_the_highest(core: Core) -> None:
    assert send(core, 10) == {b"w2": 10}


def test_version_0_is_shared_in_proportion_to_the_weights(core: Core) -> None:
    share(core, (1, 9), (2, 1))
    assert send(core, 100) == {b"w1": 90, b"w2": 10}


def test_shares_are_spread_evenly(core: Core) -> None:
    share(core, (1, 3), (2, 1))
    order = [next(iter(send(core, 1, first=number))) for number in range(1, 9)]
    assert order.count(b"w2") == 2
    assert b"w2" in order[:4]
    assert b"w2" in order[4:]


def test_a_version_that_is_asked_for_is_what_a_client_gets(core: Core) -> None:
    share(core, (1, 1))
    assert send(core, 4, b"add/2") == {b"w2": 4}


def test_a_version_that_takes_no_work_has_no_share(core: Core) -> None:
    share(core, (1, 1), (2, 1), (3, 5))
    core.receive_from_worker(b"w2", control.pack(control.Drain()), 0)
    core.outbox.take()
    assert send(core, 4) == {b"w1": 4}


def test_shares_can_be_taken_back(core: Core) -> None:
    share(core, (1, 1))
    assert send(core, 2) == {b"w1": 2}
    share(core)
    assert send(core, 2, first=3) == {b"w2": 2}


def test_other_servables_are_not_touched_by_shares(core: Core) -> None:
    core.receive_from_worker(b"n1", ready("net", "net/1", credit=9), 0)
    core.outbox.take()
    share(core, (1, 1))
    assert send(core, 2, b"net/0") == {b"n1": 2}


def test_labels_are_the_versions_that_they_were_given(core: Core) -> None:
    share(core, (1, 9), (2, 1), stable=1, canary=2)
    assert send(core, 4, b"add/canary/0") == {b"w2": 4}
    assert send(core, 4, b"add/stable/0", first=5) == {b"w1": 4}


def test_a_label_that_was_given_to_no_version_is_version_0(core: Core) -> None:
    assert send(core, 2, b"add/canary/0") == {b"w2": 2}
    assert send(core, 2, b"add/stable/0", first=3) == {b"w2": 2}
    share(core, (1, 1))
    assert send(core, 2, b"add/stable/0", first=5) == {b"w1": 2}


def test_a_label_of_a_version_that_nobody_serves_yet_is_version_0(core: Core) -> None:
    share(core, stable=2, canary=3)
    assert send(core, 2, b"add/canary/0") == {b"w2": 2}


def test_labels_can_be_taken_back(core: Core) -> None:
    share(core, stable=1, canary=2)
    share(core)
    assert send(core, 2, b"add/stable/0") == {b"w2": 2}


@pytest.mark.parametrize(
    ("service", "text"),
    [
        (b"add/beta/0", "servable add has no label 'beta', only stable, canary"),
        (b"add/canary/1", "service add/canary/1 is not available"),
        (b"net/canary/0", "service net/canary/0 is not available"),
        (b"add/canary", "service add/canary is not available"),
    ],
)
def test_a_label_that_is_not_there_is_said_so(core: Core, service: bytes, text: str) -> None:
    core.receive_from_client(b"c", request(1, service=service), 0)
    ((_, _, frames),) = [(c, h, f) for c, [h, *f] in core.outbox.take()[0]]
    failure = native.decode_failure(frames)
    assert (failure.reason, failure.message) == ("unknown_service", text)


def test_what_waits_for_a_label_goes_to_the_version_that_gets_it() -> None:
    core = broker_with_worker(credit=1)
    core.receive_from_worker(b"w2", ready("slot2", "add/2", credit=9), 0)
    share(core, (1, 1), stable=1, canary=2)
    core.outbox.take()
    assert send(core, 3, b"add/stable/0") == {b"w1": 1}
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "x", ())), 0)
    assert dispatched(core) == [], "stable is version 1, whose worker may come again"
    share(core)
    assert Counter(worker for worker, _, _ in dispatched(core)) == {b"w2": 3}
    core.check_invariants()


def full_core() -> Core:
    """`w1` serves version 1 with room, `w2` version 2 is full; two requests of version 0 wait."""
    core = broker_with_worker(credit=9)
    core.receive_from_worker(b"w2", ready("slot2", "add/2", credit=1), 0)
    core.outbox.take()
    for number in (1, 2, 3):
        core.receive_from_client(b"c", request(number, body=b"%d" % number, service=b"add/0"), 0)
    core.receive_from_client(b"c", request(4, body=b"4", service=b"add/2"), 0)
    assert dispatched(core) == [(b"w2", 1, b"1")]
    return core


def test_what_waits_for_version_0_goes_to_the_other_version_when_one_takes_no_work() -> None:
    core = full_core()
    core.receive_from_worker(b"w2", control.pack(control.Drain()), 0)
    core.check_invariants()
    assert [(worker, body) for worker, _, body in dispatched(core)] == [
        (b"w1", b"2"),
        (b"w1", b"3"),
    ]
    core.receive_from_worker(b"w2", reply(1), 0)
    assert answers(core) == [(b"c", 1, b"answer")]


def test_a_version_that_dies_leaves_its_requests_of_version_0_to_the_other() -> None:
    core = full_core()
    core.receive_from_worker(b"s", control.pack(control.Lost("slot2", 1, "killed", (1,))), 0)
    core.check_invariants()
    assert [(worker, body) for worker, _, body in dispatched(core)] == [(b"w1", b"1")]
    core.receive_from_worker(b"w1", reply(2), 0)
    assert [body for _, _, body in dispatched(core)] == [b"2", b"3"]
    core.handle_timer(60_000 * MS)
    assert (b"c", 4, "no_worker") in answers(core), "whoever asked for version 2 gets no other one"
    core.check_invariants()


def test_what_waits_for_version_0_goes_to_a_version_that_comes_meanwhile() -> None:
    core = broker_with_worker(credit=1)
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "killed", ())), 0)
    core.receive_from_client(b"c", request(1, body=b"1", service=b"add/0"), 0)
    core.receive_from_client(b"c", request(2, body=b"2", service=b"add/1"), 0)
    core.outbox.take()
    core.receive_from_worker(b"w2", ready("slot2", "add/2", credit=9), 0)
    assert [(worker, body) for worker, _, body in dispatched(core)] == [(b"w2", b"1")]
    core.check_invariants()


def test_without_another_version_requests_wait_for_their_own() -> None:
    core = broker_with_worker(credit=1)
    for number in (1, 2):
        core.receive_from_client(b"c", request(number, body=b"%d" % number, service=b"add/0"), 0)
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "killed", ())), 0)
    core.outbox.take()
    core.receive_from_worker(b"w1", ready("slot1", generation=2, credit=2), 0)
    assert [body for _, _, body in dispatched(core)] == [b"1", b"2"]
    core.check_invariants()
