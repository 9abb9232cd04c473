"""Which handler answers which target of the REST door."""

from __future__ import annotations

from collections.abc import Awaitable

from gateway.http_messages import HttpAnswer, HttpHandler, HttpRequest, wrong_verb

#: Where the Open Inference Protocol begins.
OIP_ROOT = b"/v2"

_ENDS = (b"/", b"?", b"")

#: Where Prometheus asks, and where the description of all routes is, with GET. No servable can have
#: these addresses. The door answers the first one itself.
METRICS_TARGET = b"/metrics"
OPENAPI_TARGET = b"/openapi.json"


class RestRouter:
    """Passes `/v2` and all below it to one handler, everything else to the other one.

    openapi: the description of all routes.
    """

    def __init__(self, restful: HttpHandler, oip: HttpHandler, openapi: bytes) -> None:
        assert restful.body_bytes_max == oip.body_bytes_max
        self.body_bytes_max = restful.body_bytes_max
        #: of `/v2`; it looks for itself what a request is
        self.forwarder = oip.forwarder
        self._restful = restful
        self._oip = oip
        self._openapi = openapi

    def handle(self, request: HttpRequest) -> Awaitable[HttpAnswer]:
        """Answer one request."""
        target = request.target
        if target.startswith(OIP_ROOT) and target[len(OIP_ROOT) :][:1] in _ENDS:
            return self._oip.handle(request)
        return self._handle(request)

    async def _handle(self, request: HttpRequest) -> HttpAnswer:
        path = request.target.partition(b"?")[0]
        if path in (METRICS_TARGET, OPENAPI_TARGET) and request.verb != "GET":
            return wrong_verb(request.verb, "GET")
        if path == OPENAPI_TARGET:
            return HttpAnswer(200, self._openapi)
        return await self._restful.handle(request)
