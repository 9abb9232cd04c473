"""A real gRPC server whose Predict does what a test scripts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from protocol import ms_service_pb2 as ms_service

Script = Callable[[ms_service.PredictRequest, grpc.ServicerContext], ms_service.PredictReply]

_SERVICE = "mindspore.serving.proto.MSService"


class ScriptedServer:
    """Answers Predict with `script`, remembers the requests; a context manager."""

    def __init__(self, script: Script, credentials: Any = None) -> None:
        self.requests: list[ms_service.PredictRequest] = []
        self._script = script
        self._server = grpc.server(
            ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", 1 << 20)]
        )
        handler = grpc.unary_unary_rpc_method_handler(
            self._predict,
            request_deserializer=ms_service.PredictRequest.FromString,
            response_serializer=ms_service.PredictReply.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {"Predict": handler}),)
        )
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.port = port
        self.address = f"127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(5)

    def _predict(
        self, request: ms_service.PredictRequest, context: grpc.ServicerContext
    ) -> ms_service.PredictReply:
        self.requests.append(request)
        return self._script(request, context)
