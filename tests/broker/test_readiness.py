"""Whether a service is ready, while its workers answer, hang, compile, drain and die."""

from __future__ import annotations

import pytest

from broker.core import Core
from broker.readiness import why_not_ready
from protocol import control, native
from protocol import head as heads
from tests.broker.helpers import MS, broker_with_worker, cancel, ready, reply, request

READY_MS = 5_000


def why(core: Core, now_ms: int) -> str | None:
    service = core.registration.services[b"add/1"]
    return why_not_ready(service, now_ms * MS, READY_MS)


def beat(core: Core, now_ms: int, **progress: int) -> None:
    heartbeat = control.pack(control.Heartbeat(**progress))
    core.receive_from_worker(b"w1", heartbeat, now_ms * MS)


def send(core: Core, number: int, now_ms: int) -> None:
    core.receive_from_client(b"c", request(number), now_ms * MS)


def test_an_idle_worker_that_beats_is_ready_for_as_long_as_it_does() -> None:
    core = broker_with_worker()
    for now_ms in range(0, 60_000, 1_000):
        beat(core, now_ms)
        assert why(core, now_ms) is None
    assert why(core, 64_000) == (
        "no worker of add/1 makes progress: slot1 has been silent for 5000 ms"
    )


@pytest.mark.shows("R5")
def test_a_worker_that_beats_and_answers_nothing_is_not_ready() -> None:
    core = broker_with_worker(credit=4)
    send(core, 1, 10_000)
    beat(core, 14_999)
    assert why(core, 14_999) is None, "it has had the request for less than that"
    beat(core, 15_000)
    assert why(core, 15_000) == (
        "no worker of add/1 makes progress: slot1 holds 1 requests and has answered none for "
        "5000 ms"
    )
    core.receive_from_worker(b"w1", reply(1), 15_001 * MS)
    assert why(core, 15_001) is None


def test_a_worker_that_answers_again_and_again_is_ready_though_it_is_never_idle() -> None:
    core = broker_with_worker(credit=2)
    send(core, 1, 0)
    for number in range(2, 30):
        send(core, number, number * 1_000)
        core.receive_from_worker(b"w1", reply(number - 1), number * 1_000 * MS)
        assert why(core, number * 1_000) is None


def test_requests_that_nobody_waits_for_do_not_hide_that_nothing_moves() -> None:
    core = broker_with_worker()
    send(core, 1, 0)
    core.receive_from_client(b"c", cancel(1), 0)
    beat(core, 5_000)
    assert "has answered none" in str(why(core, 5_000))


def test_a_worker_that_compiles_has_the_time_that_it_asked_for() -> None:
    core = broker_with_worker()
    send(core, 1, 0)
    beat(core, 1_000, busy_ms=1_000, patience_ms=30_000)
    for now_ms in (6_000, 30_000, 35_000):
        beat(core, now_ms, busy_ms=now_ms, patience_ms=31_000 - now_ms if now_ms < 31_000 else 0)
        if now_ms < 31_000:
            assert why(core, now_ms) is None
    assert "has answered none" in str(why(core, 35_000))


@pytest.mark.shows("R5")
def test_one_worker_that_moves_is_enough() -> None:
    core = broker_with_worker()
    core.receive_from_worker(b"w2", ready("slot2"), 0)
    send(core, 1, 0)
    for worker in (b"w1", b"w2"):
        core.receive_from_worker(worker, control.pack(control.Heartbeat()), 9_000 * MS)
    assert why(core, 9_000) is None


def test_a_service_whose_workers_drain_or_are_gone_is_not_ready() -> None:
    core = broker_with_worker()
    core.receive_from_worker(b"w1", control.pack(control.Drain()), 0)
    assert why(core, 1) == "every worker of add/1 drains"
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "x", ())), 0)
    assert why(core, 1) == "add/1 has no worker"


def test_an_extra_worker_alone_makes_nothing_ready() -> None:
    core = broker_with_worker()
    core.receive_from_worker(b"e1", ready("extra0", is_extra=True), 0)
    core.receive_from_worker(b"s", control.pack(control.Lost("slot1", 1, "x", ())), 0)
    assert why(core, 1) == "add/1 has no worker"


def test_the_stats_tell_what_waits_how_long_and_why_nothing_moves() -> None:
    core = broker_with_worker()
    send(core, 1, 0)
    send(core, 2, 1_000)
    core.receive_from_client(b"p", [heads.pack(heads.Head(heads.STATS))], 7_000 * MS)
    ((_, (_, body)),) = core.outbox.take()[0]

    (service,) = native.unpack_meta(body)["services"]
    assert (service["queued"], service["waiting_ms"]) == (1, 6_000)
    assert "silent for 7000 ms" in service["not_ready"]
    assert native.unpack_meta(body)["servables"] == [
        {"servable": "add", "version": 1, "labels": {}, "shares": []}
    ]
