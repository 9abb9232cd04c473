"""Messages of one byte below, at and above the limit, through whole servers."""

from __future__ import annotations

import json

import grpc
import pytest

from protocol import limits
from protocol import ms_service_pb2 as pb
from tests.processes.doors import PREDICT, GrpcDoor, RestDoor, text_tensor
from tests.processes.probe import broker_stats, probe_server

pytestmark = pytest.mark.process

UNBOUNDED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def predict_request(door: GrpcDoor, size: int) -> bytes:
    """A request of `echo` with exactly so many bytes; so many has its reply, too."""
    content_bytes = size
    while True:
        request = door.request("echo", [{"x": text_tensor(bytes(content_bytes), 14)}])
        if request.ByteSize() == size:
            return bytes(request.SerializeToString())
        content_bytes += size - request.ByteSize()


def rest_document(size: int) -> bytes:
    """A request of `echo` with exactly so many bytes, filled up with spaces."""
    document = json.dumps({"instances": [{"x": "a" * (size // 2)}]}).encode()
    return document + b" " * (size - len(document))


@pytest.mark.shows("F17", "R16")
@pytest.mark.parametrize(
    ("mode", "megabytes"), [("embedded", 1), ("standalone", 1), ("embedded", 100)]
)
def test_the_limit_of_a_door_holds_to_the_byte(mode: str, megabytes: int) -> None:
    limit = megabytes * limits.MIB
    flags = ("--device-ids", "0", "--mode", mode, "--max-msg-mb-size", str(megabytes))
    with probe_server(*flags) as server:
        door, rest_door = (
            GrpcDoor(server.grpc_address, "probe"),
            RestDoor(server.rest_address, "probe"),
        )
        with grpc.insecure_channel(server.grpc_address, UNBOUNDED) as channel:
            call = channel.unary_unary(PREDICT)
            for size in (limit - 1, limit):
                request = predict_request(door, size)
                # Field 3 holds the instances of replies, field 2 those of requests.
                sent = pb.PredictRequest.FromString(request).instances[0]
                got = pb.PredictReply.FromString(call(request, timeout=60)).instances[0]
                assert got.items["x"].bytes_val[0] == sent.items["x"].bytes_val[0]
            with pytest.raises(grpc.RpcError) as error:
                call(predict_request(door, limit + 1), timeout=60)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"Received message larger than max ({limit + 1} vs. {limit})" in str(error.value)
        for size in (limit - 1, limit):
            answer = rest_door.send(rest_document(size), "/model/probe:echo")
            assert answer == {"instances": [{"x": "a" * (size // 2)}]}
        answer = rest_door.send(rest_document(limit + 1), "/model/probe:echo")
        assert answer == {"error_msg": f"http message is bigger than {limit}"}
        stats = broker_stats(server)
        assert (stats["requests"], stats["request_bytes"]) == (0, 0)
        door.close()
        rest_door.close()
