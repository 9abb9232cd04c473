"""gRPC's server reflection: tells clients such as grpcurl which messages the door speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError

from gateway.rpcs import Rpcs
from protocol import ms_service_pb2, status
from protocol.errors import RequestError
from protocol.oip_messages import FILES, ReflectionRequest, ReflectionResponse

PACKAGE = "grpc.reflection.v1"
PACKAGE_BEFORE = "grpc.reflection.v1alpha"

_REFLECTION_FILE = "protocol/reflection.proto"


class ReflectionService:
    """Answers ServerReflectionInfo of both versions, which have the same messages."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        #: Names of the services of all files.
        self.services: list[str] = []
        files = [*FILES.values(), ms_service_pb2.DESCRIPTOR.serialized_pb, _file_before()]
        for serialized in files:
            self._pool.AddSerializedFile(serialized)
            file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
            self.services += [f"{file.package}.{service.name}" for service in file.service]

    def rpcs(self) -> Rpcs:
        """The RPCs of both versions."""
        names = (PACKAGE, PACKAGE_BEFORE)
        return Rpcs(
            {}, {}, {f"/{n}.ServerReflection/ServerReflectionInfo": self.info for n in names}
        )

    async def info(
        self, requests: AsyncIterator[bytes], _budget_ms: int | None = None
    ) -> AsyncIterator[bytes]:
        """Answer each ServerReflectionRequest. Raises RequestError (malformed)."""
        async for body in requests:
            try:
                asked = ReflectionRequest.FromString(body)
            except DecodeError as error:
                text = f"body is not a ServerReflectionRequest: {error}"
                raise RequestError("malformed", text) from None
            yield self._answer(asked).SerializeToString()

    def _answer(self, asked: Any) -> Any:
        response = ReflectionResponse(valid_host=asked.host, original_request=asked)
        kind = asked.WhichOneof("message_request")
        try:
            if kind == "list_services":
                for name in sorted(self.services):
                    response.list_services_response.service.add(name=name)
            elif kind == "file_by_filename":
                self._add_file(response, self._pool.FindFileByName(asked.file_by_filename))
            elif kind == "file_containing_symbol":
                symbol = asked.file_containing_symbol
                self._add_file(response, self._pool.FindFileContainingSymbol(symbol))
            else:  # nothing here has extensions
                raise KeyError(kind)
        except KeyError:
            response.error_response.error_code = status.NOT_FOUND
            response.error_response.error_message = f"{kind} finds nothing here"
        return response

    def _add_file(self, response: Any, file: Any) -> None:
        # No file imports another one.
        response.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)


def _file_before() -> bytes:
    """The file of the version before, which differs in nothing but its package."""
    file = descriptor_pb2.FileDescriptorProto.FromString(FILES[_REFLECTION_FILE])
    file.name = _REFLECTION_FILE.replace("reflection", "reflection_v1alpha")
    file.package = PACKAGE_BEFORE
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{PACKAGE}.", f".{PACKAGE_BEFORE}.")
    for service in file.service:
        for method in service.method:
            for side in ("input_type", "output_type"):
                name = getattr(method, side).replace(f".{PACKAGE}.", f".{PACKAGE_BEFORE}.")
                setattr(method, side, name)
    serialized: bytes = file.SerializeToString()
    return serialized
