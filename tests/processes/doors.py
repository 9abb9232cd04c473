"""Ways into a running server, as clients take them: gRPC, REST, raw protobuf, raw ZeroMQ."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc

from mindspore_serving.client import Client
from protocol import ms_service_pb2 as pb

PREDICT = "/mindspore.serving.proto.MSService/Predict"
DEADLINE_S = 60.0


class Outcome(NamedTuple):
    """What a door said: per instance its outputs or an error text, or one text for all."""

    results: list[Any]
    error: str | None = None
    code: int | None = None


class GrpcDoor:
    """The MSService door, with generated messages and nothing else of ours."""

    def __init__(self, address: str, servable: str) -> None:
        self.address = address
        self._servable = servable
        self._channel = grpc.insecure_channel(address)
        self._call = self._channel.unary_unary(
            PREDICT,
            request_serializer=pb.PredictRequest.SerializeToString,
            response_deserializer=pb.PredictReply.FromString,
        )

    def predict(self, request: pb.PredictRequest) -> pb.PredictReply:
        """Send one message as it is."""
        reply: pb.PredictReply = self._call(request, timeout=DEADLINE_S)
        return reply

    def request(
        self,
        method: str,
        instances: Iterable[dict[str, pb.Tensor]] = (),
        version: int = 0,
        servable: str | None = None,
    ) -> pb.PredictRequest:
        """A message for a method; a tensor per input."""
        message = pb.PredictRequest()
        message.servable_spec.name = self._servable if servable is None else servable
        message.servable_spec.method_name = method
        message.servable_spec.version_number = version
        for items in instances:
            instance = message.instances.add()
            for name, tensor in items.items():
                instance.items[name].CopyFrom(tensor)
        return message

    def errors(self, reply: pb.PredictReply) -> list[tuple[int, str]]:
        """The error entries of a reply."""
        return [(error.error_code, error.error_msg.decode()) for error in reply.error_msg]

    def client(self, method: str, version: int = 0) -> Client:
        """The client library of MindSpore Serving for a method."""
        return Client(self.address, self._servable, method, version)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class RestDoor:
    """The REST door on one kept connection."""

    def __init__(self, address: str, servable: str) -> None:
        self._servable = servable
        self._connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)

    def send(self, body: bytes | str, target: str, verb: str = "POST") -> Any:
        """Send a body as it is; returns the parsed answer. Every answer is JSON with status 200."""
        self._connection.request(verb, target, body)
        response = self._connection.getresponse()
        content = response.read()
        assert response.status == 200, (response.status, content)
        assert response.getheader("Content-Type") == "application/json"
        return json.loads(content) if verb != "HEAD" else None

    def infer(self, method: str, instances: Any, version: int | None = None) -> Any:
        """Send instances to a method."""
        middle = "" if version is None else f"/version/{version}"
        target = f"/model/{self._servable}{middle}:{method}"
        return self.send(json.dumps({"instances": instances}), target)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def tensor(array: Any) -> pb.Tensor:
    """A numeric tensor message of an array."""
    message = pb.Tensor(dtype=DTYPE_NUMBERS[array.dtype.name], data=array.tobytes())
    message.shape.dims.extend(array.shape)
    return message


def text_tensor(content: bytes, dtype: int = 13, dims: tuple[int, ...] = (1,)) -> pb.Tensor:
    """A MS_STRING (13) or MS_BYTES (14) tensor message."""
    message = pb.Tensor(dtype=dtype, bytes_val=[content])
    message.shape.dims.extend(dims)
    return message


DTYPE_NUMBERS = {
    "bool": 1,
    "int8": 2,
    "uint8": 3,
    "int16": 4,
    "uint16": 5,
    "int32": 6,
    "uint32": 7,
    "int64": 8,
    "uint64": 9,
    "float16": 10,
    "float32": 11,
    "float64": 12,
}
