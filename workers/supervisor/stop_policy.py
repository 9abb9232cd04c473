"""The order in which a server goes down, as a pure function.

Doors first, so that nothing new comes in and what is in flight is answered; then a broker that is a
process of its own, which finishes what direct producers wait for and goes; then the workers, extra
workers before the device workers that compute their models; then gateways, one of which may have
the broker inside; and at the deadline whoever is left is killed. The rung follows from who is still
there, so it needs no memory.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

WORKER = "worker"
GATEWAY = "gateway"
BROKER = "broker"
KINDS = (BROKER, GATEWAY, WORKER)

CLOSE_DOORS = "CLOSE_DOORS"
DRAIN_BROKER = "DRAIN_BROKER"
DRAIN_EXTRA_WORKERS = "DRAIN_EXTRA_WORKERS"
DRAIN_WORKERS = "DRAIN_WORKERS"
LEAVE = "LEAVE"
KILL = "KILL"
DONE = "DONE"

#: Of the grace, so much is kept for workers and broker when the doors use all of theirs.
WORKERS_SHARE = 0.25
WORKERS_SHARE_MS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class ChildPresence:
    """A child process that is alive.

    is_serving: its doors may hold requests in flight. needs_devices: a worker that needs others.
    """

    kind: str
    is_serving: bool = False
    needs_devices: bool = False


def next_rung(children: Collection[ChildPresence], now_ns: int, deadline_ns: int) -> str:
    """What to do now with those children that are alive."""
    if not children:
        return DONE
    if now_ns >= deadline_ns:
        return KILL
    if any(child.kind == GATEWAY and child.is_serving for child in children):
        return CLOSE_DOORS
    if any(child.kind == BROKER for child in children):
        return DRAIN_BROKER
    if any(child.needs_devices for child in children):
        return DRAIN_EXTRA_WORKERS
    if any(child.kind == WORKER for child in children):
        return DRAIN_WORKERS
    return LEAVE


def doors_grace_ms(grace_ms: int) -> int:
    """The part of the grace that the doors may spend on requests in flight."""
    return max(0, grace_ms - min(int(grace_ms * WORKERS_SHARE), WORKERS_SHARE_MS_MAX))
