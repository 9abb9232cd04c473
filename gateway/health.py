"""gRPC's health service: of the server, and of every model by its name.

The name "" and those of the services that the door speaks stand for the server: it is SERVING when
every servable is ready. `Watch` looks now and then, and says what has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from google.protobuf.message import DecodeError

from gateway.oip_server import OipServer
from gateway.rpcs import Rpcs
from protocol.errors import RequestError
from protocol.oip_messages import HealthCheckRequest, HealthCheckResponse

SERVICE = "grpc.health.v1.Health"

#: Service names that stand for the server as a whole.
SERVER_NAMES = ("", SERVICE, "inference.GRPCInferenceService", "mindspore.serving.proto.MSService")

#: A watch looks so often.
WATCH_S = 0.5

SERVING = 1
NOT_SERVING = 2
SERVICE_UNKNOWN = 3


class HealthService:
    """Answers Check and Watch."""

    def __init__(self, server: OipServer) -> None:
        self._server = server
        self._leaving = asyncio.Event()

    def rpcs(self) -> Rpcs:
        """The service's RPCs."""
        return Rpcs({f"/{SERVICE}/Check": self.check}, {f"/{SERVICE}/Watch": self.watch}, {})

    async def check(self, body: bytes, _budget_ms: int | None = None) -> bytes:
        """Answer one HealthCheckRequest. Raises RequestError (unknown_service, malformed)."""
        name = _service_of(body)
        state = await self._state(name)
        if state == SERVICE_UNKNOWN:
            raise RequestError("unknown_service", f"model {name!r:.300} is not served")
        return _response(state)

    def leave(self) -> None:
        """End every watch: this gateway goes, and who watches shall ask another one."""
        self._leaving.set()

    async def watch(self, body: bytes) -> AsyncIterator[bytes]:
        """Say the state, and then each other one. Raises RequestError (malformed, draining)."""
        name = _service_of(body)
        said = None
        while True:
            state = await self._state(name)
            if state != said:
                said = state
                yield _response(state)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), WATCH_S)
                raise RequestError("draining", "this gateway goes down")

    async def _state(self, name: str) -> int:
        if name in SERVER_NAMES:
            why = await self._server.why_not_ready()
        else:
            try:
                models = await self._server.models()
            except RequestError:  # whatever it is that cannot be asked, it serves nobody
                return NOT_SERVING
            if models.resolve(name) is None:
                return SERVICE_UNKNOWN
            why = await self._server.why_model_not_ready(name, "")
        return SERVING if why is None else NOT_SERVING


def _service_of(body: bytes) -> str:
    try:
        service: str = HealthCheckRequest.FromString(body).service
    except DecodeError as error:
        raise RequestError("malformed", f"body is not a HealthCheckRequest: {error}") from None
    return service


def _response(state: int) -> bytes:
    response: bytes = HealthCheckResponse(status=state).SerializeToString()
    return response
