"""Which Python value becomes which tensor, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mindspore_serving.client.messages import build_request, fill_tensor, read_reply, read_tensor
from protocol import ms_service_pb2 as ms_service


def _tensor(value: object) -> ms_service.Tensor:
    tensor = ms_service.Tensor()
    fill_tensor(tensor, value)
    return tensor


@pytest.mark.parametrize(
    ("value", "dtype", "dims", "content"),
    [
        (np.array([[1, 2]], np.int16), "MS_INT16", [1, 2], b"\x01\x00\x02\x00"),
        (np.array([[1, 2], [3, 4]], np.uint8).T, "MS_UINT8", [2, 2], b"\x01\x03\x02\x04"),
        (np.array(7, np.uint8), "MS_UINT8", [], b"\x07"),
        (np.int8(-1), "MS_INT8", [], b"\xff"),
        (np.float16(1), "MS_FLOAT16", [], b"\x00\x3c"),
        (np.float32(1), "MS_FLOAT32", [], b"\x00\x00\x80\x3f"),
        (np.float64(1), "MS_FLOAT64", [], np.float64(1).tobytes()),
        (np.array([True, False]), "MS_BOOL", [2], b"\x01\x00"),
        (np.zeros((3, 0), np.int32), "MS_INT32", [3, 0], b""),
        (True, "MS_BOOL", [1], b"\x01"),
        (5, "MS_INT64", [1], np.int64(5).tobytes()),
        (2**63, "MS_UINT64", [1], np.uint64(2**63).tobytes()),
        (1.5, "MS_FLOAT64", [1], np.float64(1.5).tobytes()),
    ],
)
def test_a_number_becomes_a_tensor(value: Any, dtype: str, dims: list[int], content: bytes) -> None:
    tensor = _tensor(value)
    assert ms_service.DataType.Name(tensor.dtype) == dtype
    assert list(tensor.shape.dims) == dims
    assert tensor.data == content
    assert list(tensor.bytes_val) == []


@pytest.mark.parametrize(
    ("value", "dtype", "content"),
    [
        ("模", "MS_STRING", "模".encode()),
        ("", "MS_STRING", b""),
        (np.str_("a"), "MS_STRING", b"a"),
        (b"\xff\x00", "MS_BYTES", b"\xff\x00"),
        (b"", "MS_BYTES", b""),
    ],
)
def test_a_text_becomes_one_entry_of_shape_one(value: Any, dtype: str, content: bytes) -> None:
    tensor = _tensor(value)
    assert ms_service.DataType.Name(tensor.dtype) == dtype
    assert list(tensor.shape.dims) == [1]
    assert list(tensor.bytes_val) == [content]
    assert tensor.data == b""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, 2], "Not support value type <class 'list'>"),
        (None, "Not support value type <class 'NoneType'>"),
        (np.True_, f"Not support value type {np.bool_}"),
        (np.array(["a"]), "Unknown data type <U1"),
        (np.array([None]), "Unknown data type object"),
        (np.array([1j]), "Unknown data type complex128"),
        (np.array([1], ">i4"), "Unknown data type >i4"),
        (2**64, "Unknown data type object"),
    ],
)
def test_a_value_that_no_tensor_can_hold_is_refused(value: Any, text: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        _tensor(value)
    assert str(raised.value) == text


@pytest.mark.parametrize("instances", [1, "a", [1], [{}, []], None, iter([{}])])
def test_an_instance_must_be_a_dict(instances: object) -> None:
    with pytest.raises(RuntimeError, match=r"^instance should be a map$"):
        build_request("add", "m", 0, instances)


def test_a_name_that_is_no_str_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        build_request("add", "m", 0, {1: 1})


def test_a_dict_is_one_instance_and_a_list_or_tuple_is_several() -> None:
    one = build_request("add", "m", 3, {"x": 1})
    assert (one.servable_spec.name, one.servable_spec.method_name) == ("add", "m")
    assert one.servable_spec.version_number == 3
    assert len(one.instances) == 1
    assert len(build_request("add", "m", 0, ({"x": 1}, {"x": 2})).instances) == 2
    assert len(build_request("add", "m", 0, []).instances) == 0


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 0)])
def test_a_numeric_tensor_comes_back_as_the_array_it_was(dtype: str, shape: Any) -> None:
    array = np.ones(shape, dtype)
    back = read_tensor(_tensor(array))
    assert back.dtype == array.dtype
    assert back.shape == shape
    np.testing.assert_array_equal(back, array)
    assert not back.flags.writeable


def test_texts_come_back_as_str_bytes_or_a_list_of_several() -> None:
    assert read_tensor(_tensor("模")) == "模"
    assert read_tensor(_tensor(b"\xff")) == b"\xff"
    two = ms_service.Tensor(dtype=ms_service.MS_BYTES, bytes_val=[b"a", b"b"])
    assert read_tensor(two) == [b"a", b"b"]


def test_a_tensor_without_dtype_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        read_tensor(ms_service.Tensor(data=b"1"))


def _reply(instances: int, codes: list[int]) -> ms_service.PredictReply:
    reply = ms_service.PredictReply()
    for number in range(instances):
        fill_tensor(reply.instances.add().items["y"], str(number))
    for number, code in enumerate(codes):
        reply.error_msg.add(error_code=code, error_msg=f"why {number}".encode() if code else b"")
    return reply


@pytest.mark.parametrize(
    ("instances", "codes", "expected"),
    [
        (2, [], [{"y": "0"}, {"y": "1"}]),
        (1, [0], [{"y": "0"}]),
        (0, [], []),
        (0, [2], {"error": "why 0"}),
        (1, [3], {"error": "why 0"}),
        (3, [0, 3, 0], [{"y": "0"}, {"error": "why 1"}, {"y": "2"}]),
        (2, [1, 3], [{"error": "why 0"}, {"error": "why 1"}]),
    ],
)
def test_a_reply_is_a_list_or_one_error(instances: int, codes: list[int], expected: Any) -> None:
    assert read_reply(_reply(instances, codes)) == expected


@pytest.mark.parametrize(("instances", "codes"), [(2, [0]), (3, [0, 1]), (0, [0, 0]), (1, [1, 1])])
def test_a_count_of_errors_that_fits_no_form_is_refused(instances: int, codes: list[int]) -> None:
    with pytest.raises(RuntimeError) as raised:
        read_reply(_reply(instances, codes))
    assert str(raised.value) == (
        f"error msg result size {len(codes)} not be 0, 1 or length of instances {instances}"
    )


def test_an_error_text_cut_inside_of_a_character_can_still_be_read() -> None:
    reply = ms_service.PredictReply()
    reply.error_msg.add(error_code=1, error_msg="模".encode()[:2] + b"...")
    assert read_reply(reply) == {"error": "\ufffd..."}
