"""Which handler answers which target of the REST door."""

from __future__ import annotations

from gateway.http_messages import HttpAnswer, HttpHandler, HttpRequest

#: Where the Open Inference Protocol begins.
OIP_ROOT = b"/v2"


class RestRouter:
    """Passes `/v2` and all below it to one handler, everything else to the other one."""

    def __init__(self, restful: HttpHandler, oip: HttpHandler) -> None:
        assert restful.body_bytes_max == oip.body_bytes_max
        self.body_bytes_max = restful.body_bytes_max
        self._restful = restful
        self._oip = oip

    async def handle(self, request: HttpRequest) -> HttpAnswer:
        """Answer one request."""
        path = request.target.partition(b"?")[0]
        if path == OIP_ROOT or path.startswith(OIP_ROOT + b"/"):
            return await self._oip.handle(request)
        return await self._restful.handle(request)
