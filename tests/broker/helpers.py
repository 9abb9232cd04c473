"""Messages as clients and workers send them, and readable views of what the core answers."""

from __future__ import annotations

from typing import Any

from broker.admission import Settings
from broker.core import Core
from protocol import control
from protocol import head as heads
from protocol.native import decode_failure
from protocol.values import MethodSignature

MS = 1_000_000


def request(
    request_id: int,
    service: bytes = b"add/1",
    body: bytes = b"body",
    budget_ms: int = 0,
    flags: int = 0,
    method: bytes = b"m",
) -> list[bytes]:
    """One request parcel."""
    head = heads.Head(
        heads.REQUEST,
        flags=flags,
        request_id=request_id,
        budget_ms=budget_ms,
        body_frames=1,
        service=service,
        method=method,
    )
    return [heads.pack(head), body]


def cancel(request_id: int) -> list[bytes]:
    """A CANCEL parcel."""
    return [heads.pack(heads.Head(heads.CANCEL, request_id=request_id))]


def ready(
    worker_id: str,
    service: str = "add/1",
    credit: int = 1,
    generation: int = 1,
    methods: tuple[str, ...] = ("m",),
    is_extra: bool = False,
) -> list[bytes]:
    """A READY message."""
    servable = service.rpartition("/")[0]
    signatures = tuple(MethodSignature(servable, name, ("x",), ("y",)) for name in methods)
    device = control.Device("CPU", 0)
    return control.pack(
        control.Ready(
            worker_id, generation, service, credit, signatures, device, 1234, servable, is_extra
        )
    )


def reply(ticket: int, body: bytes = b"answer", status: int = 0) -> list[bytes]:
    """A reply parcel of a worker."""
    head = heads.Head(heads.REPLY, status=status, request_id=ticket, body_frames=1)
    return [heads.pack(head), body]


def broker_with_worker(credit: int = 1, **settings: Any) -> Core:
    """A core with one registered worker `w1` of `add/1`, outboxes empty."""
    core = Core(Settings(**settings))
    core.receive_from_worker(b"w1", ready("slot1", credit=credit), 0)
    core.outbox.take()
    return core


def dispatched(core: Core) -> list[tuple[bytes, int, bytes]]:
    """Take the worker outbox: (routing id, ticket, body) of every request in it, in order."""
    _, to_workers = core.outbox.take()
    seen = []
    for routing_id, parts in to_workers.items():
        for head, frames in heads.split_parcels(parts):
            if head[3] == heads.REQUEST:
                seen.append((routing_id, heads.unpack(head).request_id, frames[0]))
    return seen


def controls(core: Core) -> list[tuple[bytes, str]]:
    """Take the worker outbox: (routing id, command) of every control parcel in it."""
    _, to_workers = core.outbox.take()
    return [
        (routing_id, heads.COMMANDS[head[3]])
        for routing_id, parts in to_workers.items()
        for head, _ in heads.split_parcels(parts)
        if head[3] != heads.REQUEST
    ]


def answers(core: Core) -> list[tuple[Any, int, Any]]:
    """Take the client outbox: (client, request id, body or reason) of every reply, in order."""
    to_clients, _ = core.outbox.take()
    seen = []
    for client, parts in to_clients:
        for frame, frames in heads.split_parcels(parts):
            head = heads.unpack(frame)
            content = decode_failure(frames).reason if head.status else frames[0]
            seen.append((client, head.request_id, content))
    return seen
