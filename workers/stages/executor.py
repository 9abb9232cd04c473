"""Runs works: one step of a method, or one model, over rows that the scheduler put together.

An instance that fails is answered with its failure; the others go on. Nothing that user code or
a model does is raised to the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol import serving_texts
from protocol.layouts import Packed
from protocol.packed import PackedBatch
from protocol.status import MS_SYSTEM_ERROR
from protocol.values import Failure, Instance, Result
from workers.servable.declarations import (
    BuiltinStage,
    FunctionStage,
    MethodDeclaration,
    ModelStage,
    ServableDeclaration,
    Stage,
)
from workers.servable.model_call import calling_models
from workers.stages.builtin_functions import BUILTINS
from workers.stages.checked_model import CheckedModel
from workers.stages.function_stage import Arguments, FunctionCaller
from workers.stages.rows import Outcome, PackedResult, Plan, Row, Step, Subgraph, Work
from workers.stages.stage_values import ContractError, from_python, make_writable, to_python
from workers.stages.user_code import Fault, Raised, error_text, run_user_code

#: Faults that are kept for the log between two looks at them; the first ones tell most.
FAULTS_MAX = 16

#: Rows of one call-per-instance step that are run before anything else gets its turn.
ROWS_MAX = 32

#: Runs a function where models may be run, and returns what it returns.
OnDevice = Callable[[Callable[[], list[Result]]], list[Result]]


class Executor:
    """Runs the steps of one declared servable on its loaded models.

    Works of Python are for one thread, and those of models for one thread at a time; one of each
    may run at once. runners: one per declared model, by model key.
    Raises: RuntimeError if a method uses a model with counts that the loaded model does not have.
    """

    def __init__(
        self, declaration: ServableDeclaration, runners: Mapping[str, CheckedModel]
    ) -> None:
        self._methods = declaration.methods
        self._runners = runners
        #: When nobody waits any more for what Python computes now; its calls of models say so.
        self._deadline_ns = 0
        #: Where `Model.call` runs a model; the shell sets the door of its device thread.
        self.on_device: OnDevice = lambda run: run()
        #: What user code and backends did wrong, for the log, at most FAULTS_MAX. They hold the
        #: frames of user code, so the owner takes them out soon. Both threads append.
        self.faults: deque[Fault] = deque()
        _check_counts(declaration, runners)
        #: By method, for the scheduler.
        self.plans = {name: self._plan(method) for name, method in self._methods.items()}
        self._callers: dict[tuple[str, int], FunctionCaller] = {
            (name, index): FunctionCaller(
                method, index, stage, self._slice_size(method, stage), self._report
            )
            for name, method in self._methods.items()
            for index, stage in enumerate(method.stages, start=1)
            if isinstance(stage, FunctionStage)
        }

    def batch_size(self, method_name: str) -> int:
        """How many instances the widest stage of a method takes at once."""
        steps = self.plans[method_name].steps
        return max([1, *(step.rows_max for step in steps if not step.is_per_row)])

    def run(self, work: Work) -> Sequence[Outcome]:
        """Run a work; for each of its rows the outputs of the step, or its failure."""
        if work.model is not None:
            packed = [row.request.packed for row in work.rows]
            if None not in packed:
                return self._run_packed(work.model, packed)  # type: ignore[arg-type]
        deadline_ns = max([row.request.deadline_ns for row in work.rows])
        if work.model is not None:
            instances = [row.read(row.step.stage.inputs) for row in work.rows]
            is_mixed = any(row.request is not work.rows[0].request for row in work.rows)
            return self._run_model(work.model, instances, deadline_ns, is_mixed)
        plan, step = work.rows[0].plan, work.rows[0].step
        stage = step.stage
        if isinstance(stage, BuiltinStage):
            function = BUILTINS[stage.name].function
            return [function(row.read(stage.inputs)) for row in work.rows]
        assert isinstance(stage, FunctionStage), stage
        self._deadline_ns = deadline_ns
        with calling_models(self):
            caller = self._callers[plan.method, step.number]
            return caller.call([_arguments(row, stage) for row in work.rows])

    def call_model(
        self, key: str, subgraph: int, instances: Sequence[Sequence[object]]
    ) -> list[tuple[npt.NDArray[Any], ...]]:
        """Run a model for `Model.call`. Raises RuntimeError with the text that `call` promises."""
        failed = f"Model({key}{f', subgraph={subgraph}' if subgraph else ''}).call() failed: "
        runner = self._runners.get(key)
        if runner is None:
            raise RuntimeError(
                f"{failed}the model is not declared, ensure that interface 'declare_model' can "
                "take effect when importing servable_config.py by the serving server"
            )
        if subgraph >= runner.subgraphs_count:
            raise RuntimeError(
                f"{failed}The model does not have subgraph of index {subgraph}, the subgraph "
                f"count of the model is {runner.subgraphs_count}"
            )
        if not instances:
            raise RuntimeError(f"{failed}Input instances count is 0")
        inputs_count, _ = runner.counts(subgraph)
        for number, instance in enumerate(instances):
            if len(instance) != inputs_count:
                raise RuntimeError(
                    f"{failed}The inputs count {len(instance)} of instance {number} is not equal "
                    f"to the inputs count {inputs_count} of the model"
                )
        values = _call_values(failed, runner, subgraph, instances)
        model, deadline_ns = Subgraph(key, subgraph), self._deadline_ns
        results = self.on_device(lambda: self._run_runner(model, values, deadline_ns))
        return [_arrays(failed, result) for result in results]

    # ---------------------------------------------------------------- models

    def _run_model(
        self, model: Subgraph, instances: list[Instance], deadline_ns: int, is_mixed: bool
    ) -> list[Result]:
        results = run_user_code(lambda: self._run_runner(model, instances, deadline_ns, is_mixed))
        if not isinstance(results, Raised):
            return results
        self._report(Fault(model.model_key, results.error))
        return [_model_failure(results.error)] * len(instances)

    def _run_packed(self, model: Subgraph, instances: list[Packed]) -> Sequence[Outcome]:
        runner = self._runners[model.model_key]
        outcome = run_user_code(lambda: runner.run_packed(model.number, instances))
        if isinstance(outcome, PackedBatch):
            return [PackedResult(outcome, row) for row in range(len(instances))]
        if isinstance(outcome, Raised):
            self._report(Fault(model.model_key, outcome.error))
            return [_model_failure(outcome.error)] * len(instances)
        self._report_faults(model, runner)
        return outcome

    def _run_runner(
        self,
        model: Subgraph,
        instances: list[Instance],
        deadline_ns: int,
        is_mixed: bool = False,
    ) -> list[Result]:
        runner = self._runners[model.model_key]
        results = runner.run(model.number, instances, deadline_ns, is_mixed)
        self._report_faults(model, runner)
        return results

    def _report_faults(self, model: Subgraph, runner: CheckedModel) -> None:
        for error in runner.faults:
            self._report(Fault(model.model_key, error))
        runner.faults.clear()

    def _report(self, fault: Fault) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(fault)

    # ---------------------------------------------------------------- batch sizes

    def _plan(self, method: MethodDeclaration) -> Plan:
        steps = tuple(
            self._step(method, index, stage) for index, stage in enumerate(method.stages, start=1)
        )
        return Plan(method.name, steps, method.returns, self._is_packable(method))

    def _is_packable(self, method: MethodDeclaration) -> bool:
        if len(method.stages) != 1 or not isinstance(method.stages[0], ModelStage):
            return False
        stage = method.stages[0]
        inputs = [(0, index) for index in range(len(method.inputs))]
        outputs = [(1, index) for index in range(stage.outputs_count)]
        if [(each.stage, each.index) for each in stage.inputs] != inputs:
            return False
        if [(each.stage, each.index) for each in method.returns] != outputs:
            return False
        return self._runners[stage.model_key].is_packable(stage.subgraph)

    def _step(self, method: MethodDeclaration, index: int, stage: Stage) -> Step:
        if isinstance(stage, ModelStage):
            size = self._runners[stage.model_key].batch_size
            return Step(index, stage, Subgraph(stage.model_key, stage.subgraph), size, False)
        slice_size = self._slice_size(method, stage) if isinstance(stage, FunctionStage) else None
        return Step(index, stage, None, slice_size or ROWS_MAX, slice_size is None)

    def _slice_size(self, method: MethodDeclaration, stage: FunctionStage) -> int | None:
        """Instances per call: what was declared, or for 0 what suits the method's models.

        A function that runs before any model prepares for the smallest of them, others take what
        the largest gives.
        """
        if stage.batch_size is None or stage.batch_size > 0:
            return stage.batch_size
        sizes = self._model_batch_sizes(method)
        first = all(placeholder.stage == 0 for placeholder in stage.inputs)
        return (min if first else max)(sizes, default=1)

    def _model_batch_sizes(self, method: MethodDeclaration) -> list[int]:
        return [
            self._runners[stage.model_key].batch_size
            for stage in method.stages
            if isinstance(stage, ModelStage)
        ]


def _arguments(row: Row, stage: FunctionStage) -> Arguments:
    """What a Python function gets; the row keeps the writable values, so edits stay visible."""
    arguments = []
    for placeholder in stage.inputs:
        values = row.values[placeholder.stage]
        value = values[placeholder.index] = make_writable(values[placeholder.index])
        arguments.append(to_python(value))
    return tuple(arguments)


def _model_failure(error: BaseException) -> Failure:
    """What clients are told when the model thread raised something that no backend should."""
    if isinstance(error, MemoryError):
        text = serving_texts.MEMORY_EXHAUSTED
    elif isinstance(error, RuntimeError):
        text = serving_texts.runtime_error(error_text(error))
    else:
        text = serving_texts.exception_occurred(error_text(error))
    return Failure(MS_SYSTEM_ERROR, text)


def _call_values(
    failed: str, runner: CheckedModel, subgraph: int, instances: Sequence[Sequence[object]]
) -> list[Instance]:
    try:
        values = [tuple(from_python(item) for item in instance) for instance in instances]
    except ContractError as violation:
        raise RuntimeError(f"{failed}{violation}") from None
    for value in values:
        failure = runner.check(subgraph, value)
        if failure is not None:
            raise RuntimeError(failed + failure.message)
    return values


def _arrays(failed: str, result: Result) -> tuple[npt.NDArray[Any], ...]:
    if isinstance(result, Failure):
        raise RuntimeError(failed + result.message)
    assert all(isinstance(value, np.ndarray) for value in result), "models give arrays only"
    return result  # type: ignore[return-value]


def _check_counts(declaration: ServableDeclaration, runners: Mapping[str, CheckedModel]) -> None:
    for key in declaration.models:
        assert key in runners, f"model {key} is declared but was not loaded"
    for key, counts in declaration.model_counts.items():
        loaded = runners[key].counts(0)
        for which, count, defined in zip(("inputs", "outputs"), counts, loaded, strict=True):
            if count != defined:
                raise RuntimeError(
                    f"The {which} count {count} in register_method not equal to the count "
                    f"{defined} defined in model, model info: {key}, subgraph: 0"
                )
