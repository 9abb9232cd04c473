"""Counts and times of requests by method."""

from __future__ import annotations

from typing import Any

from broker.core import Core
from broker.stats import describe
from protocol import head as heads
from tests.broker.helpers import MS, broker_with_worker, dispatched, ready, request


def counted(core: Core, now_ms: int = 0) -> dict[str, Any]:
    (service,) = describe(core, now_ms * MS)["services"]
    methods: dict[str, Any] = service["methods"]
    return methods


def answer(core: Core, now_ms: int, instances: int = 1, status: int = 0) -> None:
    """The worker answers the next request that it has."""
    (_, ticket, _), *_ = dispatched(core)
    head = heads.Head(
        heads.REPLY, status=status, request_id=ticket, instance_count=instances, body_frames=1
    )
    core.receive_from_worker(b"w1", [heads.pack(head), b"y"], now_ms * MS)


def test_a_method_that_nobody_asked_for_has_counts_of_zero() -> None:
    assert counted(broker_with_worker()) == {
        "m": {
            "success": 0, "success_ns": 0, "queue_ns": 0, "instances": 0, "fail": 0, "fail_ns": 0,
            "quiet_ms": 0,
        }
    }  # fmt: skip


def test_success_has_its_time_and_that_in_the_queue_and_its_instances() -> None:
    core = broker_with_worker(credit=1)
    core.receive_from_client(b"c", request(1), 0)
    core.receive_from_client(b"c", request(2), 0)
    answer(core, 10, instances=300)
    answer(core, 30)
    assert counted(core, 35)["m"] == {
        "success": 2,
        "success_ns": 40 * MS,
        "queue_ns": 10 * MS,
        "instances": 301,
        "fail": 0,
        "fail_ns": 0,
        "quiet_ms": 5,
    }


def test_failures_of_workers_and_of_the_broker_are_counted() -> None:
    core = broker_with_worker(credit=1)
    core.receive_from_client(b"c", request(1, budget_ms=1_000), 0)
    core.receive_from_client(b"c", request(2, budget_ms=20), 0)
    answer(core, 10, status=13)
    core.handle_timer(3_000 * MS)
    method = counted(core)["m"]
    assert (method["success"], method["fail"]) == (0, 2)
    assert method["fail_ns"] >= 30 * MS


def test_names_that_clients_make_up_are_not_counted_and_hidden_ones_not_shown() -> None:
    core = Core(broker_with_worker().settings)
    core.receive_from_worker(b"w1", ready("slot1", credit=4, methods=("m", "@call_x_0")), 0)
    core.outbox.take()
    for number, method in enumerate((b"@call_x_0", b"made up", b"\xff")):
        core.receive_from_client(b"c", request(number, method=method), 0)
        answer(core, 10)
    assert list(counted(core)) == ["m"]
    assert counted(core)["m"]["success"] == 0
