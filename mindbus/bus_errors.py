# ruff: noqa: N818 - the names say what happened, as in `grpc.StatusCode`; BusError is their base.
"""What a client of the bus catches: one class per thing that it can do about a failure.

InvalidInputs      the request is wrong: change it
NotFound           no such servable, version or method
Overloaded         the server is full: try again later
BodyTooLarge       the request is over a limit: split it
DeadlineExceeded   the time named for the call is over; it may still have run
Unavailable        nobody is there to answer: try again later
Cancelled          the call was cancelled
Internal           the model, or the server, failed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from protocol import status


class BusError(Exception):
    """A request, or one instance of it, that was not answered with results.

    reason: machine-readable name, the same in replies, metrics and documentation
    (`protocol.status.REASONS`). grpc_code: number of the gRPC status that stands for it.
    is_retryable: whether the same request may succeed later.
    results: where a worker answered but some instances failed, the outcome of every instance, in
    order: a dict of outputs, or the BusError of an instance that failed. Else None.
    """

    def __init__(
        self, reason: str, message: str, results: Sequence[dict[str, Any] | BusError] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.results = results

    @property
    def grpc_code(self) -> int:
        """Number of the gRPC status that stands for the reason."""
        return status.REASONS[self.reason].grpc

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return status.REASONS[self.reason].retry


class InvalidInputs(BusError):
    """An input is missing or wrong, or the request breaks the protocol."""


class NotFound(BusError):
    """There is no such servable, no such version of it, or no such method."""


class Overloaded(BusError):
    """The server holds as many requests, bytes, or replies that nobody reads, as it will."""


class BodyTooLarge(BusError):
    """The request is larger than a limit; the text names it."""


class DeadlineExceeded(BusError):
    """The call took longer than its timeout. The request may have been executed."""


class Unavailable(BusError):
    """No worker, no broker, or one that is going down. A request that was lost may have run."""


class Cancelled(BusError):
    """The request was cancelled."""


class Internal(BusError):
    """The model failed, a stage of the method failed, or the server did."""


CLASS_OF_REASON: dict[str, type[BusError]] = {
    "unknown_service": NotFound,
    "no_worker": Unavailable,
    "draining": Unavailable,
    "broker_lost": Unavailable,
    "queue_full": Overloaded,
    "queue_bytes_full": Overloaded,
    "unread_bytes_full": Overloaded,
    "body_too_large": BodyTooLarge,
    "deadline_exceeded": DeadlineExceeded,
    "cancelled": Cancelled,
    "worker_lost": Internal,
    "poison_suspected": Internal,
    "malformed": InvalidInputs,
    "unsupported": InvalidInputs,
    "unknown_method": NotFound,
    "invalid_inputs": InvalidInputs,
    "not_allowed": InvalidInputs,  # of the doors' own commands, which the bus does not have
    "failed": Internal,
    "system_error": Internal,
}


def error_of(
    reason: str, message: str, results: Sequence[dict[str, Any] | BusError] | None = None
) -> BusError:
    """The exception that stands for a reason of `protocol.status.REASONS`."""
    return CLASS_OF_REASON[reason](reason, message, results)
