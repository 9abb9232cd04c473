"""What a gateway needs of a broker, wherever that broker runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from protocol.native import Buffer


class Bus(Protocol):
    """Carries a request to a worker and its reply back.

    `RemoteBus` reaches a broker process through ZeroMQ; the embedded mode calls the broker's core
    in the same event loop.
    """

    async def request(
        self, head: bytes, frames: Sequence[Buffer]
    ) -> tuple[bytes, Sequence[Buffer]]:
        """Send one request and wait for its reply: head and body frames.

        head: a REQUEST with service, method, dialect, `instance_count`, `budget_ms` (0 = the
        broker's default) and `body_frames` set; the bus puts in the request id.
        Returns: always a reply. Failures of the bus have a status other than OK, dialect NATIVE
        and a failure body (`native.decode_failure`); nothing but CancelledError is raised.
        Cancelling the awaiting task cancels the request in the broker.
        """
        ...
