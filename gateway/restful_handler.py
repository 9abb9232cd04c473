"""The handler of the RESTful interface: verb, target and body in, HTTP status and JSON out.

The happy path reads only the target; the JSON goes to the worker unparsed and the worker's JSON
comes back. MindSpore Serving parses before it looks where the request goes, and a client with two
mistakes is told the first of them, so the cold path parses here: when the target is wrong, and when
the bus refused what it has not looked into.
"""

from __future__ import annotations

from gateway.bus import Bus
from gateway.exchange import note_failure
from gateway.http_messages import HttpAnswer, HttpRequest
from gateway.off_loop import off_loop
from gateway.requests import failure_of_bus, joined, pack_request, text_for_client
from protocol import head as heads
from protocol import limits, restful, restful_timeout, serving_texts, status
from protocol.errors import RequestError
from protocol.values import RequestSpec

#: Verbs that libevent's server passes on; the application then wants POST only.
VERBS = frozenset(("GET", "POST", "HEAD", "PUT", "DELETE"))

#: Every application reply of MindSpore Serving has this HTTP status, errors too.
HTTP_OK = 200
HTTP_NOT_IMPLEMENTED = 501

#: The two that only the deadline of a request brings about.
HTTP_BAD_REQUEST = 400
HTTP_GATEWAY_TIMEOUT = status.REASONS["deadline_exceeded"].http

#: A body that takes longer to parse than a hop to a thread costs is parsed in a thread.
PARSED_INLINE_BYTES_MAX = 64 * 1024

#: Refusals that have to cost little: the JSON of such a request is parsed when it comes again.
_OVERLOADED = ("queue_full", "queue_bytes_full")

#: How many instances a JSON body has is not known without parsing it; at least one is meant.
INSTANCE_COUNT_UNKNOWN = 1


class RestfulHandler:
    """Answers RESTful requests through a bus. body_bytes_max: `max_msg_mb_size` times 1048576."""

    #: a request that fails may have to be parsed, which takes time
    forwarder = None

    def __init__(self, bus: Bus, body_bytes_max: int) -> None:
        self._bus = bus
        self.body_bytes_max = body_bytes_max

    async def handle(self, request: HttpRequest) -> HttpAnswer:
        """Answer one HTTP request."""
        timeout = request.header(restful_timeout.HEADER)
        status_and_body = await self.answer(
            request.verb, request.target, request.body, timeout, request.reading_ms
        )
        return HttpAnswer(*status_and_body)

    async def answer(
        self,
        verb: str,
        target: bytes,
        body: bytes | None,
        timeout: bytes | None = None,
        reading_ms: int = 0,
    ) -> tuple[int, bytes]:
        """Answer one HTTP request with an HTTP status and a JSON document.

        target: the request target as it came, without any decoding. body: None if it is larger
        than `body_bytes_max`. timeout: value of the header `grpc-timeout`; reading_ms: how much of
        it went by until the body was complete. Cancelling cancels the request.
        """
        if verb != "POST":
            code = HTTP_OK if verb in VERBS else HTTP_NOT_IMPLEMENTED
            return code, _failed(None, "unsupported", serving_texts.post_only())
        budget_ms = 0
        if timeout is not None:
            try:
                budget_ms = restful.parse_timeout(timeout)
            except RequestError as error:
                return HTTP_BAD_REQUEST, _failed(None, error.reason, error.message)
            budget_ms = min(max(1, budget_ms - reading_ms), limits.BUDGET_MS_MAX)
        if body is None:
            text = serving_texts.body_too_large(self.body_bytes_max)
            return HTTP_OK, _failed(None, "body_too_large", text)
        if not body:
            return HTTP_OK, _failed(None, "malformed", serving_texts.body_empty())
        try:
            spec = restful.parse_target(target)
        except RequestError as target_error:
            return HTTP_OK, await self._refuse_target(body, target_error)
        return await self._infer(spec, body, budget_ms)

    async def _infer(self, spec: RequestSpec, body: bytes, budget_ms: int) -> tuple[int, bytes]:
        try:
            head, frames = pack_request(
                spec, heads.DIALECT_RESTFUL, INSTANCE_COUNT_UNKNOWN, budget_ms, [body]
            )
        except RequestError as failure:
            return HTTP_OK, await self._refuse_by_bus(spec, body, failure)
        reply, parts = await self._bus.request(head, frames)
        failure_or_none = failure_of_bus(reply, parts)
        if failure_or_none is None:
            return HTTP_OK, joined(parts)
        if budget_ms and failure_or_none.reason == "deadline_exceeded":
            text = text_for_client(spec, failure_or_none)
            return HTTP_GATEWAY_TIMEOUT, _failed(spec, failure_or_none.reason, text)
        return HTTP_OK, await self._refuse_by_bus(spec, body, failure_or_none)

    async def _refuse_target(self, body: bytes, target_error: RequestError) -> bytes:
        """A wrong target: only JSON that cannot be parsed is a mistake that comes before it."""
        error = await _first_error(body)
        if error is None or error.reason != "malformed":
            error = target_error
        return _failed(None, error.reason, error.message)

    async def _refuse_by_bus(self, spec: RequestSpec, body: bytes, failure: RequestError) -> bytes:
        """The bus failed the request: any mistake in its JSON comes before that, unless there is
        too much to do already."""
        error = None if failure.reason in _OVERLOADED else await _first_error(body)
        if error is not None:
            return _failed(spec, error.reason, error.message)
        return _failed(spec, failure.reason, text_for_client(spec, failure))


async def _first_error(body: bytes) -> RequestError | None:
    """The first mistake in a request's JSON, of syntax (`malformed`) or of structure."""
    try:
        if len(body) <= PARSED_INLINE_BYTES_MAX:
            restful.check_request(body)
        else:
            await off_loop(restful.check_request, body)
    except RequestError as error:
        return error
    return None


def _failed(spec: RequestSpec | None, reason: str, text: str) -> bytes:
    note_failure(reason)
    return joined(restful.encode_failure(spec, reason, text))
