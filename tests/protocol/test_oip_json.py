"""The REST dialect of the Open Inference Protocol: JSON and binary tensors."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest

from protocol import native, oip_json
from protocol.errors import RemoteProtocolError, RequestError
from protocol.values import BytesValue, MethodSignature, StringValue
from tests.protocol.oip_helpers import (
    BATCHED,
    ONES,
    PYTHON,
    ZEROS,
    json_decode,
    json_input,
    json_reply,
)

X1 = json_input("x1", "FP32", [1, 2, 2], data=[[[1, 2], [3, 4.5]]])
X2 = json_input("x2", "FP32", [1, 2, 2], data=[0, 0, 0, 1])


def image(datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"inputs": [json_input("image", datatype, shape, **more)]}


def fails(
    document: Any, tail: bytes | None = None, method: MethodSignature = PYTHON
) -> tuple[str, str]:
    with pytest.raises(RequestError) as raised:
        json_decode(document, tail, method)
    return raised.value.reason, raised.value.message


# ---------------------------------------------------------------- requests


def test_data_is_nested_or_flat() -> None:
    ((x1, x2),) = json_decode({"inputs": [X1, X2]})
    assert isinstance(x1, np.ndarray)
    assert isinstance(x2, np.ndarray)
    assert x1.tolist() == [[1, 2], [3, 4.5]]
    assert x2.tolist() == [[0, 0], [0, 1]]
    assert x1.dtype == x2.dtype == np.float32


@pytest.mark.parametrize(
    ("datatype", "elements"),
    [
        ("BOOL", [True, False]),
        ("BOOL", [1, 0]),
        ("INT8", [-128, 127]),
        ("UINT64", [0, 2**64 - 1]),
        ("INT64", [-(2**63), 1]),
        ("FP16", [0.5, 2]),
        ("FP64", [1e300, 0.1]),
    ],
)
def test_elements_become_their_datatype(datatype: str, elements: list[Any]) -> None:
    ((array,),) = json_decode(image(datatype, [1, 2], data=elements), method=PYTHON)
    assert isinstance(array, np.ndarray)
    assert array.tolist() == elements


def test_texts_become_bytes_or_what_the_client_says() -> None:
    assert json_decode(image("BYTES", [2], data=["a", "ü"]), method=PYTHON) == [
        (BytesValue(b"a"),),
        (BytesValue("ü".encode()),),
    ]
    text = image("BYTES", [1], data=["ü"], parameters={"content_type": "str"})
    assert json_decode(text, method=PYTHON) == [(StringValue("ü"),)]
    written = image("BYTES", [1, 1], data=[["/w=="]], parameters={"content_type": "base64"})
    assert json_decode(written, method=PYTHON) == [(BytesValue(b"\xff", (1,)),)]


def test_binary_tensors_follow_the_json_in_the_order_of_the_inputs() -> None:
    document = {
        "inputs": [
            json_input("x1", "FP32", [1, 2, 2], parameters={"binary_data_size": 16}),
            X2,
        ]
    }
    ((x1, _),) = json_decode(document, ONES.tobytes())
    assert np.array_equal(x1, ONES)
    both = {
        "inputs": [
            json_input(name, "FP32", [1, 2, 2], parameters={"binary_data_size": 16})
            for name in ("x2", "x1")
        ]
    }
    ((x1, x2),) = json_decode(both, ONES.tobytes() + ZEROS.tobytes())
    assert np.array_equal(x1, ZEROS)
    assert np.array_equal(x2, ONES)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"{", "unexpected end of data: line 1 column 2 (char 1)"),
        (b"\xff", "str is not valid UTF-8: surrogates not allowed: line 1 column 1 (char 0)"),
        ([], "the document is a list, not an object"),
        ({}, "'inputs' is missing, not an array of objects"),
        ({"inputs": 5}, "'inputs' is a int, not an array of objects"),
        ({"inputs": [5]}, "'inputs' is a list, not an array of objects"),
        ({"inputs": [{}]}, "the name of an input is None, not a text"),
        ({"inputs": [{"name": "a"}]}, "input 'a': datatype None is not a text"),
        (
            {"inputs": [{"name": "a", "datatype": "FP32", "shape": [1.5]}]},
            "input 'a': shape [1.5] is not an array of integers",
        ),
        ({"inputs": [], "id": 5}, "id 5 is not a text"),
        ({"inputs": [], "outputs": {}}, "'outputs' is a dict, not an array of objects"),
        ({"inputs": [], "parameters": 1}, "the parameters of the request are a int, not an object"),
    ],
)
def test_a_document_that_is_no_request_is_malformed(document: Any, text: str) -> None:
    assert fails(document) == ("malformed", f"body is not an inference request: {text}")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (image("INT8", [1, 1], data=[128]),
         "input 'image': data has 128, INT8 goes from -128 to 127"),
        (image("BOOL", [1, 1], data=[2]), "input 'image': data has 2, BOOL goes from 0 to 1"),
        (image("INT8", [1, 1], data=[1.5]), "input 'image': data has elements that are no INT8"),
        (image("INT8", [1, 1], data=[True]), "input 'image': data has elements that are no INT8"),
        (image("FP32", [1, 1], data=["1"]), "input 'image': data has elements that are no FP32"),
        (image("FP32", [1, 1], data=[None]), "input 'image': data has elements that are no FP32"),
        (image("FP32", [1, 1], data=[1e300]), "input 'image': data has numbers beyond FP32"),
        (image("FP32", [2, 2], data=[[1, 2], [3]]),
         "input 'image': data has rows of different lengths"),
        (image("FP32", [1, 2], data=[1]), "input 'image' has 1 elements, shape [1, 2] has 2"),
        (image("FP32", [1, 2]), "input 'image': data is missing, not an array"),
        (image("FP32", [1, 2], data=5), "input 'image': data is a int, not an array"),
        (image("BYTES", [1], data=[5]),
         "input 'image': data has a int, BYTES have texts only"),
        (image("FP32", [1, 1], data=[1], parameters={"binary_data_size": 4}),
         "input 'image' has data beside binary_data_size"),
        (image("FP32", [1, 1], parameters={"binary_data_size": 4}),
         "input 'image': binary_data_size 4 is more than the 0 B that are left behind the JSON"),
    ],
)  # fmt: skip
def test_data_that_does_not_fit_is_named(document: Any, text: str) -> None:
    assert fails(document) == ("invalid_inputs", text)


def test_bytes_behind_the_json_that_belong_to_no_input_are_refused() -> None:
    document = image("FP32", [1, 1], parameters={"binary_data_size": 4})
    assert fails(document, bytes(6)) == (
        "malformed",
        "body is not an inference request: 2 B behind the JSON belong to no input",
    )
    with pytest.raises(RequestError, match="99 B of JSON are not in a body of 2 B"):
        oip_json.decode_request(oip_json.pack_request("add", 99, b"{}"), PYTHON)


def test_frames_that_are_no_request_are_malformed() -> None:
    for frames in ([], [b""], [b"\xc1", b"{}"]):
        with pytest.raises(RequestError) as raised:
            oip_json.decode_request(frames, PYTHON)
        assert raised.value.reason == "malformed"


def test_changed_documents_never_do_worse_than_a_request_error() -> None:
    random = Random(7)
    strange = [None, True, -1, 1e300, 2**70, "", "x", [], [[]], {}, {"a": []}, [1, "a"], [[1], 2]]

    def change(value: Any) -> Any:
        if random.random() < 0.1:
            return random.choice(strange)
        if isinstance(value, dict):
            return {key: change(item) for key, item in value.items()}
        if isinstance(value, list):
            return [change(item) for item in value]
        return value

    document = {
        "id": "1",
        "parameters": {"timeout": 5, "binary_data_output": True, "content_type": "str"},
        "inputs": [X1, {**X2, "parameters": {"content_type": "str"}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    for _ in range(2_000):
        text = json.dumps(change(document)).encode()
        with suppress(RequestError):
            oip_json.scan_parameters(text, None)
        with suppress(RequestError):
            json_decode(text)


def test_the_timeout_is_found_without_a_look_at_anything_else() -> None:
    def timeout_ms(body: bytes, json_bytes: int | None = None) -> int:
        return oip_json.scan_parameters(body, json_bytes).timeout_ms

    assert timeout_ms(b'{"parameters":{"timeout":2000}}') == 2
    assert timeout_ms(b'{"parameters":{"timeout":2000}}xx', 31) == 2
    assert timeout_ms(b'{"parameters":{"priority":1}}') == 0
    assert timeout_ms(b'{"inputs":["timeout"]}') == 0
    assert timeout_ms(b'["timeout"]') == 0
    assert timeout_ms(b'{"timeout"') == 0
    with pytest.raises(RequestError, match="parameter timeout 'x' is not a number"):
        timeout_ms(b'{"parameters":{"timeout":"x"}}')


# ---------------------------------------------------------------- replies


def test_a_reply_is_json_with_flat_data() -> None:
    instances = json_decode({"inputs": [X1, X2], "id": "7"})
    assert json_reply(instances, BATCHED, (ONES,)) == (
        {
            "model_name": "add",
            "model_version": "3",
            "id": "7",
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [1, 2, 2], "data": [1, 1, 1, 1]}
            ],
        },
        b"",
    )


def test_a_reply_without_id_has_none() -> None:
    document, _ = json_reply(json_decode({"inputs": [X1, X2]}), BATCHED, (ONES,))
    assert "id" not in document


def test_outputs_are_binary_where_the_client_says_so() -> None:
    document = image("BYTES", [1], data=["a"])
    result = (StringValue("seven"), np.array(0.5))
    every = json_decode(document | {"parameters": {"binary_data_output": True}}, method=PYTHON)
    reply, tail = json_reply(every, PYTHON, result)
    assert [output["parameters"] for output in reply["outputs"]] == [
        {"binary_data_size": 9},
        {"binary_data_size": 8},
    ]
    assert tail == b"\x05\0\0\0seven" + np.array(0.5).tobytes()
    asked = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "label"}]
    one = json_decode(document | {"outputs": asked}, method=PYTHON)
    reply, tail = json_reply(one, PYTHON, result)
    assert tail == np.array(0.5).tobytes()
    assert reply["outputs"][1]["data"] == ["seven"]
    mixed = [{"name": "score", "parameters": {"binary_data": False}}, {"name": "label"}]
    most = json_decode(
        document | {"outputs": mixed, "parameters": {"binary_data_output": True}}, method=PYTHON
    )
    reply, tail = json_reply(most, PYTHON, result)
    assert reply["outputs"][0]["data"] == [0.5]
    assert tail == b"\x05\0\0\0seven"


def test_what_json_cannot_say_is_an_error_that_names_the_way_out() -> None:
    instances = json_decode(image("BYTES", [1], data=["a"]), method=PYTHON)
    with pytest.raises(RequestError, match=r"output 'score' is not finite.*binary_data"):
        json_reply(instances, PYTHON, (StringValue("x"), np.array(np.nan)))
    with pytest.raises(RequestError, match=r"output 'label' has bytes that are no text.*base64"):
        json_reply(instances, PYTHON, (BytesValue(b"\xff"), np.array(1)))


def test_bytes_come_as_base64_where_the_client_says_so() -> None:
    asked = [{"name": "label", "parameters": {"content_type": "base64"}}]
    document = image("BYTES", [1], data=["a"]) | {"outputs": asked}
    reply, _ = json_reply(
        json_decode(document, method=PYTHON), PYTHON, (BytesValue(b"\xff"), np.array(1))
    )
    assert reply["outputs"] == [
        {
            "name": "label",
            "datatype": "BYTES",
            "shape": [1],
            "parameters": {"content_type": "base64"},
            "data": ["/w=="],
        }
    ]


def test_more_binary_outputs_than_frames_are_joined() -> None:
    names = tuple(f"y{number}" for number in range(300))
    method = MethodSignature("many", "m", ("image",), names)
    document = image("BYTES", [1], data=["a"]) | {"parameters": {"binary_data_output": True}}
    instances = json_decode(document, method=method)
    _, tail = json_reply(instances, method, tuple(np.array(1, np.int8) for _ in names))
    assert tail == b"\x01" * 300


def test_a_reply_that_breaks_the_protocol_is_found() -> None:
    with pytest.raises(RemoteProtocolError, match="json_bytes"):
        oip_json.unpack_reply([native.pack_meta({"json_bytes": "x"}), b""])
    with pytest.raises(RemoteProtocolError):
        oip_json.unpack_reply([])
