"""The handler of the Open Inference Protocol over REST: JSON and binary tensors.

Most inference requests are forwarded (`oip_rest_forward.py`); here are those whose heads say more
than whom they are for, and everything else.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.bus import Bus
from gateway.content_coding import INLINE_BYTES_MAX, unpacked
from gateway.http_messages import HttpAnswer, HttpRequest, wrong_verb
from gateway.off_loop import off_loop
from gateway.oip_repository import Repository
from gateway.oip_rest_forward import (
    EVENT_STREAM,
    JSON_BYTES_HEADER,
    OK,
    OipRestForward,
    failed,
    json_answer,
    pack,
    unpack,
)
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
from gateway.requests import budget_of, failure_of_reply
from protocol import limits, oip_json, restful
from protocol.errors import RequestError
from protocol.restful_timeout import HEADER as TIMEOUT_HEADER

NOT_FOUND = 404
UNAVAILABLE = 503


class OipRestHandler:
    """Answers all below `/v2`. body_bytes_max: `max_msg_mb_size` times 1048576."""

    def __init__(self, bus: Bus, server: OipServer, body_bytes_max: int) -> None:
        self.body_bytes_max = body_bytes_max
        #: forwards inference requests whose head says nothing but whom they are for
        self.forwarder = OipRestForward(bus, server.directory)
        self._bus = bus
        self._server = server
        self._repository = Repository(server)

    async def handle(self, request: HttpRequest) -> HttpAnswer:
        """Answer one request."""
        target = parse_oip_target(request.target)
        if target is None:
            path = request.target.partition(b"?")[0][:300].decode("latin-1")
            return json_answer(NOT_FOUND, {"error": f"nothing is at {path}"})
        verbs = VERBS.get(target.action, ("GET",))
        if request.verb not in verbs:
            return wrong_verb(request.verb, ", ".join(verbs))
        try:
            if target.action == INFER:
                return await self._infer(request, target)
            return await self._tell(request, target)
        except RequestError as error:
            return failed(error)

    # ---------------------------------------------------------------- inference

    async def _infer(self, request: HttpRequest, target: OipTarget) -> HttpAnswer:
        budget_ms = _budget_ms(request)
        self.forwarder.note(request, target)
        body = await self._body(request)
        if not body:
            raise RequestError("malformed", "the body is empty, an inference request has one")
        json_bytes = _json_bytes(request, len(body))
        parameters = oip_json.scan_parameters(body, json_bytes)
        budget = budget_of(parameters, budget_ms)
        spec, budget = await self._server.directory.spec(target.model, target.version, budget)
        head, frames = pack((target, spec), budget, json_bytes, body, parameters)
        reply, parts = await self._bus.request(head, frames)
        if EVENT_STREAM not in (request.header(b"accept") or b""):
            return self.forwarder.told(reply, parts)
        failure = failure_of_reply(reply, parts)
        if failure is not None:
            return _event(orjson.dumps({"error": failure.message}))
        content, json_bytes = unpack(parts)
        if json_bytes is not None:
            raise RequestError("invalid_inputs", "binary outputs do not fit into an event stream")
        return _event(content)

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
            return json_answer(OK, said)
        if action == LIVE:
            return json_answer(OK, {"live": True})
        if action == READY:
            return _ready({}, await server.why_not_ready())
        if action == MODELS:
            return json_answer(OK, {"models": (await server.models()).names()})
        if action == MODEL_READY:
            servable, _ = (await server.models()).find(model)  # 404 if it is not there
            servable.version(version)
            return _ready({"name": model}, await server.why_model_not_ready(model, version))
        if action == MODEL_METADATA:
            return json_answer(OK, await server.model_metadata(model, version))
        if action == STATISTICS:
            return json_answer(OK, await server.model_statistics(model, version))
        if action == MODEL_CONFIG:
            return json_answer(OK, await server.model_config(model, version))
        document = await self._document(request)
        if action == LOG_SETTINGS:
            return json_answer(OK, await server.settings.log(document))
        if action == TRACE_SETTINGS:
            return json_answer(OK, await server.settings.trace(model, document))
        if action == INDEX:
            only_ready = document.get("ready", False)
            if type(only_ready) is not bool:
                raise RequestError("malformed", f"ready is {only_ready!r:.40}, not true or false")
            return json_answer(OK, await self._repository.index("", only_ready))
        if action == LOAD:
            await self._repository.load(model, document.get("parameters", {}))
        else:
            await self._repository.unload(model)
        return json_answer(OK, {})

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


def _ready(document: dict[str, Any], why: str | None) -> HttpAnswer:
    if why is None:
        return json_answer(OK, {**document, "ready": True})
    return json_answer(UNAVAILABLE, {**document, "ready": False, "error": why})


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
