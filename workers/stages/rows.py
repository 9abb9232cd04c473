"""Instances under way: the request they came with, the stages before them, their values so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from protocol.layouts import Packed
from protocol.packed import PackedBatch
from protocol.values import Instance, MethodSignature, RequestSpec, Result, Value
from workers.servable.declarations import Placeholder, Stage


class Subgraph(NamedTuple):
    """One subgraph of a model: what one run computes. number: of the model's files, from 0."""

    model_key: str
    number: int


class Step(NamedTuple):
    """One stage of a method, as the scheduler sees it.

    number: the stage's number in its method, from 1. model: what it runs, None for a stage of
    Python. rows_max: how many rows one run of it takes. is_per_row: it may also be run
    on fewer than are there without costing more (a function that is called once per instance).
    """

    number: int
    stage: Stage
    model: Subgraph | None
    rows_max: int
    is_per_row: bool


class Plan(NamedTuple):
    """A method: its steps in order, and which values are its results.

    is_packable: its one step is a model that computes the method's inputs as they come, and whose
    outputs are the results.
    """

    method: str
    steps: tuple[Step, ...]
    returns: tuple[Placeholder, ...]
    is_packable: bool = False


class TracedWork(NamedTuple):
    """A work that computed instances of a request. model: "" for Python; stage: its number."""

    stage: int
    model: str
    batch_size: int
    begin_ns: int
    end_ns: int


class Trace(NamedTuple):
    """The trace of a request: its parent span, and the works so far."""

    trace_id: bytes
    span_id: bytes
    works: list[TracedWork]


class PackedResult(NamedTuple):
    """The result of an instance that was computed together with others: a row of theirs."""

    batch: PackedBatch
    row: int


#: What a work gives for a row: the outputs of the step, or its failure.
Outcome = Result | PackedResult


class PendingRequest:
    """One request with its instances, until each of them has a result.

    packed: its one instance, where it was not decoded; then there are no `instances`.
    """

    __slots__ = (
        "deadline_ns", "dialect", "instances", "is_over", "is_redelivered", "is_started", "method",
        "packed", "received_ns", "results", "spec", "ticket", "trace", "trace_id", "unfinished",
    )  # fmt: skip

    def __init__(
        self,
        ticket: int,
        dialect: int,
        spec: RequestSpec,
        method: MethodSignature,
        instances: list[Instance],
        deadline_ns: int,
        is_redelivered: bool,
        trace_id: bytes,
        received_ns: int = 0,
        packed: Packed | None = None,
    ) -> None:
        assert instances or packed is not None, spec
        self.ticket = ticket
        self.dialect = dialect
        self.spec = spec
        self.method = method
        self.instances = instances
        self.packed = packed
        self.deadline_ns = deadline_ns
        self.received_ns = received_ns
        self.is_redelivered = is_redelivered
        #: Some of it has been taken to be computed.
        self.is_started = False
        self.trace_id = trace_id
        #: What is remembered of it for its spans; None if nobody records its trace.
        self.trace: Trace | None = None
        #: One per instance; None where it is still under way.
        self.results: list[Outcome | None] = [None] * (len(instances) or 1)
        #: Instances without a result.
        self.unfinished = len(self.results)
        #: All results are there, the budget ran out, or nobody waits any more: its rows are void.
        self.is_over = False


class Row:
    """One instance under way."""

    __slots__ = ("_values", "index", "plan", "position", "request")

    def __init__(self, request: PendingRequest, index: int, plan: Plan) -> None:
        self.request = request
        #: Its number in the request.
        self.index = index
        self.plan = plan
        #: Steps that are done.
        self.position = 0
        self._values: list[list[Value]] | None = None

    @property
    def values(self) -> list[list[Value]]:
        """Its inputs, then the outputs of each stage so far.

        Inner lists, because a value is replaced by its writable copy when a Python stage first
        uses it.
        """
        values = self._values
        if values is None:
            packed = self.request.packed
            inputs = self.request.instances[self.index] if packed is None else packed.unpack()
            values = self._values = [list(inputs)]
        return values

    @property
    def step(self) -> Step:
        """The step that it waits for, or that runs."""
        return self.plan.steps[self.position]

    def read(self, placeholders: Sequence[Placeholder]) -> Instance:
        """The values that the placeholders stand for."""
        values = self.values
        return tuple(values[each.stage][each.index] for each in placeholders)


class Work(NamedTuple):
    """Rows that are computed together: of one step in Python, or of one model.

    model: None if it is Python's. number: counts all works. started_ns: when it was taken.
    """

    model: Subgraph | None
    rows: list[Row]
    number: int
    started_ns: int
