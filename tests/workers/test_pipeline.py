"""Two threads, one scheduler: who runs what, and that no two models ever run at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from protocol.status import MS_SYSTEM_ERROR
from protocol.values import Failure, MethodSignature, RequestSpec
from tests.workers.models import FakeModel, named_method, tensor
from workers.pipeline import Pipeline, PipelineError
from workers.servable.declarations import ModelDeclaration
from workers.servable.model_call import Model
from workers.servable.registry import add_stage, collecting, declare_model, register_method
from workers.stages.executor import Executor
from workers.stages.model_runner import ModelRunner
from workers.stages.request_desk import BUG_TEXT
from workers.stages.rows import PendingRequest, Work

DEADLINE_S = 30
FAR_NS = 1 << 62


class Place:
    """A servable with model `K` (y = x + 1, batches of 2), and a main thread that is the test.

    Methods: `model` (the model), `python` (`function`), `both` (`function`, then the model).
    """

    def __init__(self) -> None:
        self.function: Callable[[Any], Any] = lambda x: x
        self.compute: Callable[[], None] = lambda: None
        #: Name of the thread, and the inputs, of each run of the model.
        self.runs: list[tuple[str, list[int]]] = []
        self.wakes: SimpleQueue[bool] = SimpleQueue()
        self.progress: list[tuple[int, int]] = []
        self.started: list[int] = []
        self._at_once = 0
        self.at_once_max = 0
        spec = tensor(2, dtype="int64")
        with collecting("s") as declaration:
            model = declare_model("K", "MindIR")

            def python(x: Any) -> Any:
                return add_stage(self._function, x, outputs_count=1)

            for name, body in (
                ("model", lambda x: add_stage(model, x, outputs_count=1)),
                ("python", python),
                ("both", lambda x: add_stage(model, python(x), outputs_count=1)),
            ):
                register_method("y")(named_method(name, ["x"], body))
        runner = ModelRunner(
            ModelDeclaration("K", ("K",), "mindir"), FakeModel([spec], [spec], self._predict)
        )
        self.executor = Executor(declaration, {"K": runner})
        self.pipeline = Pipeline(self.executor, self.note, lambda: self.wakes.put(True))
        self.results: dict[int, list[Any]] = {}

    def note(self, progress: tuple[int, int], started: Sequence[int]) -> None:
        self.progress.append(progress)
        self.started += started

    def _function(self, x: Any) -> Any:
        return self.function(x)

    def _predict(self, arrays: Any) -> Any:
        self._at_once += 1
        self.at_once_max = max(self.at_once_max, self._at_once)
        self.runs.append((threading.current_thread().name, arrays[0].tolist()))
        self.compute()
        self._at_once -= 1
        return [arrays[0] + 1]

    def add(self, ticket: int, method: str, *values: int, deadline_ns: int = FAR_NS) -> None:
        signature = MethodSignature("s", method, ("x",), ("y",))
        instances: Any = [(np.array(value),) for value in values]
        spec = RequestSpec("s", method, 0)
        self.pipeline.add(
            PendingRequest(ticket, 0, spec, signature, instances, deadline_ns, False, bytes(16))
        )

    def turn(self, is_busy: bool = False) -> None:
        """What the main thread does over and over."""
        while self.pipeline.is_idle():
            self.wakes.get(timeout=DEADLINE_S)
        self.pipeline.run_next(lambda: is_busy)
        finished, expired = self.pipeline.take_back()
        for request in finished:
            self.results[request.ticket] = [
                r if isinstance(r, Failure) else int(r[0])  # type: ignore[index, arg-type]
                for r in request.results
            ]
        for request in expired:
            self.results[request.ticket] = ["expired"]

    def answer(self, *tickets: int) -> dict[int, list[Any]]:
        """Work until these requests are done; all results so far."""
        while not self.results.keys() >= set(tickets):
            self.turn()
        return self.results


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    made.pipeline.start()
    yield made
    made.pipeline.close()


def test_all_stages_of_all_methods_are_computed(place: Place) -> None:
    place.function = lambda x: x * 10
    place.add(1, "model", 1, 2, 3)
    place.add(2, "python", 4, 5)
    place.add(3, "both", 6)
    assert place.answer(1, 2, 3) == {1: [2, 3, 4], 2: [40, 50], 3: [61]}
    assert place.progress[-1][1] == 0  # nothing runs
    assert sorted(place.started) == [1, 2, 3], "each ticket once"


def test_a_model_whose_runs_are_long_runs_on_the_device_thread_only(place: Place) -> None:
    place.compute = lambda: threading.Event().wait(0.005)  # type: ignore[assignment]
    for ticket in range(3):
        place.add(ticket, "model", ticket)
        place.answer(ticket)
    assert [name for name, _ in place.runs] == ["device"] * 3


def test_a_model_whose_runs_are_short_comes_to_the_thread_that_has_nothing_to_do(
    place: Place,
) -> None:
    deadline = time.monotonic() + DEADLINE_S
    ticket = 0
    while (threading.current_thread().name not in dict(place.runs)) and (
        time.monotonic() < deadline  # the first one is unknown; a disturbed one is taken for long
    ):
        ticket += 1
        place.add(ticket, "model", ticket)
        assert place.answer(ticket)[ticket] == [ticket + 1]
    assert place.runs[0][0] == "device"
    assert place.runs[-1][0] == threading.current_thread().name


def test_the_device_gets_its_next_batches_while_a_python_stage_runs(place: Place) -> None:
    third_run = threading.Event()
    place.compute = lambda: third_run.set() if len(place.runs) == 3 else None
    place.function = lambda x: int(third_run.wait(DEADLINE_S))
    place.add(1, "model", 0, 1, 2, 3, 4)
    place.add(2, "python", 7)
    assert place.answer(1, 2) == {1: [1, 2, 3, 4, 5], 2: [1]}
    assert place.runs == [("device", [0, 1]), ("device", [2, 3]), ("device", [4, 4])]


def test_a_call_of_the_model_waits_for_its_turn_on_the_device_thread(place: Place) -> None:
    place.compute = lambda: threading.Event().wait(0.002)  # type: ignore[assignment]
    place.function = lambda x: Model("K").call(np.array(int(x)))
    place.add(1, "model", *range(20))
    place.add(2, "python", *range(100, 105))
    results = place.answer(1, 2)
    assert results == {1: list(range(1, 21)), 2: list(range(101, 106))}
    assert place.at_once_max == 1
    assert {name for name, _ in place.runs} == {"device"}


def test_an_error_of_a_called_model_is_raised_where_it_was_called(place: Place) -> None:
    def call(x: Any) -> Any:
        with pytest.raises(RuntimeError, match="not match the size"):
            Model("K").call(np.zeros(3))
        return x

    place.function = call
    place.add(1, "python", 5)
    assert place.answer(1) == {1: [5]}


def test_requests_that_expire_on_either_side_are_given_back(place: Place) -> None:
    place.add(1, "model", 1, deadline_ns=1)
    place.add(2, "python", 1, deadline_ns=1)
    assert place.answer(1, 2) == {1: ["expired"], 2: ["expired"]}
    assert place.runs == []


def test_what_runs_when_the_pipeline_is_cleared_finishes_into_nothing(place: Place) -> None:
    begun, gate = threading.Event(), threading.Event()

    def compute() -> None:
        begun.set()
        assert gate.wait(DEADLINE_S)

    place.compute = compute
    place.add(1, "model", 1, 2, 3)
    place.turn()
    assert begun.wait(DEADLINE_S)
    place.pipeline.clear()
    gate.set()
    place.add(2, "model", 7)
    assert place.answer(2) == {2: [8]}
    assert [inputs for _, inputs in place.runs] == [[1, 2], [7, 7]]


def stumble(work: Work) -> Any:
    """An executor with a bug."""
    raise ZeroDivisionError("a secret of the inside")


@pytest.mark.pure
def test_a_bug_costs_what_is_in_hand_on_either_thread(place: Place) -> None:
    right = place.executor.run
    place.executor.run = stumble  # type: ignore[method-assign]
    place.add(1, "model", 1, 2)
    place.add(2, "python", 1)
    bug = Failure(MS_SYSTEM_ERROR, BUG_TEXT)
    assert place.answer(1, 2) == {1: [bug, bug], 2: [bug]}
    place.executor.run = right  # type: ignore[method-assign]
    place.add(3, "both", 4)
    assert place.answer(3)[3] == [5]


@pytest.mark.pure
def test_a_bug_behind_the_computing_ends_the_worker_instead_of_hanging_it(place: Place) -> None:
    place.executor.run = lambda work: []  # type: ignore[method-assign]
    place.add(1, "model", 1)
    with pytest.raises(PipelineError):
        place.answer(1)
