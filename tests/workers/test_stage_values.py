"""The mapping between values and what Python stages see and return."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from protocol.values import DTYPES, BytesValue, StringValue
from workers.stages.stage_values import (
    ContractError,
    byte_count,
    dtype_name,
    from_python,
    make_writable,
    to_python,
    type_name,
)


class FakeTensor:
    """Has `asnumpy`, as a MindSpore Tensor has."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def asnumpy(self) -> Any:
        return self._array


def test_text_arrives_as_str() -> None:
    assert to_python(StringValue("grüße", (1,))) == "grüße"


def test_bytes_arrive_as_one_dimensional_uint8_array() -> None:
    array = to_python(make_writable(BytesValue(b"\x01\x02\xff")))
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.uint8
    assert array.tolist() == [1, 2, 255]
    assert array.flags.writeable


def test_empty_bytes_arrive_as_empty_array() -> None:
    array = to_python(make_writable(BytesValue(b"")))
    assert isinstance(array, np.ndarray)
    assert array.shape == (0,)


def test_a_writable_array_arrives_as_itself_and_a_read_only_one_as_a_copy() -> None:
    writable = np.zeros(3)
    assert to_python(make_writable(writable)) is writable
    read_only = np.frombuffer(b"\x01\x02", dtype=np.uint8)
    copied = to_python(make_writable(read_only))
    assert isinstance(copied, np.ndarray)
    assert copied.flags.writeable
    assert copied.tolist() == [1, 2]
    assert make_writable(np.broadcast_to(np.int32(5), ())).shape == ()  # type: ignore[union-attr]


def test_edits_of_a_bytes_array_reach_the_value_it_came_from() -> None:
    value = make_writable(BytesValue(b"abc", (1,)))
    to_python(value)[0] = ord("x")  # type: ignore[index]
    assert isinstance(value, BytesValue)
    assert bytes(value.content) == b"xbc"
    assert value.shape == (1,)
    assert make_writable(value) is value


@pytest.mark.parametrize(
    ("result", "dtype", "item"),
    [
        (True, "bool", True),
        (7, "int64", 7),
        (-(1 << 63), "int64", -(1 << 63)),
        (2.5, "float64", 2.5),
        (np.float64(2.5), "float64", 2.5),
        (np.float32(2.5), "float32", 2.5),
        (np.int16(3), "int16", 3),
        (np.bool_(True), "bool", True),
    ],
)
def test_scalars_become_arrays_without_dimensions(result: Any, dtype: str, item: Any) -> None:
    value = from_python(result)
    assert isinstance(value, np.ndarray)
    assert (value.dtype.name, value.shape, value.item()) == (dtype, (), item)


def test_str_and_bytes_become_values_without_dimensions() -> None:
    assert from_python("äh") == StringValue("äh", ())
    assert from_python(np.str_("x")) == StringValue("x", ())
    assert type(from_python(np.str_("x")).text) is str  # type: ignore[union-attr]
    assert from_python(b"ab") == BytesValue(b"ab", ())


@pytest.mark.parametrize("name", DTYPES)
def test_arrays_of_every_supported_dtype_are_passed_as_the_same_memory(name: str) -> None:
    array = np.zeros((2, 3), dtype=name)
    value = from_python(array)
    assert isinstance(value, np.ndarray)
    assert value.dtype == array.dtype
    assert np.shares_memory(value, array)


@pytest.mark.parametrize(
    "view",
    [np.arange(6).reshape(2, 3).T, np.arange(12).reshape(3, 4)[:, ::2], np.broadcast_to(4, (2, 2))],
)
def test_arrays_of_any_layout_become_c_contiguous(view: Any) -> None:
    value = from_python(view)
    assert isinstance(value, np.ndarray)
    assert value.flags.c_contiguous
    assert value.tolist() == view.tolist()


def test_other_array_likes_are_converted_by_numpy() -> None:
    assert from_python([1, 2]).dtype == np.int64  # type: ignore[union-attr]
    assert from_python([1.5]).tolist() == [1.5]  # type: ignore[union-attr]
    assert from_python(FakeTensor(np.ones(2, np.float16))).dtype == np.float16  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("result", "type_text"),
    [
        (None, "<class 'NoneType'>"),
        ({"a": 1}, "<class 'dict'>"),
        (1j, "<class 'complex'>"),
        (1 << 63, "<class 'int'>"),
        (np.array([1, 2], dtype=">i4"), "<class 'numpy.ndarray'>"),
        (np.array(["a"]), "<class 'numpy.ndarray'>"),
        (np.array([None]), "<class 'numpy.ndarray'>"),
        ([[1], [1, 2]], "<class 'list'>"),
        (np.datetime64("2020"), "<class 'numpy.datetime64'>"),
        (FakeTensor(np.array([1j])), f"{FakeTensor}"),
    ],
)
def test_anything_else_is_a_contract_violation(result: Any, type_text: str) -> None:
    text = f"Push py task result cause exception: Get illegal result data with type {type_text}"
    with pytest.raises(ContractError, match=f"^{re.escape(text)}$"):
        from_python(result)


def test_text_that_is_not_unicode_is_a_contract_violation() -> None:
    with pytest.raises(ContractError, match=r"Push py task result cause exception: .*surrogates"):
        from_python("\udc80")


def test_types_have_the_names_of_mindspore_serving() -> None:
    assert [dtype_name(dtype) for dtype in DTYPES.values()] == [
        "kMSI_Bool",
        "kMSI_Int8",
        "kMSI_Uint8",
        "kMSI_Int16",
        "kMSI_Uint16",
        "kMSI_Int32",
        "kMSI_Uint32",
        "kMSI_Int64",
        "kMSI_Uint64",
        "kMSI_Float16",
        "kMSI_Float32",
        "kMSI_Float64",
    ]
    assert dtype_name(np.dtype("complex64")) == "kMSI_Unknown"
    assert type_name(StringValue("")) == "kMSI_String"
    assert type_name(BytesValue(b"")) == "kMSI_Bytes"


def test_bytes_of_values_are_those_of_their_content() -> None:
    assert byte_count(np.zeros((2, 3), np.float32)) == 24
    assert byte_count(StringValue("äb")) == 3
    assert byte_count(BytesValue(memoryview(b"abc"))) == 3
