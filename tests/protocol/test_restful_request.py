"""Requests of the RESTful dialect: every form of value, and every text about a wrong one."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from protocol import restful
from protocol.errors import RequestError
from protocol.values import StringValue
from tests.protocol.restful_helpers import METHOD, decode, decode_document, parse_refusal, refusal

# ---------------------------------------------------------------- plain values


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (7, "int32"),
        (-0, "int32"),
        (-(2**31), "int32"),
        (2**31 - 1, "int32"),
        (2.5, "float32"),
        (1e3, "float32"),
        (True, "bool"),
        ([1, 2, 3], "int32"),
        ([[1.5, 2.0], [3.0, -4.0]], "float32"),
        ([[[True]], [[False]]], "bool"),
        ([[-(2**31)], [2**31 - 1]], "int32"),
    ],
)
def test_numbers_get_the_dtype_of_their_json_kind(value: Any, dtype: str) -> None:
    array = decode(value)
    assert (array.dtype, array.shape) == (np.dtype(dtype), np.shape(value))
    assert array.tolist() == value
    assert array.flags.writeable
    assert array.flags.c_contiguous


def test_a_float_is_rounded_to_float32_and_overflows_to_infinity() -> None:
    assert decode([0.1]).tolist() == [float(np.float32(0.1))]
    assert decode(1e39) == np.inf
    assert decode([-1e39, 1.0]).tolist() == [-np.inf, 1.0]
    assert decode(2**70) == np.float32(2**70)


def test_text_has_no_dims_and_text_in_a_list_has_one() -> None:
    assert decode("hé") == StringValue("hé")
    assert decode([""]) == StringValue("", (1,))


INT32 = (
    "json integer {} is out of range of int32 [-2147483648, 2147483647], "
    "a base64 object can have type int64"
)


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**64 - 1])
def test_an_integer_outside_of_int32_is_named(number: int) -> None:
    for value in (number, [number], [[1], [number]], [[number, 1.5]]):
        assert parse_refusal(value) == INT32.format(number)


NOT_EQUAL = "json array, elements type is not equal"
NO_DATA = "json array, data should be number, bool, string or bytes"
NO_ARRAY = "invalid json array: json type is not array"
ONE_ITEM = "json array, string or bytes type only support one item"
UNKNOWN = "json array, data type is unknown"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "json value is null, it is not supported"),
        ([], "json array, shape is empty"),
        ([[]], UNKNOWN),
        ([None], UNKNOWN),
        ([[], 1], UNKNOWN),
        ([1, 2.5], NOT_EQUAL),
        ([1.5, 2], NOT_EQUAL),
        ([True, 1], NOT_EQUAL),
        ([[1, 1], [1.5, "a"]], NOT_EQUAL),
        ([1, "a"], NOT_EQUAL),
        ([1, None], NO_DATA),
        ([False, [True]], NO_DATA),
        ([1.5, {"b64": ""}], NO_DATA),
        ([[False], True], NO_ARRAY),
        ([[[1]], [2]], NO_ARRAY),
        ([[1, 2], [3]], "invalid json array: json size is 1, the dim 1 expected to be 2"),
        ([[1], []], "invalid json array: json size is 0, the dim 1 expected to be 1"),
        ([[[1, 2]], [[3]]], "invalid json array: json size is 1, the dim 2 expected to be 2"),
        ([[[1]], [[2], [3]]], "invalid json array: json size is 2, the dim 1 expected to be 1"),
        (["a", "b"], ONE_ITEM),
        (["a", 1.5], ONE_ITEM),
        ([["a", "b"], [1.1]], ONE_ITEM),
        ([{"b64": ""}, {"b64": ""}], ONE_ITEM),
    ],
)
def test_a_wrong_value_is_refused_with_the_original_text(value: Any, text: str) -> None:
    assert parse_refusal(value) == text


CHECK = "Instances input x check failed, detail: "
ONLY_ONE = CHECK + "Instance tensor check failed: bytes or string type input  shape can only be "


@pytest.mark.parametrize(
    "value",
    [
        [["a"]],
        [[{"b64": ""}]],
        {"b64": "", "shape": [1, 1]},
        {"b64": "", "type": "str", "shape": [1, 1]},
    ],
)
def test_text_of_two_dimensions_passes_the_parser_and_fails_the_tensor_check(value: Any) -> None:
    body = json.dumps({"instances": {"x": value}}).encode()
    assert restful.check_request(body) == 1
    assert refusal({"instances": {"x": value}}) == (
        ONLY_ONE + "(1,) or empty, but given shape is [1, 1]"
    )


def test_too_many_dimensions_fail_the_tensor_check() -> None:
    value: Any = 1
    for _ in range(33):
        value = [value]
    assert refusal({"instances": {"x": value}}) == (
        CHECK + f"Tensor check failed: input  shape {[1] * 33} invalid"
    )
    deep = b"[" * 1000 + b'"a"' + b"]" * 1000
    with pytest.raises(RequestError, match="shape can only be"):
        restful.decode_request([b'{"instances":{"x":' + deep + b"}}"], METHOD)


def test_a_tensor_that_the_method_does_not_take_is_not_checked() -> None:
    assert decode_document({"instances": {"x": 1, "other": [["a"]]}}) == [(1,)]


# ---------------------------------------------------------------- documents

NO_KEY = "instances no key mode is not supported"
ZERO_TIMES = "key 'instances' expects to exist once, but actually 0 times"


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, ZERO_TIMES),
        ([], ZERO_TIMES),
        (1, ZERO_TIMES),
        ("instances", ZERO_TIMES),
        ({"instances": {}}, "json object, value is empty"),
        ({"instances": []}, "instances value is array type, but no value"),
        ({"instances": None}, NO_KEY),
        ({"instances": 1}, NO_KEY),
        ({"instances": "x"}, NO_KEY),
        ({"instances": [1, {"x": 1}]}, NO_KEY),
        ({"instances": [{"x": 1}, 1]}, "json array, instance is not object type"),
        ({"instances": [{"x": 1}, {}]}, "json array, instance is object type, but no value"),
        ({"instances": [{}]}, "json array, instance is object type, but no value"),
        ({"instances": {"x": None, "": 1}}, "string key is empty"),
    ],
)
def test_a_wrong_document_is_refused_with_the_original_text(document: Any, text: str) -> None:
    assert refusal(document) == f"Parser request failed, {text}"


def test_one_object_is_one_instance_and_a_list_keeps_its_order() -> None:
    assert decode_document({"instances": {"x": 1}, "more": 0}) == [(1,)]
    assert decode_document({"instances": [{"x": 1}, {"x": 2}]}) == [(1,), (2,)]
    assert restful.check_request(b'{"instances":[{"x":1},{"x":2}]}') == 2


def test_of_duplicated_keys_the_last_counts() -> None:
    body = b'{"instances":1,"instances":[{"x":1,"x":"a"}]}'
    assert restful.decode_request([body], METHOD) == [(StringValue("a"),)]


def test_keys_are_checked_in_sorted_order_and_before_any_tensor() -> None:
    assert refusal({"instances": {"z": None, "a": []}}).endswith("json array, shape is empty")
    late = {"instances": [{"x": [["a"]]}, {"x": None}]}
    assert refusal(late) == "Parser request failed, json value is null, it is not supported"


def test_a_missing_input_is_named() -> None:
    expected = "Cannot find input x in instance input , servable add, method m"
    assert refusal({"instances": [{"x": 1}, {"y": 1}]}) == expected


def test_an_illegal_document_is_malformed() -> None:
    for frames in ([], [b""], [b"{"], [b'{"instances":"\xff"}'], [memoryview(b"[")]):
        with pytest.raises(RequestError) as caught:
            restful.decode_request(frames, METHOD)
        assert caught.value.reason == "malformed"
        assert caught.value.message.startswith("Illegal JSON format.")


def outcome(body: bytes) -> str:
    try:
        restful.decode_request([body], METHOD)
    except RequestError as error:
        return error.reason
    return "ok"


def test_mutated_documents_only_ever_raise_request_errors() -> None:
    rng = random.Random(4)
    seed = (
        b'{"instances":[{"x":[[1,2],[3,4]]},{"x":{"b64":"AAAA","type":"int8","shape":[3]}},'
        b'{"x":[{"b64":""}]},{"x":"a"},{"x":-1.5e3},{"x":[true]}]}'
    )
    alphabet = b'{}[]:,"\\ 0123456789.eE+-truefalsn\n\xc3\xa9\x01AZ='
    for _ in range(3000):
        body = bytearray(seed if rng.random() < 0.9 else rng.randbytes(rng.randrange(40)))
        for _ in range(rng.randrange(1, 4)):
            if body:
                body[rng.randrange(len(body))] = rng.choice(alphabet)
        assert outcome(bytes(body)) in ("ok", "malformed", "invalid_inputs")


def test_random_structures_only_ever_raise_request_errors() -> None:
    rng = random.Random(5)
    keys = ("x", "b64", "type", "shape", "", "instances")
    leaves = (
        None,
        True,
        0,
        -1,
        2**31,
        2**63,
        1.5,
        1e300,
        "",
        "a",
        "AAAA",
        "int8",
        "str",
        "é",
        [],
        {},
    )

    def build(depth: int) -> Any:
        kind = rng.random()
        if depth == 0 or kind < 0.4:
            return rng.choice(leaves)
        if kind < 0.7:
            return [build(depth - 1) for _ in range(rng.randrange(4))]
        return {rng.choice(keys): build(depth - 1) for _ in range(rng.randrange(4))}

    for _ in range(3000):
        document = {"instances": [{"x": build(4)} for _ in range(rng.randrange(1, 3))]}
        assert outcome(json.dumps(document).encode()) in ("ok", "invalid_inputs")
