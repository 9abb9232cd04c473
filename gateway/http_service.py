"""What all connections of the REST door have in common. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.http_arriving import ArrivingRequest
from gateway.http_forward import Forwarding
from gateway.http_known import KnownHeads
from gateway.http_messages import HttpAnswer, HttpRequest


@dataclass(frozen=True)
class Patience:
    """How long a client is waited for.

    head_s: from the first byte of a request to the end of its head, against clients that send a
    byte now and then. idle_s: silence within a body, between requests, and while a client takes
    nothing of a reply; MindSpore Serving's RESTful server closes a connection after 100 s.
    """

    head_s: float = 10.0
    idle_s: float = 100.0


@dataclass
class RestService:
    """What all connections of a door have in common.

    answer: answers a request of a client, whose address comes with it; raises for bugs only.
    forwarding: does so without a task, where it can.
    body_bytes_max: of what is kept of a body. is_leaving: each connection ends with its next reply.
    """

    answer: Callable[[HttpRequest, object], Awaitable[HttpAnswer]]
    forwarding: Forwarding | None
    body_bytes_max: int
    patience: Patience
    is_leaving: bool = False
    heads: KnownHeads = field(default_factory=KnownHeads)

    def find_known(self, data: bytes, now_s: float) -> ArrivingRequest | None:
        """The request that bytes are whose head is known; None if the parser has to see them."""
        return self.heads.find(data, self.body_bytes_max, now_s)
