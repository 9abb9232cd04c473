"""The messages of a group: each comes out as it went in, and what is none is named."""

from __future__ import annotations

import random

import msgpack
import numpy as np
import pytest

from protocol import group, limits
from protocol.errors import RemoteProtocolError
from protocol.group import (
    Claim,
    Exit,
    Graph,
    Heartbeat,
    Outcome,
    Place,
    Plan,
    Predict,
    RankLost,
    Register,
    TensorForm,
)

FORM = TensorForm("x", np.dtype("float32"), (-1, 3))

MESSAGES = [
    Claim("", (), ""),
    Claim("e1", (0, 1), "10.0.0.1:7000"),
    Plan("e1", True, "10.0.0.1:7000", "{}", (Place("10.0.0.1", 3),)),
    Register("e1", 1, (Graph((FORM,), ()), Graph((), (FORM, FORM)))),
    Heartbeat("e1"),
    RankLost("e1", 1, "killed by SIGKILL"),
    Exit("e1", "the worker has ended"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: group.Message) -> None:
    assert group.unpack(group.pack(message)) == message


@pytest.mark.parametrize("kind", [Predict, Outcome])
def test_arrays_travel_large_ones_in_frames_of_their_own(kind: type) -> None:
    small = np.arange(6, dtype=np.int8).reshape(2, 3)
    large = np.arange(limits.TENSOR_INLINE_BYTES_MAX, dtype=np.float64)
    scalar = np.float16(0.5)
    fields = {"epoch": "e1", "number": 7, "arrays": (small, large, np.asarray(scalar))}
    fields |= {"subgraph": 1, "has_result": True} if kind is Predict else {"error": ""}
    frames = group.pack(kind(**fields))
    assert len(frames) == 3, "head, meta and the one large array"
    read = group.unpack([bytes(frame) for frame in frames])
    assert isinstance(read, kind)
    assert read.number == 7  # type: ignore[union-attr]
    for got, sent in zip(read.arrays, fields["arrays"], strict=True):  # type: ignore[union-attr]
        np.testing.assert_array_equal(got, sent, strict=True)


def test_unknown_keys_are_ignored() -> None:
    head, meta = group.pack(Heartbeat("e1"))
    more = msgpack.packb(msgpack.unpackb(meta) | {"colour": "blue"})
    assert group.unpack([head, more]) == Heartbeat("e1")


def changed(message: group.Message, **changes: object) -> list[bytes]:
    """The frames of a message with other values in its map."""
    head, meta, *_ = group.pack(message)
    return [bytes(head), msgpack.packb(msgpack.unpackb(meta) | changes)]


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([], "a group message has at least 2 frames, not 0"),
        ([b"MG\x01\x04"], "a group message has at least 2 frames, not 1"),
        ([b"XX\x01\x04", b"\x80"], "head b'XX\\x01\\x04' is not that of a group message"),
        ([b"MG\x02\x04", b"\x80"], "is not that of a group message, version 1"),
        ([b"MG\x01\x63", b"\x80"], "command 99 is unknown"),
        ([b"MG\x01\x04", b"\xc1"], "meta frame is not msgpack"),
        ([b"MG\x01\x04", b"\x80"], "key 'epoch' is missing"),
        ([b"MG\x01\x04", b"\x80"] * 200, "frames exceed body_frames_max 255"),
        (changed(Heartbeat("e"), epoch=7), "key 'epoch' is a int, not a str"),
        (changed(RankLost("e", 0, ""), rank=-1), "-1 in key 'rank' is not one of 0.."),
        (changed(RankLost("e", 0, ""), rank=True), "key 'rank' is a bool, not a int"),
        (changed(Claim("e", (), ""), ranks=[0.5]), "0.5 in key 'ranks' is not one of 0.."),
        (changed(Claim("e", (), ""), ranks=[0] * 4097), "4097 items in key 'ranks' exceed"),
        (changed(MESSAGES[2], places=[["ip"]]), "a place is [ip, device id], not ['ip']"),
        (changed(MESSAGES[3], graphs=[[[]]]), "a graph is [[inputs], [outputs]], not [[]]"),
        (changed(MESSAGES[3], graphs=[[[["x", "float32"]], []]]), "a tensor is [name, dtype, sh"),
        (changed(MESSAGES[3], graphs=[[[["x", "object", []]], []]]), "dtype 'object' of 'x' is un"),
        (changed(MESSAGES[3], graphs=[[[["x", "bool", [-2]]], []]]), "shape [-2] of 'x' is none"),
        (changed(MESSAGES[3], graphs=[[7, []]]), "inputs or outputs are no list of them: 7"),
        (changed(Outcome("e", 1, "", ()), arrays=["text"]), "holds something else than tensors"),
        (changed(Outcome("e", 1, "", ()), arrays=[["int8", [9], b""]]), "needs 9 B"),
    ],
)
def test_what_is_no_message_is_named(frames: list[bytes], text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        group.unpack(frames)
    assert text in str(caught.value)


def test_damaged_messages_raise_nothing_else() -> None:
    chance = random.Random(1)
    arrays = (np.zeros(3, np.float32),)
    originals = [group.pack(message) for message in [*MESSAGES, Outcome("e", 1, "", arrays)]]
    refused = 0
    for _ in range(3000):
        frames = [bytearray(frame) for frame in chance.choice(originals)]
        for _ in range(chance.randint(1, 4)):
            frame = chance.choice(frames)
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        try:
            group.unpack([bytes(frame) for frame in frames])
        except RemoteProtocolError:
            refused += 1
    assert refused > 1000
