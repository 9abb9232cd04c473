"""The gRPC dialect of the Open Inference Protocol."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest

from docs.generate_messages import TARGET, generated
from protocol import oip
from protocol.errors import RequestError
from protocol.oip_messages import ModelInferRequest
from protocol.status import MS_INVALID_INPUTS, MS_SYSTEM_ERROR
from protocol.values import BytesValue, Failure, InstanceSpec, MethodTensors, StringValue
from tests.protocol.oip_helpers import (
    BATCHED,
    ONES,
    PYTHON,
    UNBATCHED,
    ZEROS,
    decode,
    failure,
    reply,
    request,
)


def fails(message: Any, method: Any = BATCHED) -> tuple[str, str]:
    with pytest.raises(RequestError) as raised:
        decode(message, method)
    return raised.value.reason, raised.value.message


def batch(*rows: Any) -> Any:
    return np.stack(rows)


def text_request(elements: list[bytes], shape: list[int], **parameters: Any) -> Any:
    message = ModelInferRequest(model_name="digits")
    tensor = message.inputs.add(name="image", datatype="BYTES", shape=shape)
    tensor.contents.bytes_contents.extend(elements)
    for name, value in parameters.items():
        tensor.parameters[name].string_param = value
    return message


# ---------------------------------------------------------------- the scan


def test_the_scan_reads_who_is_asked_and_how_many_instances() -> None:
    message = request(("x1", batch(ZEROS, ONES)), ("x2", batch(ONES, ONES)), id="7")
    message.model_version = "canary"
    message.parameters["timeout"].int64_param = 2_500_000
    scan = oip.scan_request(message.SerializeToString())
    assert scan[:4] == ("add", "canary", "7", 2)
    assert scan.parameters.timeout_ms == 2_500


def test_the_scan_reads_shapes_that_are_not_packed_and_fields_in_any_order() -> None:
    tensor = b"\x0a\x01x\x18\x05\x18\x02"
    body = b"\x2a" + bytes((len(tensor),)) + tensor + b"\x0a\x03add"
    assert oip.scan_request(body)[:4] == ("add", "", "", 5)


def test_the_scan_of_a_request_without_inputs_knows_no_count() -> None:
    assert oip.scan_request(b"")[:4] == ("", "", "", 0)
    assert oip.scan_request(request(("x1", np.float32(1))).SerializeToString()).instance_count == 0


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"\x0a\x05add", "it ends inside of a field"),
        (b"\x0a", "it ends inside of a field"),
        (b"\x2a\x03\x1a\x01\x80", "a shape ends inside of a number"),
        (b"\x2a\x0d\x1a\x0b" + b"\x80" * 10 + b"\1", "a number is longer than 10 B"),
        (b"\x0b", "field 1 has wire type 3"),
        (b"\xff" * 11, "a number is longer than 10 B"),
        (b"\x0a\x01\xff", "a text is not UTF-8"),
    ],
)
def test_bytes_that_are_no_request_are_malformed(body: bytes, rule: str) -> None:
    with pytest.raises(RequestError) as raised:
        oip.scan_request(body)
    assert raised.value.reason == "malformed"
    assert raised.value.message == f"body is not a ModelInferRequest: {rule}"


def test_cut_bytes_never_do_worse_than_a_request_error() -> None:
    body = request(("x1", batch(ZEROS)), ("x2", batch(ONES)), id="1").SerializeToString()
    for end in range(len(body)):
        for read in (oip.scan_request, lambda b: oip.decode_request([b], BATCHED)):
            with suppress(RequestError):
                read(body[:end])


def test_changed_bytes_never_do_worse_than_a_request_error() -> None:
    random = Random(7)
    message = request(("x1", batch(ZEROS)), ("x2", batch(ONES)), id="1")
    message.parameters["timeout"].int64_param = 5
    message.inputs[0].parameters["content_type"].string_param = "str"
    message.outputs.add(name="y")
    body = message.SerializeToString()
    for _ in range(3_000):
        changed = bytearray(body)
        for _ in range(random.randint(1, 4)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        for read in (oip.scan_request, lambda b: oip.decode_request([b], BATCHED)):
            with suppress(RequestError):
                read(bytes(changed))


@pytest.mark.parametrize("value", [-1, 1 << 62])
def test_a_timeout_is_a_number_of_microseconds_and_is_cut_to_the_largest_budget(value: int) -> None:
    message = request()
    message.parameters["timeout"].int64_param = value
    if value < 0:
        with pytest.raises(RequestError, match="parameter timeout -1 is not a number of micro"):
            oip.scan_request(message.SerializeToString())
    else:
        scan = oip.scan_request(message.SerializeToString())
        assert scan.parameters.timeout_ms == 86_400_000


def test_a_timeout_below_a_millisecond_still_is_one() -> None:
    message = request()
    message.parameters["timeout"].int64_param = 1
    assert oip.scan_request(message.SerializeToString()).parameters.timeout_ms == 1


# ---------------------------------------------------------------- batches


def test_a_tensor_with_a_batch_dimension_is_that_many_instances() -> None:
    instances = decode(request(("x2", batch(ONES, ZEROS)), ("x1", batch(ZEROS, ONES))))
    assert len(instances) == 2
    first, second = instances
    assert np.array_equal(first[0], ZEROS)
    assert np.array_equal(first[1], ONES)
    assert np.array_equal(second[0], ONES)
    assert all(value.flags.writeable and value.flags.c_contiguous for value in first)


def test_a_model_without_batch_dimension_takes_one_instance_or_many() -> None:
    one = decode(request(("x1", ZEROS), ("x2", ONES)), UNBATCHED)
    assert len(one) == 1
    assert reply(one, UNBATCHED, (ONES,)).outputs[0].shape == [2, 2]
    many = decode(request(("x1", batch(ZEROS)), ("x2", batch(ONES))), UNBATCHED)
    assert len(many) == 1
    assert reply(many, UNBATCHED, (ONES,)).outputs[0].shape == [1, 2, 2]


def test_scalars_of_a_batch_stay_arrays() -> None:
    spec = InstanceSpec("float32", ())
    method = BATCHED._replace(tensors=MethodTensors(True, (spec, spec), (None,)))
    instances = decode(request(("x1", ZEROS[0]), ("x2", ONES[0])), method)
    assert [value.shape for value in instances[0]] == [(), ()]
    assert isinstance(instances[0][0], np.ndarray)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            [("x1", batch(ZEROS)), ("x2", batch(ONES, ONES))],
            "input 'x2' has 2 instances, input 'x1' has 1",
        ),
        ([("x1", ZEROS), ("x2", ONES)],
         "input 'x1' of method add_common of add has shape [2, 2], it should be [-1, 2, 2]"),
        ([("x1", np.zeros((0, 2, 2), np.float32))] * 2, "input 'x1' is there twice"),
        (
            [("x1", np.zeros((0, 2, 2), np.float32)), ("x2", np.zeros((0, 2, 2), np.float32))],
            "input 'x1': shape [0, 2, 2] has no instance",
        ),
        ([("x1", batch(ZEROS))], "input 'x2' of method add_common of add is missing"),
        (
            [("x1", batch(ZEROS)), ("x2", batch(ZEROS)), ("x3", batch(ZEROS))],
            "input 'x3' is not one of method add_common of add: x1, x2",
        ),
        (
            [("x1", batch(ZEROS)), ("x2", batch(ZEROS).astype(np.float64))],
            "input 'x2' of method add_common of add has datatype FP64, it should be FP32",
        ),
        ([("x1", np.float32(1)), ("x2", batch(ONES))],
         "input 'x1' of method add_common of add has no batch dimension"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_named(inputs: list[Any], text: str) -> None:
    assert fails(request(*inputs)) == ("invalid_inputs", text)


def test_a_dynamic_dimension_takes_any_length() -> None:
    spec = InstanceSpec("float32", (-1, 2))
    method = BATCHED._replace(tensors=MethodTensors(True, (spec, spec), (None,)))
    assert len(decode(request(("x1", batch(ZEROS)), ("x2", batch(ONES))), method)) == 1
    wrong = request(("x1", np.zeros((1, 5, 3), np.float32)), ("x2", batch(ONES)))
    assert fails(wrong, method)[1].endswith("has shape [1, 5, 3], it should be [-1, -1, 2]")


# ---------------------------------------------------------------- contents


@pytest.mark.parametrize(
    ("datatype", "field", "elements"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-5, 5]),
        ("INT32", "int_contents", [-(2**31), 1]),
        ("INT64", "int64_contents", [-(2**63), 1]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 65535]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [0.5, -2.0]),
        ("FP64", "fp64_contents", [0.5, 1e300]),
    ],
)
def test_typed_contents_become_arrays_of_their_datatype(
    datatype: str, field: str, elements: list[Any]
) -> None:
    message = ModelInferRequest()
    tensor = message.inputs.add(name="image", datatype=datatype, shape=[1, 2])
    getattr(tensor.contents, field).extend(elements)
    ((array,),) = decode(message, PYTHON)
    assert isinstance(array, np.ndarray)
    assert array.tolist() == elements
    assert oip.DTYPE_OF_DATATYPE[datatype] == array.dtype


def typed(datatype: str, shape: list[int], field: str, elements: list[Any]) -> Any:
    message = ModelInferRequest()
    tensor = message.inputs.add(name="image", datatype=datatype, shape=shape)
    getattr(tensor.contents, field).extend(elements)
    return message


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (typed("INT8", [1, 1], "int_contents", [300]), "input 'image': Python integer 300 out of"),
        (typed("FP16", [1, 1], "fp32_contents", [1]), "input 'image': FP16 has raw contents only"),
        (typed("FP32", [1, 3], "fp32_contents", [1]),
         "input 'image' has 1 elements, shape [1, 3] has 3"),
        (typed("BF16", [1, 1], "fp32_contents", [1]),
         "input 'image': datatype 'BF16' is not one of BOOL, INT8, UINT8, INT16, UINT16, "),
        (typed("FP32", [-1, 1], "fp32_contents", [1]),
         "input 'image': shape [-1, 1] has a negative dimension"),
        (typed("FP32", [1] * 33, "fp32_contents", [1]),
         "input 'image' has 33 dimensions, tensor_dimensions_max is 32"),
        (typed("FP32", [1, 0, 2**62, 2**62], "fp32_contents", []),
         f"input 'image': shape [1, 0, {2**62}, {2**62}] is out of range"),
    ],
)  # fmt: skip
def test_contents_that_do_not_fit_are_named(message: Any, text: str) -> None:
    reason, said = fails(message, PYTHON)
    assert reason == "invalid_inputs"
    assert said.startswith(text)


def test_raw_contents_of_another_size_or_number_are_refused() -> None:
    message = request(("x1", batch(ZEROS)), ("x2", batch(ONES)))
    del message.raw_input_contents[1]
    assert fails(message)[1] == "1 raw_input_contents are there for 2 inputs"
    message.raw_input_contents.append(b"abc")
    assert fails(message)[1] == ("input 'x2' has 3 B of content, FP32 of shape [1, 2, 2] has 16 B")
    message.inputs[1].contents.fp32_contents.append(1)
    assert fails(message)[1] == "input 'x2' has contents beside raw_input_contents"


def test_half_floats_and_bools_travel_raw() -> None:
    half = np.array([[1.5, -2]], np.float16)
    ((array,),) = decode(request(("image", half)), PYTHON)
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float16
    message = request(("image", np.array([[True, False]])))
    message.raw_input_contents[0] = b"\x07\x00"
    ((flags,),) = decode(message, PYTHON)
    assert isinstance(flags, np.ndarray)
    assert flags.tolist() == [True, False]


# ---------------------------------------------------------------- text and bytes


def test_bytes_are_one_element_per_instance() -> None:
    assert decode(text_request([b"a", b"\xff"], [2]), PYTHON) == [
        (BytesValue(b"a"),),
        (BytesValue(b"\xff"),),
    ]
    assert decode(text_request([b"a"], [1, 1]), PYTHON) == [(BytesValue(b"a", (1,)),)]


def test_bytes_become_text_where_the_client_says_so() -> None:
    assert decode(text_request(["ü".encode()], [1], content_type="str"), PYTHON) == [
        (StringValue("ü"),)
    ]
    message = text_request([b"a"], [1])
    message.parameters["content_type"].string_param = "str"
    assert decode(message, PYTHON) == [(StringValue("a"),)]
    assert decode(text_request([b"YQ=="], [1], content_type="base64"), PYTHON) == [
        (BytesValue(b"a"),)
    ]


def test_raw_bytes_have_a_size_in_front_of_each_element() -> None:
    message = text_request([], [2])
    message.raw_input_contents.append(b"\x01\0\0\0a\0\0\0\0")
    assert decode(message, PYTHON) == [(BytesValue(b"a"),), (BytesValue(b""),)]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (text_request([b"a", b"b"], [1, 2]),
         "input 'image': a BYTES tensor has one element per instance, shape [1, 2] has 2"),
        (text_request([b"a"], [1, 1, 1]),
         "input 'image': a BYTES tensor has one element per instance, shape [1, 1, 1] has 1"),
        (text_request([b"a"], [2]), "input 'image' has 1 elements, shape [2] has 2"),
        (text_request([b"\xff"], [1], content_type="str"),
         "input 'image' has content_type 'str', and an element that is not UTF-8"),
        (text_request([b"?"], [1], content_type="base64"),
         "input 'image' has content_type 'base64', and an element that is none: "),
    ],
)  # fmt: skip
def test_bytes_that_do_not_fit_are_named(message: Any, text: str) -> None:
    reason, said = fails(message, PYTHON)
    assert reason == "invalid_inputs"
    assert said.startswith(text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x01\0", "input 'image': content ends inside of the size of an element"),
        (b"\x09\0\0\0a", "input 'image': an element of 9 B exceeds the content's 5 B"),
    ],
)
def test_raw_bytes_that_are_cut_are_refused(raw: bytes, text: str) -> None:
    message = text_request([], [1])
    message.raw_input_contents.append(raw)
    assert fails(message, PYTHON) == ("invalid_inputs", text)


# ---------------------------------------------------------------- what does not exist here


def test_what_does_not_exist_here_is_unsupported() -> None:
    sequence = request(("x1", batch(ZEROS)), ("x2", batch(ONES)))
    sequence.parameters["sequence_id"].int64_param = 5
    assert fails(sequence) == (
        "unsupported",
        "parameter sequence_id 5: models here have no state between requests",
    )
    shared = request(("x1", batch(ZEROS)), ("x2", batch(ONES)))
    shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert fails(shared) == ("unsupported", "input 'x1': shared memory is not supported")
    output = request(("x1", batch(ZEROS)), ("x2", batch(ONES)))
    output.outputs.add(name="y").parameters["classification"].int64_param = 3
    assert fails(output) == (
        "unsupported",
        "output 'y': parameter classification is not supported",
    )


def test_parameters_of_other_servers_are_ignored() -> None:
    message = request(("x1", batch(ZEROS)), ("x2", batch(ONES)))
    message.parameters["priority"].uint64_param = 1
    message.parameters["mine"].string_param = "x"
    message.inputs[0].parameters["content_type"].string_param = "np"
    assert len(decode(message)) == 1


# ---------------------------------------------------------------- replies


def test_results_are_stacked_in_their_order() -> None:
    instances = decode(request(("x1", batch(ZEROS, ONES)), ("x2", batch(ONES, ONES)), id="7"))
    response = reply(instances, BATCHED, (ZEROS,), (ONES,))
    assert (response.model_name, response.model_version, response.id) == ("add", "3", "7")
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", "FP32", [2, 2, 2])
    assert response.raw_output_contents[0] == batch(ZEROS, ONES).tobytes()


def test_outputs_come_as_asked_for() -> None:
    message = text_request([b"a"], [1])
    message.outputs.add(name="score")
    message.outputs.add(name="label")
    instances = decode(message, PYTHON)
    response = reply(instances, PYTHON, (StringValue("seven"), np.array(0.5)))
    assert [output.name for output in response.outputs] == ["score", "label"]
    assert list(response.raw_output_contents) == [
        np.array(0.5).tobytes(),
        b"\x05\0\0\0seven",
    ]
    assert [list(output.shape) for output in response.outputs] == [[1], [1]]
    message.outputs.add(name="z")
    assert fails(message, PYTHON) == (
        "invalid_inputs",
        "output 'z' is not one of method classify of digits: label, score",
    )


def test_outputs_of_differing_shapes_are_an_error_that_names_the_output() -> None:
    instances = decode(text_request([b"a", b"b"], [2]), PYTHON)
    with pytest.raises(RequestError) as raised:
        reply(
            instances,
            PYTHON,
            (np.zeros(2), np.array(1)),
            (np.zeros(3), np.array(1)),
        )
    assert raised.value.message == (
        "output 'label' of method classify of digits: instance 1 is FP64 of shape [3], instance 0 "
        "is FP64 of shape [2]; ask for them one by one"
    )


def test_the_first_failure_of_an_instance_fails_the_request() -> None:
    instances = decode(text_request([b"a", b"b", b"c"], [3]), PYTHON)
    good = (StringValue("x"), np.array(1))
    with pytest.raises(RequestError) as raised:
        reply(instances, PYTHON, good, Failure(MS_SYSTEM_ERROR, "boom"), Failure(1, "late"))
    assert (raised.value.reason, raised.value.message) == (
        "system_error",
        "instance 1 of 3: boom",
    )
    with pytest.raises(RequestError) as raised:
        reply(decode(text_request([b"a"], [1]), PYTHON), PYTHON, Failure(MS_INVALID_INPUTS, "bad"))
    assert (raised.value.reason, raised.value.message) == ("invalid_inputs", "bad")


def test_who_asks_for_a_final_response_is_told_that_it_is_one() -> None:
    message = request(("x1", batch(ZEROS)), ("x2", batch(ONES)))
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    response = reply(decode(message), BATCHED, (ZEROS,))
    assert response.parameters["triton_final_response"].bool_param


def test_arrays_of_any_layout_are_written_in_row_order() -> None:
    instances = decode(request(("x1", batch(ZEROS)), ("x2", batch(ONES))))
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    response = reply(instances, BATCHED, (turned,))
    assert response.raw_output_contents[0] == turned.tobytes()
    empty = reply(instances, BATCHED, (np.zeros((0, 3), np.float32),))
    assert list(empty.outputs[0].shape) == [1, 0, 3]
    assert list(empty.raw_output_contents) == [b""]


def test_a_failure_is_the_one_of_the_native_dialect() -> None:
    assert failure(oip.encode_failure(None, "failed", "why")) == ("failed", "why")


def test_the_descriptors_are_compiled_from_the_protocol_files() -> None:
    assert TARGET.read_text() == generated(), "run: python -m docs.generate_messages"
