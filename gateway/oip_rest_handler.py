"""The handler of the Open Inference Protocol over REST: JSON and binary tensors.

A request's body travels unopened, with the length of its JSON part; the worker's reply passes
through. Failures are `{"error": text}` with the HTTP code of their reason (`protocol.status`), the
reason itself in a header, and `Retry-After` where a client may come again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from gateway.bus import Bus
from gateway.content_coding import INLINE_BYTES_MAX, unpacked
from gateway.exchange import note_failure
from gateway.http_messages import HttpAnswer, HttpRequest, wrong_verb
from gateway.off_loop import off_loop
from gateway.oip_repository import Repository
from gateway.oip_rest_target import (
    INDEX,
    INFER,
    LIVE,
    LOAD,
    LOG_SETTINGS,
    MODEL_CONFIG,
    MODEL_METADATA,
    MODEL_READY,
    MODELS,
    READY,
    SERVER_METADATA,
    STATISTICS,
    TRACE_SETTINGS,
    VERBS,
    OipTarget,
    parse_oip_target,
)
from gateway.oip_server import SERVER_NAME, OipServer
from gateway.requests import RETRY_AFTER_MS, budget_of, failure_of_reply, pack_request
from protocol import head as heads
from protocol import limits, oip_json, restful
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
NOT_FOUND = 404
UNAVAILABLE = 503

#: How many instances a body has is not known without parsing it; at least one is meant.
INSTANCE_COUNT_UNKNOWN = 1


class OipRestHandler:
    """Answers all below `/v2`. body_bytes_max: `max_msg_mb_size` times 1048576."""

    def __init__(self, bus: Bus, server: OipServer, body_bytes_max: int) -> None:
        self.body_bytes_max = body_bytes_max
        self.bus = bus
        self._server = server
        self._repository = Repository(server)

    @property
    def forwarder(self) -> OipRestHandler:
        """Forwards inference requests whose head says nothing but whom they are for."""
        return self

    async def handle(self, request: HttpRequest) -> HttpAnswer:
        """Answer one request."""
        target = parse_oip_target(request.target)
        if target is None:
            path = request.target.partition(b"?")[0][:300].decode("latin-1")
            return _answer(NOT_FOUND, {"error": f"nothing is at {path}"})
        verbs = VERBS.get(target.action, ("GET",))
        if request.verb not in verbs:
            return wrong_verb(request.verb, ", ".join(verbs))
        try:
            if target.action == INFER:
                return await self._infer(request, target)
            return await self._tell(request, target)
        except RequestError as error:
            return self.failed(None, error)

    # ---------------------------------------------------------------- inference

    async def _infer(self, request: HttpRequest, target: OipTarget) -> HttpAnswer:
        budget_ms = _budget_ms(request)
        _note_plain(request, target)
        body = await self._body(request)
        if not body:
            raise RequestError("malformed", "the body is empty, an inference request has one")
        json_bytes = _json_bytes(request, len(body))
        parameters = oip_json.scan_parameters(body, json_bytes)
        budget = budget_of(parameters, budget_ms)
        spec, budget = await self._server.directory.spec(target.model, target.version, budget)
        head, frames = _packed(target, spec, budget, json_bytes, body, parameters)
        reply, parts = await self.bus.request(head, frames)
        if EVENT_STREAM not in (request.header(b"accept") or b""):
            return self.told(reply, parts)
        failure = failure_of_reply(reply, parts)
        if failure is not None:
            return _event(orjson.dumps({"error": failure.message}))
        content, json_bytes = _unpacked(parts)
        if json_bytes is not None:
            raise RequestError("invalid_inputs", "binary outputs do not fit into an event stream")
        return _event(content)

    def look(self, request: HttpRequest) -> tuple[OipTarget, RequestSpec] | None:
        """Whom a request is for, if no more has to be known (see `gateway.forward`)."""
        known = request.known
        if known is None or not request.body or not isinstance(known.for_handler, _Plain):
            return None
        target = known.for_handler.target
        spec = self._server.directory.kept(target.model, target.version)
        return None if spec is None else (target, spec)

    def ask(
        self, request: HttpRequest, plan: tuple[OipTarget, RequestSpec], budget_ms: int | None
    ) -> tuple[bytes, list[Buffer]]:
        """What the bus is asked for. Raises RequestError."""
        target, spec = plan
        body = request.body
        assert body is not None
        parameters = oip_json.scan_parameters(body, None)
        return _packed(target, spec, budget_of(parameters, budget_ms), None, body, parameters)

    def told(self, head: bytes, frames: Sequence[Buffer]) -> HttpAnswer:
        """The answer, from a reply of the bus. Raises RequestError."""
        failure = failure_of_reply(head, frames)
        if failure is not None:
            raise failure
        content, json_bytes = _unpacked(frames)
        if json_bytes is None:
            return HttpAnswer(OK, content)
        length = (JSON_BYTES_HEADER, str(json_bytes).encode())
        return HttpAnswer(OK, content, (length,), BINARY)

    def failed(self, _plan: object, error: RequestError) -> HttpAnswer:
        """The answer to a request that failed."""
        note_failure(error.reason)
        reason = REASONS[error.reason]
        headers = [(REASON_HEADER, error.reason.encode())]
        if reason.retry:
            headers.append((b"retry-after", str(RETRY_AFTER_MS // 1_000).encode()))
        return _answer(reason.http, {"error": error.message}, tuple(headers))

    async def _body(self, request: HttpRequest) -> bytes:
        """The body, unpacked if it is compressed. Raises RequestError."""
        body = request.body
        if body is None:
            raise RequestError(
                "body_too_large", f"the body exceeds max_msg_mb_size, {self.body_bytes_max} B"
            )
        encoding = request.header(b"content-encoding")
        if encoding is None or encoding == b"identity":
            return body
        if len(body) <= INLINE_BYTES_MAX:
            return unpacked(body, encoding, self.body_bytes_max)
        return await off_loop(unpacked, body, encoding, self.body_bytes_max)

    # ---------------------------------------------------------------- everything else

    async def _tell(self, request: HttpRequest, target: OipTarget) -> HttpAnswer:
        server, model, version = self._server, target.model, target.version
        action = target.action
        if action == SERVER_METADATA:
            extensions = list(server.extensions())
            said = {"name": SERVER_NAME, "version": server.version, "extensions": extensions}
            return _answer(OK, said)
        if action == LIVE:
            return _answer(OK, {"live": True})
        if action == READY:
            return _ready({}, await server.why_not_ready())
        if action == MODELS:
            return _answer(OK, {"models": (await server.models()).names()})
        if action == MODEL_READY:
            servable, _ = (await server.models()).find(model)  # 404 if it is not there
            servable.version(version)
            return _ready({"name": model}, await server.why_model_not_ready(model, version))
        if action == MODEL_METADATA:
            return _answer(OK, await server.model_metadata(model, version))
        if action == STATISTICS:
            return _answer(OK, await server.model_statistics(model, version))
        if action == MODEL_CONFIG:
            return _answer(OK, await server.model_config(model, version))
        document = await self._document(request)
        if action == LOG_SETTINGS:
            return _answer(OK, await server.settings.log(document))
        if action == TRACE_SETTINGS:
            return _answer(OK, await server.settings.trace(model, document))
        if action == INDEX:
            only_ready = document.get("ready", False)
            if type(only_ready) is not bool:
                raise RequestError("malformed", f"ready is {only_ready!r:.40}, not true or false")
            return _answer(OK, await self._repository.index("", only_ready))
        if action == LOAD:
            await self._repository.load(model, document.get("parameters", {}))
        else:
            await self._repository.unload(model)
        return _answer(OK, {})

    async def _document(self, request: HttpRequest) -> dict[str, Any]:
        """A small JSON body, which may be left out. Raises RequestError (malformed)."""
        if request.verb == "GET":
            return {}
        body = await self._body(request)
        try:
            document = orjson.loads(body) if body.strip() else {}
        except orjson.JSONDecodeError as error:
            raise RequestError("malformed", f"the body is not JSON: {error}") from None
        if not isinstance(document, dict) or not isinstance(document.get("parameters", {}), dict):
            raise RequestError("malformed", "the body or its parameters are not a JSON object")
        return document


class _Plain(NamedTuple):
    """What is known of a head without any of `_SAYING`: JSON comes, and JSON is to be the reply."""

    target: OipTarget


def _note_plain(request: HttpRequest, target: OipTarget) -> None:
    known = request.known
    if known is None or EVENT_STREAM in (request.header(b"accept") or b""):
        return
    if not any(request.header(name) is not None for name in _SAYING):
        known.for_handler = _Plain(target)


def _packed(
    target: OipTarget,
    spec: RequestSpec,
    budget_ms: int,
    json_bytes: int | None,
    body: bytes,
    parameters: RequestParameters,
) -> tuple[bytes, list[Buffer]]:
    frames = oip_json.pack_request(target.model, json_bytes, body)
    return pack_request(
        spec,
        heads.DIALECT_OIP_JSON,
        INSTANCE_COUNT_UNKNOWN,
        budget_ms,
        frames,
        parameters.priority_flag,
    )


def _unpacked(frames: Sequence[Buffer]) -> tuple[bytes, int | None]:
    try:
        return oip_json.unpack_reply(frames)
    except RemoteProtocolError as error:
        raise RequestError("failed", f"the reply is unreadable: {error}") from None


def _answer(
    status: int, document: Any, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> HttpAnswer:
    return HttpAnswer(status, orjson.dumps(document), headers)


def _ready(document: dict[str, Any], why: str | None) -> HttpAnswer:
    if why is None:
        return _answer(OK, {**document, "ready": True})
    return _answer(UNAVAILABLE, {**document, "ready": False, "error": why})


def _event(document: bytes) -> HttpAnswer:
    """One server-sent event; JSON of orjson has no line break."""
    return HttpAnswer(OK, b"data: " + document + b"\n\n", (), EVENT_STREAM)


def _budget_ms(request: HttpRequest) -> int | None:
    timeout = request.header(TIMEOUT_HEADER)
    if timeout is None:
        return None
    budget_ms = restful.parse_timeout(timeout)
    return min(max(1, budget_ms - request.reading_ms), limits.BUDGET_MS_MAX)


def _json_bytes(request: HttpRequest, body_bytes: int) -> int | None:
    value = request.header(JSON_BYTES_HEADER)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 10 or not 0 < int(value) <= body_bytes:
        raise RequestError(
            "malformed",
            f"header Inference-Header-Content-Length is {value[:40].decode('latin-1')!r}, the body "
            f"has {body_bytes} B",
        )
    return int(value)
