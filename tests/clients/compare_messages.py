"""Compares our messages with those of Triton's client, by numbers, types and names."""

import importlib.util
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from tritonclient.grpc import model_config_pb2, service_pb2

SERVICE = "inference.GRPCInferenceService"
ROOT = Path(__file__).resolve().parents[2]


def our_file():
    """The serialized protocol file; nothing else of ours can be imported here."""
    path = ROOT / "protocol" / "descriptors_pb2.py"
    spec = importlib.util.spec_from_file_location("descriptors_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OIP


def facts(field):
    message, oneof = field.message_type, field.containing_oneof
    return (
        field.name,
        field.number,
        field.type,
        field.is_repeated,
        message and message.full_name,
        oneof and oneof.name,
    )


def compare(ours, theirs):
    """How many fields are compared."""
    count = 0
    for field in ours.fields:
        assert facts(field) == facts(theirs.fields_by_number[field.number]), field.full_name
        count += 1
    nested = theirs.nested_types_by_name
    return count + sum(compare(each, nested[each.name]) for each in ours.nested_types)


def main():
    serialized = our_file()
    ours = descriptor_pool.DescriptorPool()
    ours.AddSerializedFile(serialized)
    theirs = service_pb2.DESCRIPTOR.pool
    assert model_config_pb2.DESCRIPTOR.pool is theirs
    file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    count = 0
    for message in file.message_type:
        name = f"inference.{message.name}"
        count += compare(ours.FindMessageTypeByName(name), theirs.FindMessageTypeByName(name))
    numbers = ours.FindEnumTypeByName("inference.DataType").values_by_name
    for name, value in theirs.FindEnumTypeByName("inference.DataType").values_by_name.items():
        assert numbers[name].number == value.number, name
    methods = theirs.FindServiceByName(SERVICE).methods_by_name
    for method in ours.FindServiceByName(SERVICE).methods:
        other = methods[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name
        assert method.client_streaming == other.client_streaming
        assert method.server_streaming == other.server_streaming
    print(f"the same: {count} fields")


if __name__ == "__main__":
    sys.exit(main())
