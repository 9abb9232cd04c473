"""What a group keeps of those who make it up, and of the batches that they compute. Pure values."""

from __future__ import annotations

from typing import NamedTuple

from protocol.group import Array, Graph, Place


class GroupSettings(NamedTuple):
    """One group. places: by rank. rank_table: the text of the file.

    batched_input: number of an input with a batch dimension; None if the model has none.
    wait_ns: how long FORMING may last; None = for ever.
    """

    epoch: str
    places: tuple[Place, ...]
    rank_table: str
    stage_size: int
    batched_input: int | None
    wait_ns: int | None


class Prediction(NamedTuple):
    """A finished batch: its outputs, or why it failed."""

    number: int
    arrays: tuple[Array, ...]
    error: str


class Launcher:
    """Who claims some ranks."""

    __slots__ = ("heard_ns", "ranks", "routing_id")

    def __init__(self, routing_id: bytes, ranks: tuple[int, ...], now_ns: int) -> None:
        self.routing_id = routing_id
        self.ranks = ranks
        self.heard_ns = now_ns


class Rank:
    """One registered rank."""

    __slots__ = ("graphs", "heard_ns", "routing_id")

    def __init__(self, routing_id: bytes, graphs: tuple[Graph, ...], now_ns: int) -> None:
        self.routing_id = routing_id
        self.graphs = graphs
        self.heard_ns = now_ns


class Batch:
    """A batch that not every rank has answered."""

    __slots__ = ("arrays", "deadline_ns", "error", "wait_ns", "waiting")

    def __init__(self, ranks: int, wait_ns: int) -> None:
        self.waiting = set(range(ranks))
        self.wait_ns = wait_ns
        #: None while ranks may still be busy with an earlier batch.
        self.deadline_ns: int | None = None
        self.arrays: tuple[Array, ...] = ()
        self.error = ""
