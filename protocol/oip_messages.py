"""Message classes of the Open Inference Protocol and of gRPC's health and reflection services.

They are made from a pool of our own: a client library that is imported in the same process (by user
code in a worker, say) brings its own files of the same packages, and the default pool would refuse
whoever comes second. Numbers: oip.proto, health.proto, reflection.proto.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from protocol import descriptors_pb2

POOL = descriptor_pool.DescriptorPool()

#: Serialized files by name, for reflection.
FILES: dict[str, bytes] = {}

for _serialized in (descriptors_pb2.HEALTH, descriptors_pb2.OIP, descriptors_pb2.REFLECTION):
    _file = descriptor_pb2.FileDescriptorProto.FromString(_serialized)
    POOL.AddSerializedFile(_serialized)
    FILES[_file.name] = _serialized


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


ModelInferRequest = _message("inference.ModelInferRequest")
InferInputTensor = _message("inference.ModelInferRequest.InferInputTensor")
InferParameter = _message("inference.InferParameter")
ModelInferResponse = _message("inference.ModelInferResponse")
ModelStreamInferResponse = _message("inference.ModelStreamInferResponse")
ServerLiveResponse = _message("inference.ServerLiveResponse")
ServerReadyResponse = _message("inference.ServerReadyResponse")
ModelReadyRequest = _message("inference.ModelReadyRequest")
ModelReadyResponse = _message("inference.ModelReadyResponse")
ServerMetadataResponse = _message("inference.ServerMetadataResponse")
ModelMetadataRequest = _message("inference.ModelMetadataRequest")
ModelMetadataResponse = _message("inference.ModelMetadataResponse")
ModelConfigRequest = _message("inference.ModelConfigRequest")
ModelConfigResponse = _message("inference.ModelConfigResponse")
ModelStatisticsRequest = _message("inference.ModelStatisticsRequest")
ModelStatisticsResponse = _message("inference.ModelStatisticsResponse")
RepositoryIndexRequest = _message("inference.RepositoryIndexRequest")
RepositoryIndexResponse = _message("inference.RepositoryIndexResponse")
RepositoryModelLoadRequest = _message("inference.RepositoryModelLoadRequest")
RepositoryModelLoadResponse = _message("inference.RepositoryModelLoadResponse")
RepositoryModelUnloadRequest = _message("inference.RepositoryModelUnloadRequest")
RepositoryModelUnloadResponse = _message("inference.RepositoryModelUnloadResponse")
LogSettingsRequest = _message("inference.LogSettingsRequest")
LogSettingsResponse = _message("inference.LogSettingsResponse")
TraceSettingRequest = _message("inference.TraceSettingRequest")
TraceSettingResponse = _message("inference.TraceSettingResponse")
HealthCheckRequest = _message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = _message("grpc.health.v1.HealthCheckResponse")
ReflectionRequest = _message("grpc.reflection.v1.ServerReflectionRequest")
ReflectionResponse = _message("grpc.reflection.v1.ServerReflectionResponse")
