"""Layouts: what they cut is what the dialect decodes, what they fill is what it encodes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import orjson
import pytest

from protocol import head, native, oip
from protocol.dialects import DIALECTS
from protocol.errors import RequestError
from protocol.layouts import ALLOWANCE_MAX, JSON_STYLES, LEARN_COST, LayoutMemo, Packed
from protocol.oip_parameters import Echo
from protocol.packed import PackedBatch
from protocol.values import (
    EchoedInstances,
    InstanceSpec,
    MethodSignature,
    MethodTensors,
    RequestSpec,
)
from tests.protocol import ms_service_helpers as ms
from tests.protocol.oip_helpers import json_input, json_request, request

SPEC = RequestSpec("add", "m", 0)
BINARY = (head.DIALECT_NATIVE, head.DIALECT_MS_SERVICE, head.DIALECT_OIP)
JSON = (head.DIALECT_RESTFUL, head.DIALECT_OIP_JSON)

A = np.array([[1.5, -2.0], [0.1, 3e30]], np.float32)
B = np.array([0.25, 7.0, -0.0], np.float32)


def method(*inputs: tuple[str, tuple[int, ...]], **fields: Any) -> MethodSignature:
    specs = tuple(InstanceSpec(*each) for each in inputs)
    names = tuple(f"x{number}" for number in range(1, len(specs) + 1))
    tensors = MethodTensors(inputs=specs, **fields)
    return MethodSignature("add", "m", names, ("y", "z"), tensors, version=3)


METHOD = method(("float32", (2, 2)), ("float32", (3,)))


def frames_of(
    number: int, arrays: list[Any], request_id: str = "", is_nested: bool = False
) -> list[bytes]:
    """A request of one instance in a dialect, as its clients write it."""
    named = [(f"x{at}", array) for at, array in enumerate(arrays, start=1)]
    if number == head.DIALECT_NATIVE:
        return [bytes(frame) for frame in native.encode_request([dict(named)])]
    if number == head.DIALECT_MS_SERVICE:
        made = ms.request({name: ms.of_array(array) for name, array in named})
        return [made.SerializeToString()]
    if number == head.DIALECT_OIP:
        made = request(*((name, array[np.newaxis]) for name, array in named), id=request_id)
        return [made.SerializeToString()]
    if number == head.DIALECT_RESTFUL:
        return [orjson.dumps({"instances": [{name: a.tolist() for name, a in named}]})]
    inputs = [
        json_input(
            name,
            "FP32",
            [1, *array.shape],
            data=(array if is_nested else array.reshape(-1)).tolist(),
        )
        for name, array in named
    ]
    return json_request({"id": request_id, "inputs": inputs} if request_id else {"inputs": inputs})


def memo_of(number: int, signature: MethodSignature = METHOD) -> LayoutMemo:
    return LayoutMemo(DIALECTS[number], JSON_STYLES.get(number), SPEC, signature)


def learned(number: int, frames: list[bytes], signature: MethodSignature = METHOD) -> LayoutMemo:
    memo = memo_of(number, signature)
    memo.learn(frames, DIALECTS[number].decode_request(frames, signature))
    return memo


def contents(packed: Packed | None) -> Any:
    return None if packed is None else ([*packed.inputs], packed.request_id, packed.echo())


def decoded(number: int, frames: list[bytes], signature: MethodSignature = METHOD) -> Any:
    """What the dialect says of a request, in the form of `contents`; its error, if it has one."""
    try:
        instances = DIALECTS[number].decode_request(frames, signature)
    except RequestError as error:
        return error.reason
    echo = instances.echo if isinstance(instances, EchoedInstances) else None
    arrays = [value.tobytes() for value in instances[0]]  # type: ignore[union-attr]
    return arrays, echo.id if isinstance(echo, Echo) else "", echo


@pytest.mark.parametrize("number", DIALECTS)
def test_a_request_with_other_contents_is_cut_as_the_dialect_decodes_it(number: int) -> None:
    memo = learned(number, frames_of(number, [A, B]))
    for arrays in ([A, B], [A * 2, B + 1], [A - 1, np.array([1e-30, 2, 3], np.float32)]):
        frames = frames_of(number, arrays)
        assert contents(memo.cut(frames)) == decoded(number, frames)


@pytest.mark.parametrize("text", [b"[[1.0,2.0],[3.0]]", b"[[1.0],[2.0],[3.0],[4.0]]", b"[1.0,2.0]"])
def test_an_array_of_arrays_that_has_another_form_is_left_to_the_dialect(text: bytes) -> None:
    for number in JSON:
        frames = frames_of(number, [A, B], is_nested=True)
        memo = learned(number, frames)
        assert contents(memo.cut(frames)) == decoded(number, frames)
        array = orjson.dumps(A.tolist())
        assert array in frames[-1]
        assert memo.cut([*frames[:-1], frames[-1].replace(array, text)]) is None


@pytest.mark.parametrize("number", [head.DIALECT_OIP, head.DIALECT_OIP_JSON])
def test_an_id_may_differ(number: int) -> None:
    memo = learned(number, frames_of(number, [A, B], "add"))  # the model's name, too
    frames = frames_of(number, [A, B], "b-2")
    assert contents(memo.cut(frames)) == decoded(number, frames)
    assert memo.cut(frames).request_id == "b-2"  # type: ignore[union-attr]
    assert memo.cut(frames_of(number, [A, B])) is None


def one_byte_changed(body: bytes, values: Iterator[int]) -> Iterator[bytes]:
    for at in range(len(body)):
        for value in (body[at] ^ 1, body[at] ^ 0x80, 0, 0xFF, next(values)):
            yield body[:at] + bytes((value,)) + body[at + 1 :]
        yield body[:at] + body[at + 1 :]
        yield body[:at] + bytes((next(values),)) + body[at:]


@pytest.mark.parametrize("number", DIALECTS)
def test_whatever_byte_is_changed_what_is_cut_is_what_the_dialect_decodes(number: int) -> None:
    dice = random.Random(number)
    if number in JSON:
        values = iter(lambda: dice.choice(b'0123456789-+.eE,[]{}":\\ \ttfn'), None)
    else:
        values = iter(lambda: dice.randrange(256), None)
    request_id = "id-1" if number in (head.DIALECT_OIP, head.DIALECT_OIP_JSON) else ""
    frames = frames_of(number, [A, B], request_id)
    memo = learned(number, frames)
    cut = 0
    for body in one_byte_changed(frames[-1], values):  # type: ignore[arg-type]
        found = contents(memo.cut([*frames[:-1], body]))
        if found is not None:
            cut += 1
            assert found == decoded(number, [*frames[:-1], body]), body
    assert cut > 28  # bytes of contents, at the least


@pytest.mark.parametrize("number", JSON)
def test_numbers_that_the_dialect_reads_in_its_own_way_are_left_to_it_or_read_so(
    number: int,
) -> None:
    frames = frames_of(number, [A, B])
    memo = learned(number, frames)
    array = orjson.dumps(B.tolist())
    assert frames[-1].count(array) == 1
    for text in (
        b"[1,2,3]", b"[1,2.0,3]", b"[9007199254740993,0,0]", b"[9223372036854775809,1,1]",
        b"[1e39,0.0,0.0]", b"[-1e39,0.0,0.0]", b"[1e999,0.0,0.0]", b"[true,1.0,2.0]",
        b"[1.0,2.0]", b"[1.0,2.0,3.0,4.0]", b"[1.0,2.0,null]", b'[1.0,2.0,"3"]', b"[[1.0],2.0,3.0]",
        b"[ 1.0 , 2.0,\n3.0 ]", b"[16777217.0,3.4028235677973366e38,1e-46]", b"[NaN,1.0,2.0]",
        b"[1.0,2.0,3.0,]", b"[01.0,2.0,3.0]", b"[]", b"[-0.0,0.1,0.30000001192092896]",
    ):  # fmt: skip
        other = [*frames[:-1], frames[-1].replace(array, text)]
        found = contents(memo.cut(other))
        assert found is None or found == decoded(number, other), text


@pytest.mark.parametrize("request_id", ['a"b', "a\\b", "ü", "a\nb", "", "x" * 300])
def test_an_id_that_json_writes_in_another_way_is_left_to_the_dialect(request_id: str) -> None:
    number = head.DIALECT_OIP_JSON
    memo = learned(number, frames_of(number, [A, B], "plain"))
    frames = frames_of(number, [A, B], request_id)
    found = contents(memo.cut(frames))
    assert found is None or found == decoded(number, frames)


# ---------------------------------------------------------------- what has no layout


def typed(datatype: str, field: str, numbers: list[Any]) -> list[bytes]:
    """A ModelInferRequest whose contents are a typed field."""
    made = request()
    tensor = made.inputs.add(name="x1", datatype=datatype, shape=[1, len(numbers)])
    getattr(tensor.contents, field).extend(numbers)
    return [made.SerializeToString()]


def test_numbers_of_variable_length_are_not_taken_for_raw_ones() -> None:
    signature = method(("int8", (4,)))
    number = head.DIALECT_OIP
    memo = learned(number, typed("INT8", "int_contents", [1, 2, 3, 4]), signature)
    other = typed("INT8", "int_contents", [5, 6, 7, 8])
    assert memo.cut(other) is None


def test_a_scalar_of_msgpack_is_not_taken_for_the_bytes_of_one() -> None:
    signature = method(("float64", ()))
    zero = [msgpack.packb({"instances": [{"x1": 0.0}]})]  # the same bytes from both ends
    memo = learned(head.DIALECT_NATIVE, zero, signature)
    assert memo.cut([msgpack.packb({"instances": [{"x1": 1.5}]})]) is None


@pytest.mark.parametrize(
    "signature",
    [
        method(("bool", (2,))),
        method(("bytes", ())),
        method(("float32", (-1,))),
        method(("float32", (0,))),
        method(("float32", (2,)), is_batched=False),
        METHOD._replace(tensors=MethodTensors()),
        METHOD._replace(tensors=METHOD.tensors._replace(inputs=(METHOD.tensors.inputs[0], None))),
    ],
)
def test_a_method_whose_inputs_need_a_look_has_no_layouts(signature: MethodSignature) -> None:
    assert not memo_of(head.DIALECT_OIP, signature).is_usable


def test_several_instances_have_no_layout() -> None:
    frames = [bytes(each) for each in native.encode_request([{"x1": A, "x2": B}] * 2)]
    assert learned(head.DIALECT_NATIVE, frames).cut(frames) is None


def test_an_instance_that_the_model_would_refuse_has_no_layout() -> None:
    for arrays in ([A[0], B], [A.astype(np.float64), B]):
        frames = [bytes(each) for each in native.encode_request([{"x1": arrays[0], "x2": B}])]
        assert learned(head.DIALECT_NATIVE, frames).cut(frames) is None


def test_other_frames_in_front_of_the_body_are_another_layout() -> None:
    number = head.DIALECT_OIP_JSON
    frames = frames_of(number, [A, B])
    memo = learned(number, frames)
    assert memo.cut(frames) is not None
    assert memo.cut([native.pack_meta({"model": "other"}), frames[1]]) is None
    assert memo.cut(frames[1:]) is None
    assert memo.cut([]) is None


def test_a_request_that_counts_the_bytes_of_its_json_has_no_layout() -> None:
    """Arrays of a layout have any length, and the count would be wrong for them."""
    number = head.DIALECT_OIP_JSON
    one = method(("float32", (2,)))
    array = np.array([12.5, 13.5], np.float32)  # as long as the array that a layout is tried with
    (_, body) = frames_of(number, [array])
    frames = [native.pack_meta({"model": "add", "json_bytes": len(body)}), body]
    assert decoded(number, frames, one)[:2] == ([array.tobytes()], "")
    assert learned(number, frames, one).cut(frames) is None
    (_, longer) = frames_of(number, [np.array([12.125, 13.5], np.float32)])
    assert decoded(number, [frames[0], longer], one) == "malformed"


def test_a_view_is_left_to_the_dialect() -> None:
    frames = frames_of(head.DIALECT_OIP, [A, B])
    assert learned(head.DIALECT_OIP, frames).cut([memoryview(frames[0])]) is None


def test_layouts_of_other_clients_stay_side_by_side() -> None:
    number = head.DIALECT_NATIVE
    memo = memo_of(number)
    items = {"x1": ["float32", [2, 2], A.tobytes()], "x2": ["float32", [3], B.tobytes()]}
    kinds = [[msgpack.packb({"instances": [items | {key: 0}]})] for key in ("a", "b", "cc")]
    for frames in kinds:
        memo.learn(frames, native.decode_request(frames, METHOD))
    for frames in (*kinds, *reversed(kinds)):
        assert contents(memo.cut(frames)) == decoded(number, frames)


def test_learning_ends_with_the_allowance_and_goes_on_with_requests_that_are_seen() -> None:
    memo = memo_of(head.DIALECT_NATIVE)

    def learn(key: str) -> bool:
        items = {"x1": ["float32", [2, 2], A.tobytes()], "x2": ["float32", [3], B.tobytes()]}
        frames = [msgpack.packb({"instances": [items | {key: 0}]})]
        memo.learn(frames, native.decode_request(frames, METHOD))
        return memo.cut(frames) is not None

    assert [learn(str(number)) for number in range(ALLOWANCE_MAX // LEARN_COST + 1)][-2:] == [
        True,
        False,
    ]
    for _ in range(LEARN_COST):
        memo.cut([b""])
    assert learn("later")


@pytest.mark.parametrize("noise", [b"[" * 60_000, b"[1]" * 20_000, b"[1.0,2.0,3.0]," * 4_000])
def test_a_body_that_is_full_of_what_may_be_arrays_is_looked_through_quickly(noise: bytes) -> None:
    for number in JSON:
        frames = frames_of(number, [A, B])
        body = frames[-1][:-1] + b',"note":"' + noise + b'"}'
        began = time.process_time()
        memo = learned(number, [*frames[:-1], body])
        assert time.process_time() - began < 5  # 0.05 s; a scan that is quadratic takes a minute
        assert memo.cut([*frames[:-1], body]) is None  # too many bytes to be compared


# ---------------------------------------------------------------- replies

Y = np.array([[1.5, -2.25], [0.1, 3e-30], [7.0, 1e22]], np.float32)
Z = np.array([[[1, 2]], [[3, 4]], [[-5, 6]]], np.int32)


@pytest.mark.parametrize("number", DIALECTS)
@pytest.mark.parametrize("arrays", [[Y, Z], [Z, Z + 1], [Y[:, 0], Y.astype(np.float64)]])
def test_a_reply_that_is_filled_is_what_the_dialect_encodes(number: int, arrays: Any) -> None:
    ids = ("", "id", "longer id") if number in (head.DIALECT_OIP, head.DIALECT_OIP_JSON) else ("",)
    batch = PackedBatch(arrays)
    for request_id in ids:
        frames = frames_of(number, [A, B], request_id)
        packed = learned(number, frames).cut(frames)
        assert packed is not None
        for row in range(len(Y)):
            spec = SPEC._replace(echo=packed.echo())
            encoded = DIALECTS[number].encode_reply(spec, METHOD, [batch.instance(row)])
            assert packed.fill(batch, row) == [bytes(frame) for frame in encoded]


def test_replies_of_other_forms_and_ids_take_turns() -> None:
    number = head.DIALECT_OIP
    memo = learned(number, frames_of(number, [A, B], "1"))
    for request_id, arrays in (("2", [Y, Z]), ("3", [Z, Y]), ("4", [Y, Z]), ("5", [Y, Z])):
        packed = memo.cut(frames_of(number, [A, B], request_id))
        batch = PackedBatch(arrays)
        assert packed is not None
        encoded = oip.encode_reply(SPEC._replace(echo=packed.echo()), METHOD, [batch.instance(0)])
        assert packed.fill(batch, 0) == encoded


@pytest.mark.parametrize("number", JSON)
def test_what_json_cannot_say_is_left_to_the_dialect(number: int) -> None:
    frames = frames_of(number, [A, B])
    packed = learned(number, frames).cut(frames)
    assert packed is not None
    for value in (np.inf, np.nan):
        odd = Y.copy()
        odd[1, 1] = value
        assert packed.fill(PackedBatch([odd, Z]), 0) is None
    assert packed.fill(PackedBatch([Y, Z]), 0) is not None


@pytest.mark.parametrize("number", DIALECTS)
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 0), np.float32),
        np.ones((3, 2), np.bool_),
        Y.astype(">f4"),
        Y.astype(np.complex64),
    ],
)
def test_outputs_that_are_no_plain_bytes_are_left_to_the_dialect(number: int, array: Any) -> None:
    frames = frames_of(number, [A, B])
    packed = learned(number, frames).cut(frames)
    assert packed is not None
    assert packed.fill(PackedBatch([array, Z]), 0) is None


def test_rows_that_do_not_lie_one_after_another_are_written_in_their_order() -> None:
    batch = PackedBatch([np.asfortranarray(Y)])
    assert batch.raw(0) == [row.tobytes() for row in Y]
    assert np.array_equal(batch.instance(1)[0], Y[1])


def test_an_instance_that_is_unpacked_is_writable_and_its_own() -> None:
    number = head.DIALECT_MS_SERVICE
    frames = frames_of(number, [A, B])
    packed = learned(number, frames).cut(frames)
    assert packed is not None
    one, two = packed.unpack()
    assert np.array_equal(one, A)
    one[...] = 0  # type: ignore[call-overload]
    assert np.array_equal(packed.unpack()[0], A)
    assert np.array_equal(two, B)
