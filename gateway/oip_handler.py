"""The handler of the Open Inference Protocol over gRPC: protobuf bytes in, protobuf bytes out.

A ModelInferRequest travels unopened: name, version, count and parameters are scanned, and the
worker's response passes through. Everything else is answered from what the broker knows. Errors
are raised, for the door to put them into a gRPC status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError

from gateway.bus import Bus
from gateway.oip_forward import OipForward
from gateway.oip_repository import Repository
from gateway.oip_server import SERVER_NAME, OipServer
from gateway.requests import budget_of
from gateway.rpcs import Rpcs
from protocol import oip
from protocol import oip_messages as messages
from protocol.errors import RequestError
from protocol.native import Buffer

SERVICE = "inference.GRPCInferenceService"

#: Requests of one stream that are under way at once; further ones are not read yet.
STREAM_REQUESTS_MAX = 64

#: Which field of a log setting takes a value.
_LOG_FIELDS = {bool: "bool_param", int: "uint32_param", str: "string_param"}


class OipHandler:
    """Answers the RPCs of `inference.GRPCInferenceService`, but their status."""

    def __init__(self, bus: Bus, server: OipServer) -> None:
        self._forward = OipForward(bus, server.directory)
        self._server = server
        self._directory = server.directory
        self._repository = Repository(server)

    def rpcs(self) -> Rpcs:
        """The service's RPCs."""
        unary = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.infer,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_load,
            "RepositoryModelUnload": self.repository_unload,
            "LogSettings": self.log_settings,
            "TraceSetting": self.trace_setting,
        }
        return Rpcs(
            {f"/{SERVICE}/{name}": answer for name, answer in unary.items()},
            {},
            {f"/{SERVICE}/ModelStreamInfer": self.stream},
            {f"/{SERVICE}/ModelInfer": self._forward},
        )

    async def infer(self, body: bytes, budget_ms: int | None = None) -> Buffer:
        """Answer one ModelInferRequest with a ModelInferResponse.

        budget_ms: what is left of the call's deadline; None = it has none. Raises: RequestError.
        """
        return await self._infer(self._forward.scans.scan(body), body, budget_ms)

    async def _infer(self, scan: oip.Scan, body: bytes, budget_ms: int | None) -> Buffer:
        budget = budget_of(scan.parameters, budget_ms)
        spec, budget = await self._directory.spec(scan.model, scan.version, budget)
        forward = self._forward
        head, frames = forward.ask(body, (scan, spec), budget)
        return forward.told(*await forward.bus.request(head, frames))

    async def stream(
        self, requests: AsyncIterator[bytes], budget_ms: int | None = None
    ) -> AsyncIterator[bytes]:
        """Answer each request of a stream with one ModelStreamInferResponse, in their order.

        Several are under way at once. One that fails has its error in its response.
        """
        loop = asyncio.get_running_loop()
        until_s = None if budget_ms is None else loop.time() + budget_ms / 1_000
        running: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(STREAM_REQUESTS_MAX)

        async def read() -> None:
            try:
                async for body in requests:
                    left_ms = None
                    if until_s is not None:
                        left_ms = max(1, int((until_s - loop.time()) * 1_000))
                    task = loop.create_task(self._stream_response(body, left_ms))
                    try:
                        await running.put(task)
                    except asyncio.CancelledError:
                        task.cancel()
                        raise
            finally:
                await running.put(None)

        reader = loop.create_task(read())
        try:
            while (task := await running.get()) is not None:
                yield await task
            await reader
        finally:
            reader.cancel()
            while not running.empty():  # so that there is room for the reader's last word
                left = running.get_nowait()
                if left is not None:
                    left.cancel()
            await asyncio.wait((reader,))

    async def _stream_response(self, body: bytes, budget_ms: int | None) -> bytes:
        response = messages.ModelStreamInferResponse()
        try:
            scan = self._forward.scans.scan(body)
        except RequestError as error:
            response.error_message = error.message
            return _bytes(response)
        try:
            # The one field of the message, in front of what the worker wrote.
            return oip.stream_response(await self._infer(scan, body, budget_ms))
        except RequestError as error:
            response.error_message = error.message
            response.infer_response.id = scan.id
            response.infer_response.model_name = scan.model
            response.infer_response.model_version = scan.version
            response.infer_response.parameters["mindbus-reason"].string_param = error.reason
            return _bytes(response)

    # ---------------------------------------------------------------- health and metadata

    async def server_live(self, _body: bytes, _budget_ms: int | None = None) -> bytes:
        """A gateway that answers is live: nothing has to be killed from outside."""
        return _bytes(messages.ServerLiveResponse(live=True))

    async def server_ready(self, _body: bytes, _budget_ms: int | None = None) -> bytes:
        """Whether every servable is ready."""
        why = await self._server.why_not_ready()
        return _bytes(messages.ServerReadyResponse(ready=why is None))

    async def model_ready(self, body: bytes, _budget_ms: int | None = None) -> bytes:
        """Whether a model is ready; one that is not known is not."""
        asked = _read(messages.ModelReadyRequest, body)
        why = await self._server.why_model_not_ready(asked.name, asked.version)
        return _bytes(messages.ModelReadyResponse(ready=why is None))

    async def server_metadata(self, _body: bytes, _budget_ms: int | None = None) -> bytes:
        """Name, version, extensions."""
        server = self._server
        return _bytes(
            messages.ServerMetadataResponse(
                name=SERVER_NAME, version=server.version, extensions=server.extensions()
            )
        )

    async def model_metadata(self, body: bytes, _budget_ms: int | None = None) -> bytes:
        """Versions and tensors of a model. Raises RequestError."""
        asked = _read(messages.ModelMetadataRequest, body)
        metadata = await self._server.model_metadata(asked.name, asked.version)
        return _bytes(messages.ModelMetadataResponse(**metadata))

    async def model_config(self, body: bytes, _budget_ms: int | None = None) -> bytes:
        """A model's configuration in Triton's form. Raises RequestError."""
        asked = _read(messages.ModelConfigRequest, body)
        config = await self._server.model_config(asked.name, asked.version)
        return _bytes(messages.ModelConfigResponse(config=config))

    async def model_statistics(self, body: bytes, _budget_ms: int | None = None) -> bytes:
        """Counts and times of one model's requests, or of all. Raises RequestError."""
        asked = _read(messages.ModelStatisticsRequest, body)
        said = await self._server.model_statistics(asked.name, asked.version)
        return _bytes(messages.ModelStatisticsResponse(**said))

    # ---------------------------------------------------------------- repository

    async def repository_index(self, body: bytes, _budget_ms: int | None = None) -> bytes:
        """Every version of every servable. Raises RequestError."""
        asked = _read(messages.RepositoryIndexRequest, body)
        response = messages.RepositoryIndexResponse()
        for item in await self._repository.index(asked.repository_name, asked.ready):
            response.models.add(**item)
        return _bytes(response)

    async def repository_load(self, body: bytes, _budget_ms: int | None = None) -> bytes:
        """Take a servable to its latest version, or the one in the parameters."""
        asked = _read(messages.RepositoryModelLoadRequest, body)
        await self._repository.load(asked.model_name, _repository_parameters(asked))
        return _bytes(messages.RepositoryModelLoadResponse())

    async def repository_unload(self, body: bytes, _budget_ms: int | None = None) -> bytes:
        """Refused: what is served is decided by who starts the server."""
        asked = _read(messages.RepositoryModelUnloadRequest, body)
        await self._repository.unload(asked.model_name)
        return _bytes(messages.RepositoryModelUnloadResponse())

    # ---------------------------------------------------------------- settings

    async def log_settings(self, body: bytes, _budget_ms: int | None = None) -> bytes:
        """Log settings, perhaps after a change. Raises RequestError."""
        asked = _read(messages.LogSettingsRequest, body)
        wishes = {name: _choice(value) for name, value in asked.settings.items()}
        response = messages.LogSettingsResponse()
        for name, value in (await self._server.settings.log(wishes)).items():
            setattr(response.settings[name], _LOG_FIELDS[type(value)], value)
        return _bytes(response)

    async def trace_setting(self, body: bytes, _budget_ms: int | None = None) -> bytes:
        """Trace settings, perhaps after a change. Raises RequestError."""
        asked = _read(messages.TraceSettingRequest, body)
        wishes = {name: _trace_value(name, value.value) for name, value in asked.settings.items()}
        response = messages.TraceSettingResponse()
        settings = await self._server.settings.trace(asked.model_name, wishes)
        for name, values in settings.items():
            response.settings[name].value.extend([values] if isinstance(values, str) else values)
        return _bytes(response)


def _trace_value(name: str, values: Any) -> object:
    """None if it has none; the levels are a list, everything else is one text."""
    if name == "trace_level" or len(values) > 1:
        return list(values) or None
    return values[0] if values else None


def _choice(value: Any) -> Any:
    """What a message with `parameter_choice` holds; None if nothing."""
    return getattr(value, value.WhichOneof("parameter_choice") or "", None)


def _repository_parameters(asked: Any) -> dict[str, Any]:
    return {name: _choice(value) for name, value in asked.parameters.items()}


def _read(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        name = kind.DESCRIPTOR.name
        raise RequestError("malformed", f"body is not a {name}: {error}") from None


def _bytes(message: Any) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized
