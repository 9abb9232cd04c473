"""One table of reasons: gRPC code, HTTP code, MindSpore Serving code, and whether to retry.

gRPC numbers ride in the head of a reply; HTTP codes are for dialects that use them (MindSpore
Serving's REST answers 200 to everything); MindSpore Serving codes ride in `ErrorMsg.error_code`.
The machine-readable name of a reason is the same in replies, metrics and documentation.
"""

from typing import NamedTuple

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14

#: gRPC's own names, for error texts.
GRPC_NAMES = {
    OK: "OK",
    CANCELLED: "CANCELLED",
    UNKNOWN: "UNKNOWN",
    INVALID_ARGUMENT: "INVALID_ARGUMENT",
    DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    NOT_FOUND: "NOT_FOUND",
    PERMISSION_DENIED: "PERMISSION_DENIED",
    RESOURCE_EXHAUSTED: "RESOURCE_EXHAUSTED",
    UNIMPLEMENTED: "UNIMPLEMENTED",
    INTERNAL: "INTERNAL",
    UNAVAILABLE: "UNAVAILABLE",
}

#: MindSpore Serving's `ErrorMsg.error_code`.
MS_OK = 0
MS_FAILED = 1
MS_INVALID_INPUTS = 2
MS_SYSTEM_ERROR = 3
MS_WORKER_UNAVAILABLE = 4
MS_SERVABLE_UNAVAILABLE = 5


class Reason(NamedTuple):
    """What a reason means in each protocol."""

    grpc: int
    http: int
    mindspore: int
    retry: bool
    meaning: str


REASONS = {
    # said by the broker
    "unknown_service": Reason(
        NOT_FOUND, 404, MS_INVALID_INPUTS, False, "no such servable, or no such version of it"
    ),
    "no_worker": Reason(
        UNAVAILABLE, 503, MS_SERVABLE_UNAVAILABLE, True, "every worker of the service is gone"
    ),
    "draining": Reason(UNAVAILABLE, 503, MS_WORKER_UNAVAILABLE, True, "the server is going down"),
    "broker_lost": Reason(
        UNAVAILABLE, 503, MS_WORKER_UNAVAILABLE, True, "the connection to the broker broke"
    ),
    "queue_full": Reason(
        RESOURCE_EXHAUSTED, 429, MS_FAILED, True, "requests in the broker reached their limit"
    ),
    "queue_bytes_full": Reason(
        RESOURCE_EXHAUSTED, 429, MS_FAILED, True, "bytes in the broker reached their limit"
    ),
    "body_too_large": Reason(
        RESOURCE_EXHAUSTED, 413, MS_INVALID_INPUTS, False, "one body is over the limit"
    ),
    "unread_bytes_full": Reason(
        RESOURCE_EXHAUSTED, 429, MS_FAILED, True, "the client leaves too many replies unread"
    ),
    "deadline_exceeded": Reason(
        DEADLINE_EXCEEDED, 504, MS_FAILED, False, "the budget ran out, queued or running"
    ),
    "cancelled": Reason(CANCELLED, 499, MS_FAILED, False, "the client cancelled"),
    "worker_lost": Reason(
        INTERNAL, 500, MS_WORKER_UNAVAILABLE, False, "as many workers died of it as it had attempts"
    ),
    "poison_suspected": Reason(
        INTERNAL, 500, MS_WORKER_UNAVAILABLE, False, "the same bytes killed their workers lately"
    ),
    "malformed": Reason(
        INVALID_ARGUMENT, 400, MS_INVALID_INPUTS, False, "bytes that break the protocol"
    ),
    "unsupported": Reason(
        UNIMPLEMENTED, 501, MS_INVALID_INPUTS, False, "a version or a dialect that is not spoken"
    ),
    # said by a gateway
    "not_allowed": Reason(
        PERMISSION_DENIED, 403, MS_FAILED, False, "the server is not configured to let clients"
    ),
    # said by a worker
    "unknown_method": Reason(NOT_FOUND, 404, MS_INVALID_INPUTS, False, "no such method"),
    "invalid_inputs": Reason(
        INVALID_ARGUMENT, 400, MS_INVALID_INPUTS, False, "an input is missing or wrong"
    ),
    "failed": Reason(INTERNAL, 500, MS_FAILED, False, "the model failed"),
    "system_error": Reason(INTERNAL, 500, MS_SYSTEM_ERROR, False, "a Python stage failed"),
}

#: The reason that stands for a MindSpore Serving code when a worker fails an instance.
REASON_OF_MINDSPORE_CODE = {
    MS_FAILED: "failed",
    MS_INVALID_INPUTS: "invalid_inputs",
    MS_SYSTEM_ERROR: "system_error",
    MS_WORKER_UNAVAILABLE: "worker_lost",
    MS_SERVABLE_UNAVAILABLE: "no_worker",
}
