"""Between handler and bus: the head of a request, and what a failure of the bus is called."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from gateway.exchange import Exchange, current
from protocol import head as heads
from protocol import limits, native, serving_texts
from protocol.errors import RemoteProtocolError, RequestError
from protocol.native import Buffer
from protocol.oip_parameters import RequestParameters
from protocol.values import RequestSpec

#: Headers, or gRPC metadata, by which a client says more of a request than its body does.
PRIORITY_KEY = "mindbus-priority"
IDEMPOTENCY_KEY = "idempotency-key"

#: How long a client that may come again should wait before it does.
RETRY_AFTER_MS = 1_000

#: Heads of requests that are kept; one for each method, number of instances and set of flags.
HEADS_MAX = 1024

_NUMBER = struct.Struct("!I")

#: Reasons for which MindSpore Serving has one text, with different codes.
_NOT_AVAILABLE = ("unknown_service", "no_worker")


def failure_of_bus(head: bytes, frames: Sequence[Buffer]) -> RequestError | None:
    """The failure that the bus reports in a reply; None if a worker answered."""
    if head[heads.STATUS_OFFSET] and head[heads.DIALECT_OFFSET] != heads.DIALECT_NATIVE:
        _note_reply(head)
        return None
    return failure_of_reply(head, frames)


def failure_of_reply(head: bytes, frames: Sequence[Buffer]) -> RequestError | None:
    """The failure in a reply of a dialect that has the native failure meta for all failures.

    None if the request succeeded.
    """
    exchange = _note_reply(head)
    if not head[heads.STATUS_OFFSET]:
        return None
    try:
        failure = native.decode_failure(frames)
    except RemoteProtocolError as error:
        return RequestError("failed", f"the failure that came is unreadable: {error}")
    if exchange is not None:
        exchange.reason = failure.reason
    return failure


def _note_reply(head: bytes) -> Exchange | None:
    """Tell this task's exchange, if there is one, of a reply."""
    exchange = current()
    if exchange is not None:
        exchange.code = head[heads.STATUS_OFFSET]
        exchange.waited_us = _NUMBER.unpack_from(head, heads.BUDGET_OFFSET)[0]
    return exchange


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
    frames: list[Buffer],
    priority_flag: int = 0,
) -> tuple[bytes, list[Buffer]]:
    """The head of a request, its id still to be set by the bus, and its body frames.

    They carry what this task's exchange knows: trace context, priority, idempotency key.
    priority_flag: of a request that says so itself.

    Raises: RequestError (unknown_service, unknown_method) if a name is longer than any known one,
    and (invalid_inputs) if there are no such priority and key.
    """
    exchange = current()
    context = None
    flags = heads.FLAG_COALESCE | priority_flag
    if exchange is not None:
        exchange.spec = spec
        context = exchange.context
        if exchange.priority is not None and not priority_flag:
            flags |= _priority_flag(exchange.priority)
    body_bytes = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
    if body_bytes >= limits.TENSOR_INLINE_BYTES_MAX:
        flags |= heads.FLAG_BODY_LARGE
    if exchange is not None and exchange.key is not None:
        flags |= heads.FLAG_KEYED
        frames = [*frames, _key(exchange.key)]
    head = _head(spec, dialect, instance_count, len(frames), flags)
    if context is not None:
        head = heads.with_context(head, context.trace_id, context.span_id, context.is_sampled)
    if budget_ms:
        head = heads.restamp(head, 0, budget_ms)
    return head, frames


@lru_cache(maxsize=HEADS_MAX)
def _head(
    spec: RequestSpec, dialect: int, instance_count: int, body_frames: int, flags: int
) -> bytes:
    """The head of a request without a budget and a trace: the same again and again."""
    try:
        service = heads.service_key(spec.servable, spec.version)
    except RemoteProtocolError as error:
        raise RequestError("unknown_service", str(error)) from None
    method = spec.method.encode()
    if len(method) > limits.METHOD_BYTES_MAX:
        raise RequestError("unknown_method", serving_texts.method_not_available(spec))
    return heads.pack(
        heads.Head(
            heads.REQUEST,
            flags,
            dialect,
            instance_count=instance_count,
            body_frames=body_frames,
            service=service,
            method=method,
        )
    )


def _priority_flag(priority: str) -> int:
    flag = heads.PRIORITIES.get(priority)
    if flag is None:
        names = ", ".join(heads.PRIORITIES)
        raise RequestError(
            "invalid_inputs", f"{PRIORITY_KEY} {priority!r:.40} is not one of {names}"
        )
    return flag


def _key(key: str) -> bytes:
    if not key.isascii() or not 1 <= len(key) <= limits.KEY_BYTES_MAX:
        raise RequestError(
            "invalid_inputs",
            f"{IDEMPOTENCY_KEY} {key!r:.80} is not 1 to {limits.KEY_BYTES_MAX} characters of ASCII",
        )
    return key.encode()


def budget_of(parameters: RequestParameters, budget_ms: int | None) -> int:
    """The smaller of a deadline and the parameter `timeout`; 0 = neither is there."""
    timeout_ms = parameters.timeout_ms
    if not timeout_ms:
        return min(budget_ms, limits.BUDGET_MS_MAX) if budget_ms else 0
    return min(budget_ms or timeout_ms, timeout_ms, limits.BUDGET_MS_MAX)


def body_of(frames: Sequence[Buffer]) -> Buffer:
    """The body frames of a reply as one body, as it came if that is one frame."""
    return frames[0] if len(frames) == 1 else joined(frames)


def joined(frames: Sequence[Buffer]) -> bytes:
    """The body frames of a text dialect as one body: the dialect may give it in pieces."""
    if len(frames) == 1 and type(frames[0]) is bytes:
        return frames[0]
    return b"".join(frames)
