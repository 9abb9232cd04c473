"""The numbers and types of the MSService wire, as clients of release 2.0 are built with them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from protocol import ms_service_pb2

FILE = ms_service_pb2.DESCRIPTOR

KINDS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
}

FIELDS = {
    "ServableSpec": {1: "string name", 2: "string method_name", 3: "uint64 version_number"},
    "PredictReply": {
        1: "ServableSpec servable_spec",
        3: "repeated Instance instances",
        4: "repeated ErrorMsg error_msg",
    },
    "ErrorMsg": {1: "int64 error_code", 2: "bytes error_msg"},
    "Instance": {
        1: "map<string, Tensor> items",
        2: "map<string, ShmTensorData> output_buffers",
    },
    "Tensor": {
        1: "TensorShape shape",
        2: "DataType dtype",
        3: "bytes data",
        4: "repeated bytes bytes_val",
        5: "ShmTensorData shm_data",
    },
    "TensorShape": {1: "repeated int64 dims"},
    "ShmTensorData": {
        1: "string memory_key",
        2: "uint64 bytes_size",
        3: "uint64 data_offset",
        4: "uint64 data_size",
    },
}


def kind(field: Any) -> str:
    """A field's type as a .proto file writes it."""
    if field.enum_type is not None:
        return str(field.enum_type.name)
    if field.message_type is None:
        return KINDS[field.type]
    if field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"map<{kind(key)}, {kind(value)}>"
    return str(field.message_type.name)


def fields(message: str) -> dict[int, str]:
    """Number, and the rest of the line in a .proto file, of each field."""
    described = {}
    for field in FILE.message_types_by_name[message].fields:
        text = f"{kind(field)} {field.name}"
        repeated = field.is_repeated and not text.startswith("map<")
        described[field.number] = f"repeated {text}" if repeated else text
    return described


@pytest.mark.parametrize("message", FIELDS)
def test_each_message_has_the_field_numbers_of_release_2_0(message: str) -> None:
    assert fields(message) == FIELDS[message]


def test_a_request_has_its_instances_in_field_2_and_those_of_old_clients_in_field_3() -> None:
    assert fields("PredictRequest") == {
        1: "ServableSpec servable_spec",
        2: "repeated Instance instances",
        3: "repeated Instance instances_before_1_3",
    }


def test_a_tensor_has_either_bytes_or_shared_memory() -> None:
    (oneof,) = FILE.message_types_by_name["Tensor"].oneofs
    assert (oneof.name, [field.number for field in oneof.fields]) == ("tensor_data", [3, 5])


def test_dtypes_have_the_numbers_of_release_2_0() -> None:
    values = sorted(FILE.enum_types_by_name["DataType"].values, key=lambda value: value.number)
    assert [value.number for value in values] == list(range(15))
    assert [value.name for value in values] == [
        *("MS_UNKNOWN", "MS_BOOL", "MS_INT8", "MS_UINT8", "MS_INT16", "MS_UINT16", "MS_INT32"),
        *("MS_UINT32", "MS_INT64", "MS_UINT64", "MS_FLOAT16", "MS_FLOAT32", "MS_FLOAT64"),
        *("MS_STRING", "MS_BYTES"),
    ]


def test_the_only_service_is_ms_service_with_the_one_call_predict() -> None:
    assert FILE.package == "mindspore.serving.proto"
    (service,) = FILE.services_by_name.values()
    (method,) = service.methods
    assert (service.name, method.name) == ("MSService", "Predict")
    assert (method.input_type.name, method.output_type.name) == ("PredictRequest", "PredictReply")
    assert not method.client_streaming
    assert not method.server_streaming
