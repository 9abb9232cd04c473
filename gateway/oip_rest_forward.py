"""Inference requests of the Open Inference Protocol over REST on their way through the bus. Pure.

A body travels unopened, with the length of its JSON part; the worker's reply passes through.
Failures are `{"error": text}` with the HTTP code of their reason (`protocol.status`), the reason
itself in a header, and `Retry-After` where a client may come again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from gateway.bus import Bus
from gateway.exchange import note_failure
from gateway.http_messages import Header, HttpAnswer, HttpRequest
from gateway.model_directory import ModelDirectory
from gateway.oip_rest_target import OipTarget
from gateway.requests import RETRY_AFTER_MS, budget_of, failure_of_reply, pack_request
from protocol import head as heads
from protocol import oip_json
from protocol.errors import RemoteProtocolError, RequestError
from protocol.native import Buffer
from protocol.oip_parameters import RequestParameters
from protocol.restful_timeout import HEADER as TIMEOUT_HEADER
from protocol.status import REASONS
from protocol.values import RequestSpec

#: How many bytes of a body are JSON; binary tensors follow.
JSON_BYTES_HEADER = b"inference-header-content-length"

REASON_HEADER = b"mindbus-reason"

EVENT_STREAM = b"text/event-stream"
BINARY = b"application/octet-stream"

#: Headers that say more of an inference request than its target does.
_SAYING = (TIMEOUT_HEADER, JSON_BYTES_HEADER, b"content-encoding")

OK = 200

#: How many instances a body has is not known without parsing it; at least one is meant.
INSTANCE_COUNT_UNKNOWN = 1

#: Whom a request is for.
Plan = tuple[OipTarget, RequestSpec]


class _Plain(NamedTuple):
    """What is known of a head without any of `_SAYING`: JSON comes, and JSON is to be the reply."""

    target: OipTarget


class OipRestForward:
    """A `gateway.forward.Forwarder` of requests whose heads say nothing but whom they are for."""

    def __init__(self, bus: Bus, directory: ModelDirectory) -> None:
        self.bus = bus
        self._directory = directory

    def note(self, request: HttpRequest, target: OipTarget) -> None:
        """A request came that is for inference; another one like it may be forwarded."""
        known = request.known
        if known is None or EVENT_STREAM in (request.header(b"accept") or b""):
            return
        if not any(request.header(name) is not None for name in _SAYING):
            known.for_handler = _Plain(target)

    def look(self, request: HttpRequest) -> Plan | None:
        """Whom a request is for, if no more has to be known (see `gateway.forward`)."""
        known = request.known
        if known is None or not request.body or not isinstance(known.for_handler, _Plain):
            return None
        target = known.for_handler.target
        spec = self._directory.kept(target.model, target.version)
        return None if spec is None else (target, spec)

    def ask(
        self, request: HttpRequest, plan: Plan, budget_ms: int | None
    ) -> tuple[bytes, list[Buffer]]:
        """What the bus is asked for. Raises RequestError."""
        body = request.body
        assert body is not None
        parameters = oip_json.scan_parameters(body, None)
        return pack(plan, budget_of(parameters, budget_ms), None, body, parameters)

    def told(self, head: bytes, frames: Sequence[Buffer]) -> HttpAnswer:
        """The answer, from a reply of the bus. Raises RequestError."""
        failure = failure_of_reply(head, frames)
        if failure is not None:
            raise failure
        content, json_bytes = unpack(frames)
        if json_bytes is None:
            return HttpAnswer(OK, content)
        length = (JSON_BYTES_HEADER, str(json_bytes).encode())
        return HttpAnswer(OK, content, (length,), BINARY)

    def failed(self, _plan: object, error: RequestError) -> HttpAnswer:
        """The answer to a request that failed."""
        return failed(error)


def pack(
    plan: Plan,
    budget_ms: int,
    json_bytes: int | None,
    body: bytes,
    parameters: RequestParameters,
) -> tuple[bytes, list[Buffer]]:
    """What the bus is asked for. json_bytes: of the body, None = all. Raises RequestError."""
    target, spec = plan
    return pack_request(
        spec,
        heads.DIALECT_OIP_JSON,
        INSTANCE_COUNT_UNKNOWN,
        budget_ms,
        oip_json.pack_request(target.model, json_bytes, body),
        parameters.priority_flag,
    )


def unpack(frames: Sequence[Buffer]) -> tuple[bytes, int | None]:
    """The body of a reply, and how much of it is JSON if not all of it is. Raises RequestError."""
    try:
        return oip_json.unpack_reply(frames)
    except RemoteProtocolError as error:
        raise RequestError("failed", f"the reply is unreadable: {error}") from None


def failed(error: RequestError) -> HttpAnswer:
    """The answer to a request that failed."""
    note_failure(error.reason)
    reason = REASONS[error.reason]
    headers = [(REASON_HEADER, error.reason.encode())]
    if reason.retry:
        headers.append((b"retry-after", str(RETRY_AFTER_MS // 1_000).encode()))
    return json_answer(reason.http, {"error": error.message}, tuple(headers))


def json_answer(status: int, content: Any, headers: tuple[Header, ...] = ()) -> HttpAnswer:
    """An answer of JSON."""
    return HttpAnswer(status, orjson.dumps(content), headers)
