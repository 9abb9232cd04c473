"""What a gateway needs of a broker, wherever that broker runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from protocol.native import Buffer

#: Head and body frames of a reply.
Reply = tuple[bytes, Sequence[Buffer]]

#: Takes a reply.
Done = Callable[[bytes, Sequence[Buffer]], None]


class Bus(Protocol):
    """Carries a request to a worker and its reply back.

    `RemoteBus` reaches a broker process through ZeroMQ; the embedded mode calls the broker's core
    in the same event loop.
    """

    def submit(self, head: bytes, frames: Sequence[Buffer], done: Done) -> object:
        """Send one request; `done` is called with its reply, once, and never from in here.

        head: a REQUEST with service, method, dialect, `instance_count`, `budget_ms` (0 = the
        broker's default) and `body_frames` set; the bus puts in the request id.
        A reply always comes. Failures of the bus have a status other than OK, dialect NATIVE and a
        failure body (`native.decode_failure`).
        Returns: what `cancel` wants.
        """

    def cancel(self, submitted: object) -> None:
        """Nobody waits for the reply any more: `done` is not called. Cancels it in the broker, but
        a request with an idempotency key goes on: its client is expected to ask for it again.
        """

    def request(self, head: bytes, frames: Sequence[Buffer]) -> Awaitable[Reply]:
        """Send one request and wait for its reply. Cancelling the awaiting task cancels it."""


async def request_by(bus: Bus, head: bytes, frames: Sequence[Buffer]) -> Reply:
    """`Bus.request` by `submit` and `cancel`."""
    reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def take(head: bytes, frames: Sequence[Buffer]) -> None:
        if not reply.done():
            reply.set_result((head, frames))

    submitted = bus.submit(head, frames, take)
    try:
        return await reply
    except asyncio.CancelledError:
        bus.cancel(submitted)
        raise
