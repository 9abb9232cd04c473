"""The gRPC door: MindSpore Serving's `MSService/Predict` over grpcio's asyncio server.

No serializers: the handler gets and gives the bytes of the messages. The status is OK for all that
the application decides; the library itself answers RESOURCE_EXHAUSTED (message sizes),
UNIMPLEMENTED (other RPCs), DEADLINE_EXCEEDED and CANCELLED.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

import grpc
import grpc.aio

from gateway.addresses import AddressError, TcpAddress, UnixAddress, parse_grpc_address
from gateway.doors import DoorError
from gateway.tls import TlsSettings, grpc_credentials
from protocol import limits
from protocol.errors import RequestError

PREDICT = "/mindspore.serving.proto.MSService/Predict"

#: Trailing metadata of a refused call: the name of its reason (`protocol.status.REASONS`).
REASON_KEY = "mindbus-reason"


class PredictHandler(Protocol):
    """What the door asks of a handler; `MsServiceHandler` is one."""

    def predict(self, body: bytes, budget_ms: int | None) -> Awaitable[bytes]:
        """Answer one message. Raises RequestError for bytes that are none."""


class GrpcDoor:
    """An open gRPC port (or unix socket). Make it with `open`, on the loop that serves it."""

    def __init__(self, server: grpc.aio.Server, address: str) -> None:
        self._server = server
        #: where it listens, with the real port
        self.address = address

    @classmethod
    async def open(
        cls,
        handler: PredictHandler,
        address: str,
        max_msg_mb_size: int = limits.MESSAGE_MB_DEFAULT,
        tls: TlsSettings | None = None,
        *,
        reuse_port: bool = False,
    ) -> GrpcDoor:
        """Listen at `ip:port`, `host:port` or `unix:path`; port 0 stands for any free one.

        max_msg_mb_size: MiB (1 to 512) that a message may have, received or sent.
        reuse_port: share the port with other gateways of this server (SO_REUSEPORT).
        Raises: DoorError with MindSpore Serving's texts; also if a TLS file cannot be read.
        """
        assert limits.MESSAGE_MB_MIN <= max_msg_mb_size <= limits.MESSAGE_MB_MAX, max_msg_mb_size
        try:
            where = parse_grpc_address(address, zero_allowed=True)
            credentials = grpc_credentials(tls) if tls else None
        except (AddressError, OSError) as error:
            raise DoorError(str(error)) from None
        message_bytes_max = max_msg_mb_size * limits.MIB
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.max_receive_message_length", message_bytes_max),
                ("grpc.max_send_message_length", message_bytes_max),
            ]
        )
        server.add_generic_rpc_handlers((_Service(handler),))
        try:
            if credentials is None:
                port = server.add_insecure_port(str(where))
            else:
                port = server.add_secure_port(str(where), credentials)
        except RuntimeError:
            port = 0
        if not port:
            await server.stop(None)
            raise DoorError(
                "Serving Error: Serving gRPC server start failed, create server failed, "
                f"address {address}"
            )
        await server.start()
        return cls(server, _bound(where, port))

    async def close(self, grace_s: float) -> None:
        """Take no new calls, let running ones finish for `grace_s` seconds, then cancel them."""
        await self._server.stop(grace_s)


class _Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The one RPC of the door; every other name is answered UNIMPLEMENTED by grpcio."""

    def __init__(self, handler: PredictHandler) -> None:
        self._handler = handler
        self._predict_method = grpc.unary_unary_rpc_method_handler(self._predict)

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of an RPC by its full name; None if there is none."""
        return self._predict_method if call.method == PREDICT else None

    async def _predict(self, body: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        remaining_s = context.time_remaining()
        # A deadline that is nearly over still is one: 0 would mean that there is none.
        budget_ms = None if remaining_s is None else max(1, int(remaining_s * 1000))
        try:
            return await self._handler.predict(body, budget_ms)
        except RequestError as error:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, error.message, ((REASON_KEY, error.reason),)
            )
            raise AssertionError("abort returned") from None


def _bound(where: TcpAddress | UnixAddress, port: int) -> str:
    return str(where._replace(port=port) if isinstance(where, TcpAddress) else where)
