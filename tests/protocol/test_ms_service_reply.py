"""Replies of the gRPC dialect, compared with what protobuf itself builds."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from protocol import ms_service, ms_service_pb2
from protocol.values import (
    DTYPES,
    BytesValue,
    Failure,
    MethodSignature,
    RequestSpec,
    StringValue,
)
from tests.protocol.ms_service_helpers import of_array, reply, tensor

SPEC = RequestSpec("add", "m", 0)
METHOD = MethodSignature("add", "m", ("x",), ("y",))


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (3, 0), (64, 130)])
def test_every_dtype_and_shape_is_answered(name: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(name)
    message = reply(ms_service.encode_reply(SPEC, METHOD, [(array,), (array,)]))
    assert len(message.instances) == 2
    assert list(message.error_msg) == []
    for instance in message.instances:
        assert dict(instance.items) == {"y": of_array(array)}


def test_what_protobuf_writes_and_what_we_write_is_the_same_message() -> None:
    method = MethodSignature("add", "m", (), ("one", "größe", "text"))
    big = np.arange(10_000, dtype=np.float16)
    results = [(np.float32(2), big, StringValue("é" * 300)), Failure(3, "boom"), (big, big, big)]
    spec = RequestSpec("add", "m", 2**64 - 1)
    expected = ms_service_pb2.PredictReply()
    expected.servable_spec.name = "add"
    expected.servable_spec.method_name = "m"
    expected.servable_spec.version_number = 2**64 - 1
    items = expected.instances.add().items
    items["one"].CopyFrom(of_array(np.asarray(np.float32(2))))
    items["größe"].CopyFrom(of_array(big))
    items["text"].CopyFrom(tensor(13, bytes_val=[("é" * 300).encode()]))
    expected.instances.add()
    items = expected.instances.add().items
    for name in method.outputs:
        items[name].CopyFrom(of_array(big))
    expected.error_msg.add()
    expected.error_msg.add(error_code=3, error_msg=b"boom")
    expected.error_msg.add()
    assert reply(ms_service.encode_reply(spec, method, results)) == expected


def test_text_and_bytes_outputs_have_no_dims_unless_passed_through() -> None:
    method = MethodSignature("add", "m", (), ("a", "b", "c"))
    instance = (StringValue("é"), BytesValue(memoryview(b"\xff")), StringValue("", (1,)))
    message = reply(ms_service.encode_reply(SPEC, method, [instance]))
    assert dict(message.instances[0].items) == {
        "a": tensor(13, bytes_val=["é".encode()]),
        "b": tensor(14, bytes_val=[b"\xff"]),
        "c": tensor(13, (1,), bytes_val=[b""]),
    }


def test_arrays_of_any_order_are_answered_in_c_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    for odd in (array.T, array[:, ::2], array.astype(">i4"), array.T.astype(">i4")):
        message = reply(ms_service.encode_reply(SPEC, METHOD, [(odd,)]))
        expected = np.ascontiguousarray(odd).astype(np.int32)
        assert message.instances[0].items["y"] == of_array(expected)


def test_a_dtype_that_the_wire_does_not_know_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="complex128"):
        ms_service.encode_reply(SPEC, METHOD, [(np.zeros(1, complex),)])


def test_the_spec_is_echoed_with_the_version_that_was_asked_for() -> None:
    spec = RequestSpec("add", "m", 3)
    for frames in (
        ms_service.encode_reply(spec, METHOD, [(np.int32(1),)]),
        ms_service.encode_reply(spec, METHOD, [Failure(1, "no")]),
        ms_service.encode_failure(spec, "failed", "no"),
    ):
        echoed = reply(frames).servable_spec
        assert (echoed.name, echoed.method_name, echoed.version_number) == spec[:3]


def errors(message: Any) -> list[tuple[int, str]]:
    return [(error.error_code, error.error_msg.decode()) for error in message.error_msg]


def test_mixed_results_have_one_error_entry_per_instance() -> None:
    results = [(np.int32(1),), Failure(3, "böse"), (np.int32(2),)]
    message = reply(ms_service.encode_reply(SPEC, METHOD, results))
    assert errors(message) == [(0, ""), (3, "böse"), (0, "")]
    assert [len(instance.items) for instance in message.instances] == [1, 0, 1]


@pytest.mark.parametrize("count", [1, 3])
def test_identical_failures_collapse_to_one(count: int) -> None:
    message = reply(ms_service.encode_reply(SPEC, METHOD, [Failure(3, "boom")] * count))
    assert (errors(message), len(message.instances)) == ([(3, "boom")], 0)


def test_different_failures_stay_apart() -> None:
    for other in (Failure(3, "b"), Failure(1, "a")):
        message = reply(ms_service.encode_reply(SPEC, METHOD, [Failure(3, "a"), other]))
        assert errors(message) == [(3, "a"), (other.code, other.message)]
        assert len(message.instances) == 2


def test_a_whole_failure_carries_the_code_of_its_reason() -> None:
    codes = {"unknown_service": 2, "no_worker": 5, "queue_full": 1, "system_error": 3}
    for reason, code in codes.items():
        message = reply(ms_service.encode_failure(SPEC, reason, "text"))
        assert (errors(message), len(message.instances)) == ([(code, "text")], 0)


def test_a_failure_without_text_says_predict_failed() -> None:
    assert errors(reply(ms_service.encode_failure(None, "failed", ""))) == [(1, "Predict failed")]


def test_a_failure_of_an_unreadable_request_has_no_spec() -> None:
    assert not reply(ms_service.encode_failure(None, "malformed", "x")).HasField("servable_spec")


def test_long_error_texts_are_not_cut() -> None:
    text = "ü" * 1000
    assert errors(reply(ms_service.encode_failure(SPEC, "failed", text))) == [(1, text)]


def test_output_text_without_utf8_form_fails_its_instance_only() -> None:
    bad, good = (StringValue("\udc80"),), (StringValue("ok"),)
    text = "Failed to construct the response: reply string y is not valid UTF-8"
    message = reply(ms_service.encode_reply(SPEC, METHOD, [bad, good]))
    assert errors(message) == [(1, text), (0, "")]
    message = reply(ms_service.encode_reply(SPEC, METHOD, [bad, bad]))
    assert (errors(message), len(message.instances)) == ([(1, text)], 0)


def test_an_error_text_without_utf8_form_is_escaped() -> None:
    assert errors(reply(ms_service.encode_failure(SPEC, "failed", "a\udc80"))) == [(1, "a\\udc80")]


def test_a_refused_name_of_megabytes_is_not_kept() -> None:
    tracemalloc.start()
    try:
        for number in range(8):
            spec = RequestSpec("n" * 1_000_000 + str(number), "m", 0)
            (reply,) = ms_service.encode_failure(spec, "unknown_service", "text")
            assert ms_service_pb2.PredictReply.FromString(reply).servable_spec.name == spec.servable
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 4_000_000
