"""What the broker's core costs per request, without sockets: `python -m bench.core_cost`.

Two ways through it: a token is free and the request goes straight to a worker; or all are taken,
and it waits in the backlog. Each figure is the best of many rounds, for other processes only add.
"""

from __future__ import annotations

import time

from broker.admission import Settings
from broker.core import Core
from protocol import control
from protocol import head as heads
from protocol.values import MethodSignature

ROUNDS = 40
REQUESTS = 2_000


def new_core(credit: int) -> Core:
    """A core with one worker of `add/1`."""
    core = Core(Settings())
    methods = (MethodSignature("add", "m", ("x",), ("y",)),)
    device = control.Device("CPU", 0)
    ready = control.Ready("slot", 1, "add/1", credit, methods, device, 1, "add", False)
    core.receive_from_worker(b"w", control.pack(ready), 0)
    core.outbox.take()
    return core


def requests(flags: int) -> list[list[bytes]]:
    """Messages of one client, each with a number of its own."""
    is_keyed = bool(flags & heads.FLAG_KEYED)
    head = heads.Head(heads.REQUEST, flags, body_frames=1 + is_keyed, service=b"add/0", method=b"m")
    messages = []
    for number in range(REQUESTS):
        key = [b"key %d" % number] if is_keyed else []
        messages.append([heads.pack(head._replace(request_id=number)), b"body", *key])
    return messages


def round_ns(flags: int, is_waiting: bool) -> float:
    """Nanoseconds of one request and its reply."""
    core = new_core(1 if is_waiting else 64)
    reply = heads.Head(heads.REPLY, body_frames=1)
    replies = [
        [heads.pack(reply._replace(request_id=ticket)), b"answer"]
        for ticket in range(1, REQUESTS + 1)
    ]
    asked = requests(flags)
    begin = time.thread_time_ns()
    if is_waiting:
        for message in asked:
            core.receive_from_client(b"c", message, 0)
        for message in replies:
            core.receive_from_worker(b"w", message, 0)
    else:
        for message, answer in zip(asked, replies, strict=True):
            core.receive_from_client(b"c", message, 0)
            core.receive_from_worker(b"w", answer, 0)
    spent = time.thread_time_ns() - begin
    assert core.book.answered() == REQUESTS
    return spent / REQUESTS


def main() -> None:
    """Print a line for each way."""
    plain = heads.FLAG_COALESCE
    kinds = {"plain": plain, "high": plain | heads.FLAG_HIGH, "keyed": plain | heads.FLAG_KEYED}
    for name, flags in kinds.items():
        for is_waiting in (False, True):
            best = min(round_ns(flags, is_waiting) for _ in range(ROUNDS))
            print(f"{name:10} {'waits' if is_waiting else 'direct':7} {best / 1_000:6.2f} µs")


if __name__ == "__main__":
    main()
