"""Between handler and bus: the head of a request, and what a failure of the bus is called."""

from __future__ import annotations

from collections.abc import Sequence

from protocol import head as heads
from protocol import limits, native, serving_texts
from protocol.errors import RemoteProtocolError, RequestError
from protocol.native import Buffer
from protocol.oip_parameters import RequestParameters
from protocol.values import RequestSpec

#: How long a client that may come again should wait before it does.
RETRY_AFTER_MS = 1_000

#: Reasons for which MindSpore Serving has one text, with different codes.
_NOT_AVAILABLE = ("unknown_service", "no_worker")


def failure_of_bus(head: bytes, frames: Sequence[Buffer]) -> RequestError | None:
    """The failure that the bus reports in a reply; None if a worker answered."""
    if not head[heads.STATUS_OFFSET] or head[heads.DIALECT_OFFSET] != heads.DIALECT_NATIVE:
        return None
    try:
        return native.decode_failure(frames)
    except RemoteProtocolError as error:
        return RequestError("failed", f"the failure that the broker sent is unreadable: {error}")


def failure_of_reply(head: bytes, frames: Sequence[Buffer]) -> RequestError | None:
    """The failure in a reply of a dialect that has the native failure meta for all failures.

    None if the request succeeded.
    """
    if not head[heads.STATUS_OFFSET]:
        return None
    try:
        return native.decode_failure(frames)
    except RemoteProtocolError as error:
        return RequestError("failed", f"the failure that came is unreadable: {error}")


def text_for_client(spec: RequestSpec, failure: RequestError) -> str:
    """A failure of the bus in MindSpore Serving's words, where it has words for it."""
    if failure.reason in _NOT_AVAILABLE:
        return serving_texts.servable_not_available(spec)
    if failure.reason == "queue_full":
        return f"Serving Error: {failure.message}"
    return failure.message


def pack_request(
    spec: RequestSpec,
    dialect: int,
    instance_count: int,
    budget_ms: int,
    body_bytes: int,
    body_frames: int = 1,
) -> bytes:
    """The head of a request, its id still to be set by the bus.

    Raises: RequestError (unknown_service, unknown_method) if a name is longer than any known one.
    """
    try:
        service = heads.service_key(spec.servable, spec.version)
    except RemoteProtocolError as error:
        raise RequestError("unknown_service", str(error)) from None
    method = spec.method.encode()
    if len(method) > limits.METHOD_BYTES_MAX:
        raise RequestError("unknown_method", serving_texts.method_not_available(spec))
    flags = heads.FLAG_COALESCE
    if body_bytes >= limits.TENSOR_INLINE_BYTES_MAX:
        flags |= heads.FLAG_BODY_LARGE
    return heads.pack(
        heads.Head(
            heads.REQUEST,
            flags,
            dialect,
            budget_ms=budget_ms,
            instance_count=instance_count,
            body_frames=body_frames,
            service=service,
            method=method,
        )
    )


def budget_of(parameters: RequestParameters, budget_ms: int | None) -> int:
    """The smaller of a deadline and the parameter `timeout`; 0 = neither is there."""
    budgets = [each for each in (budget_ms, parameters.timeout_ms) if each]
    return min(*budgets, limits.BUDGET_MS_MAX) if budgets else 0


def joined(frames: Sequence[Buffer]) -> bytes:
    """The body frames of a text dialect as one body: the dialect may give it in pieces."""
    if len(frames) == 1 and type(frames[0]) is bytes:
        return frames[0]
    return b"".join(frames)
