"""grpcio's own health and reflection clients against a server of `probe`: GRPC and REST address."""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVING = health_pb2.HealthCheckResponse.SERVING


def check_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "probe", "probe.double", "inference.GRPCInferenceService"):
        request = health_pb2.HealthCheckRequest(service=service)
        assert stub.Check(request, timeout=10).status == SERVING, service
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="probe"))
    assert next(watch).status == SERVING
    watch.cancel()
    code = None
    try:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    except grpc.RpcError as error:
        code = error.code()
    assert code == grpc.StatusCode.NOT_FOUND


def check_reflection(channel):
    """Call a method of which nothing is known but what the server tells."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "inference.GRPCInferenceService" in database.get_services()
    assert "mindspore.serving.proto.MSService" in database.get_services()
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    method = service.FindMethodByName("ServerMetadata")
    call = channel.unary_unary(
        f"/{service.full_name}/{method.name}",
        lambda message: message.SerializeToString(),
        GetMessageClass(method.output_type).FromString,
    )
    assert call(GetMessageClass(method.input_type)(), timeout=10).name == "mindbus"


def main(grpc_address, _rest_address):
    with grpc.insecure_channel(grpc_address) as channel:
        check_health(channel)
        check_reflection(channel)
    print("every check passed")


if __name__ == "__main__":
    main(*sys.argv[1:])
