"""The order in which a server goes down."""

from workers.supervisor.stop_policy import (
    BROKER,
    CLOSE_DOORS,
    DONE,
    DRAIN_BROKER,
    DRAIN_EXTRA_WORKERS,
    DRAIN_WORKERS,
    GATEWAY,
    KILL,
    LEAVE,
    WORKER,
    ChildPresence,
    doors_grace_ms,
    next_rung,
)

OPEN = ChildPresence(GATEWAY, is_serving=True)
CLOSED = ChildPresence(GATEWAY)
DEVICE = ChildPresence(WORKER)
EXTRA = ChildPresence(WORKER, needs_devices=True)
SWITCH = ChildPresence(BROKER)


def test_doors_close_first_then_workers_drain_then_the_rest_leaves() -> None:
    assert next_rung([OPEN, DEVICE], 0, 100) == CLOSE_DOORS
    assert next_rung([CLOSED, DEVICE], 0, 100) == DRAIN_WORKERS
    assert next_rung([CLOSED], 0, 100) == LEAVE
    assert next_rung([], 0, 100) == DONE


def test_extra_workers_drain_before_the_device_workers_that_compute_their_models() -> None:
    assert next_rung([OPEN, DEVICE, EXTRA], 0, 100) == CLOSE_DOORS
    assert next_rung([CLOSED, DEVICE, EXTRA], 0, 100) == DRAIN_EXTRA_WORKERS
    assert next_rung([CLOSED, DEVICE], 0, 100) == DRAIN_WORKERS


def test_a_broker_finishes_what_it_holds_while_the_workers_are_there() -> None:
    assert next_rung([SWITCH, OPEN, DEVICE, EXTRA], 0, 100) == CLOSE_DOORS
    assert next_rung([SWITCH, CLOSED, DEVICE, EXTRA], 0, 100) == DRAIN_BROKER
    assert next_rung([SWITCH, DEVICE], 0, 100) == DRAIN_BROKER
    assert next_rung([CLOSED, DEVICE], 0, 100) == DRAIN_WORKERS
    assert next_rung([SWITCH, DEVICE], 100, 100) == KILL


def test_workers_drain_when_the_gateway_died() -> None:
    assert next_rung([DEVICE], 0, 100) == DRAIN_WORKERS


def test_whoever_is_there_at_the_deadline_is_killed() -> None:
    assert next_rung([OPEN, DEVICE], 99, 100) == CLOSE_DOORS
    assert next_rung([OPEN, DEVICE], 100, 100) == KILL
    assert next_rung([], 100, 100) == DONE


def test_one_door_that_is_still_open_holds_the_workers_back() -> None:
    assert next_rung([CLOSED, OPEN, DEVICE], 0, 100) == CLOSE_DOORS


def test_the_doors_leave_some_of_the_grace_to_the_workers() -> None:
    assert doors_grace_ms(10_000) == 9_000
    assert doors_grace_ms(2_000) == 1_500
    assert doors_grace_ms(0) == 0
