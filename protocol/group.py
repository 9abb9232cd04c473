"""The messages of a group: what the worker of a distributed servable, its agents and the launchers
of agents say to each other.

A message is a head of four bytes, a msgpack map, and a raw frame for each large tensor. A group
has one *epoch*, a name that no other group ever has; who is told of another epoch than its own
belongs to a group that has ended. Byte table and rules: docs/PROTOCOL.md §10.

    launcher -> worker    CLAIM, LOST
    worker -> launcher    PLAN, EXIT
    agent -> worker       REGISTER, HEARTBEAT, RESULT
    worker -> agent       HEARTBEAT, PREDICT, EXIT
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from protocol import limits
from protocol.errors import RemoteProtocolError
from protocol.native import Buffer, decode_value, encode_value, pack_meta, unpack_meta
from protocol.values import DTYPES

MAGIC = b"MG"
VERSION = 1

#: Numbers end here, as on the control wire.
NUMBER_MAX = (1 << 63) - 1

Array = npt.NDArray[Any]


class Claim(NamedTuple):
    """A launcher wants to run these ranks; sent once a second, as its sign of life.

    epoch: of the group that it knows, empty before it knows one; then `ranks` is empty, too.
    scheduler: `host:port` where the ranks of MindSpore meet, from the launcher of rank 0.
    """

    epoch: str
    ranks: tuple[int, ...]
    scheduler: str


class RankLost(NamedTuple):
    """A launcher saw one of its agents end. reason: for logs and error texts."""

    epoch: str
    rank: int
    reason: str


class Place(NamedTuple):
    """Where one rank runs, as its line of the rank table says."""

    ip: str
    device_id: int


class Plan(NamedTuple):
    """The worker's answer to a CLAIM. is_complete: every rank is claimed, so agents may start.

    places: by rank; rank_table: the text of the file; both empty if the launcher knows the epoch.
    """

    epoch: str
    is_complete: bool
    scheduler: str
    rank_table: str
    places: tuple[Place, ...]


class TensorForm(NamedTuple):
    """One input or output of a graph; -1 in `shape` is a dimension known only at run time."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Graph(NamedTuple):
    """Inputs and outputs of one subgraph of a rank's model."""

    inputs: tuple[TensorForm, ...]
    outputs: tuple[TensorForm, ...]


class Register(NamedTuple):
    """An agent has loaded its rank's model; sent once a second until the worker's heartbeat."""

    epoch: str
    rank: int
    graphs: tuple[Graph, ...]


class Heartbeat(NamedTuple):
    """A sign of life of the worker, once a second, and the agent's answer to each."""

    epoch: str


class Predict(NamedTuple):
    """Compute one batch. has_result: answer with the outputs, which one rank of a group does.

    arrays: one per input of the subgraph, none for a rank that has no inputs.
    """

    epoch: str
    number: int
    subgraph: int
    has_result: bool
    arrays: tuple[Array, ...]


class Outcome(NamedTuple):
    """What became of a PREDICT, as a RESULT message. error: empty if it was computed."""

    epoch: str
    number: int
    error: str
    arrays: tuple[Array, ...]


class Exit(NamedTuple):
    """The worker ends for good, or takes the receiver for none of its group."""

    epoch: str
    reason: str


Message = Claim | RankLost | Plan | Register | Heartbeat | Predict | Outcome | Exit

COMMANDS: dict[int, str] = {
    1: "CLAIM",
    2: "PLAN",
    3: "REGISTER",
    4: "HEARTBEAT",
    5: "PREDICT",
    6: "RESULT",
    7: "LOST",
    8: "EXIT",
}

KINDS: dict[int, type[Message]] = {
    1: Claim,
    2: Plan,
    3: Register,
    4: Heartbeat,
    5: Predict,
    6: Outcome,
    7: RankLost,
    8: Exit,
}

_COMMAND_OF = {kind: number for number, kind in KINDS.items()}


def pack(message: Message) -> list[Buffer]:
    """The frames of a message; the bytes of large arrays are lent, not copied."""
    frames: list[Buffer] = [b""]
    meta = {name: _plain(value, frames) for name, value in message._asdict().items()}
    frames[0] = pack_meta(meta)
    return [MAGIC + bytes((VERSION, _COMMAND_OF[type(message)])), *frames]


def unpack(frames: Sequence[Buffer]) -> Message:
    """Read a message. Unknown keys are ignored. Arrays may be views of their frames.

    Raises: RemoteProtocolError naming what is wrong.
    """
    if len(frames) < 2:
        raise RemoteProtocolError(f"a group message has at least 2 frames, not {len(frames)}")
    head = bytes(frames[0])
    if len(head) != 4 or head[:2] != MAGIC or head[2] != VERSION:
        raise RemoteProtocolError(f"head {head[:8]!r} is not that of a group message, version 1")
    kind = KINDS.get(head[3])
    if kind is None:
        raise RemoteProtocolError(f"command {head[3]} is unknown")
    body = frames[1:]
    if len(body) > limits.BODY_FRAMES_MAX:
        raise RemoteProtocolError(
            f"{len(body)} frames exceed body_frames_max {limits.BODY_FRAMES_MAX}"
        )
    meta = unpack_meta(body[0])
    return kind(**{name: _READERS[name](meta, name, body) for name in kind._fields})


# ---------------------------------------------------------------- fields


def _plain(value: Any, frames: list[Buffer]) -> Any:
    """A field as msgpack takes it; tuples become lists, arrays take their native form."""
    if isinstance(value, np.ndarray):
        return encode_value(value, frames)
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, tuple):
        return [_plain(item, frames) for item in value]
    return value


Reader = Callable[[Mapping[str, Any], str, Sequence[Buffer]], Any]


def _field(meta: Mapping[str, Any], name: str, kind: type) -> Any:
    value = meta.get(name)
    if type(value) is not kind:
        raise RemoteProtocolError(
            f"key {name!r} is missing"
            if name not in meta
            else f"key {name!r} is a {type(value).__name__}, not a {kind.__name__}"
        )
    return value


def _text(meta: Mapping[str, Any], name: str, _: Sequence[Buffer]) -> Any:
    return _field(meta, name, str)


def _flag(meta: Mapping[str, Any], name: str, _: Sequence[Buffer]) -> Any:
    return _field(meta, name, bool)


def _number(meta: Mapping[str, Any], name: str, _: Sequence[Buffer]) -> Any:
    return _checked_number(name, _field(meta, name, int))


def _checked_number(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= NUMBER_MAX:
        raise RemoteProtocolError(f"{value!r:.80} in key {name!r} is not one of 0..{NUMBER_MAX}")
    return value


def _items(meta: Mapping[str, Any], name: str) -> list[Any]:
    value: list[Any] = _field(meta, name, list)
    if len(value) > limits.GROUP_RANKS_MAX:
        raise RemoteProtocolError(
            f"{len(value)} items in key {name!r} exceed group_ranks_max {limits.GROUP_RANKS_MAX}"
        )
    return value


def _ranks(meta: Mapping[str, Any], name: str, _: Sequence[Buffer]) -> Any:
    return tuple(_checked_number(name, item) for item in _items(meta, name))


def _places(meta: Mapping[str, Any], name: str, _: Sequence[Buffer]) -> Any:
    places = []
    for item in _items(meta, name):
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
            raise RemoteProtocolError(f"a place is [ip, device id], not {item!r:.80}")
        places.append(Place(item[0], _checked_number(name, item[1])))
    return tuple(places)


def _arrays(meta: Mapping[str, Any], name: str, frames: Sequence[Buffer]) -> Any:
    arrays = tuple(decode_value(item, frames) for item in _items(meta, name))
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise RemoteProtocolError(f"key {name!r} holds something else than tensors")
    return arrays


def _graphs(meta: Mapping[str, Any], name: str, _: Sequence[Buffer]) -> Any:
    graphs = []
    for item in _items(meta, name):
        if not isinstance(item, list) or len(item) != 2:
            raise RemoteProtocolError(f"a graph is [[inputs], [outputs]], not {item!r:.80}")
        graphs.append(Graph(*(_forms(forms) for forms in item)))
    return tuple(graphs)


def _forms(items: Any) -> tuple[TensorForm, ...]:
    if not isinstance(items, list) or len(items) > limits.GROUP_RANKS_MAX:
        raise RemoteProtocolError(f"inputs or outputs are no list of them: {items!r:.80}")
    return tuple(_form(item) for item in items)


def _form(item: Any) -> TensorForm:
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str):
        raise RemoteProtocolError(f"a tensor is [name, dtype, shape], not {item!r:.80}")
    name, dtype, shape = item
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise RemoteProtocolError(f"dtype {dtype!r:.80} of {name!r:.80} is unknown")
    is_shape = isinstance(shape, list) and all(type(n) is int and n >= -1 for n in shape)
    if not is_shape or len(shape) > limits.TENSOR_DIMENSIONS_MAX:
        raise RemoteProtocolError(f"shape {shape!r:.80} of {name!r:.80} is none")
    return TensorForm(name, DTYPES[dtype], tuple(shape))


_READERS: dict[str, Reader] = {
    "epoch": _text,
    "ranks": _ranks,
    "scheduler": _text,
    "rank": _number,
    "reason": _text,
    "is_complete": _flag,
    "rank_table": _text,
    "places": _places,
    "graphs": _graphs,
    "number": _number,
    "subgraph": _number,
    "has_result": _flag,
    "arrays": _arrays,
    "error": _text,
}
