"""Runs the methods of a servable: stages in order, over all instances of a batch at once.

An instance that fails is out of the later stages and answered with its failure; the others go
on. Nothing that user code or a model does is raised to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.status import MS_SYSTEM_ERROR
from protocol.values import Failure, Instance, Result, Value
from workers.servable.declarations import (
    BuiltinStage,
    FunctionStage,
    MethodDeclaration,
    ModelStage,
    Placeholder,
    ServableDeclaration,
    Stage,
)
from workers.servable.model_call import calling_models
from workers.stages.builtin_functions import BUILTINS
from workers.stages.function_stage import Arguments, FunctionCaller
from workers.stages.model_runner import ModelRunner
from workers.stages.stage_values import ContractError, from_python, make_writable, to_python
from workers.stages.user_code import Fault, Raised, error_text, run_user_code

#: Faults that are kept for the log of one run; the first ones tell most.
FAULTS_MAX = 16

#: One instance under way: its inputs, then the outputs of each stage so far. Inner lists,
#: because a value is replaced by its writable copy when a Python stage first uses it.
Row = list[list[Value]]


class Executor:
    """Runs the methods of one declared servable on its loaded models. For one thread.

    runners: one per declared model, by model key.
    Raises: RuntimeError if a method uses a model with counts that the loaded model does not have.
    """

    def __init__(
        self, declaration: ServableDeclaration, runners: Mapping[str, ModelRunner]
    ) -> None:
        self._methods = declaration.methods
        self._runners = runners
        #: What the last run has for the log: errors of user code and backends, at most
        #: FAULTS_MAX. They hold the frames of user code, so the owner clears the list when logged.
        self.faults: list[Fault] = []
        _check_counts(declaration, runners)
        self._batch_sizes = {
            name: max([1, *self._stage_batch_sizes(method)])
            for name, method in self._methods.items()
        }
        self._callers: dict[tuple[str, int], FunctionCaller] = {
            (name, index): FunctionCaller(
                method, index, stage, self._slice_size(method, stage), self._report
            )
            for name, method in self._methods.items()
            for index, stage in enumerate(method.stages, start=1)
            if isinstance(stage, FunctionStage)
        }

    def batch_size(self, method_name: str) -> int:
        """How many instances a batch of this method should hold at most."""
        return self._batch_sizes[method_name]

    def run(self, method_name: str, instances: Sequence[Instance]) -> list[Result]:
        """Run a method on any number of instances; one result each, in their order.

        method_name: a declared method. instances: each with one value per method input.
        """
        method = self._methods[method_name]
        self.faults.clear()
        rows: list[Row] = [[list(instance)] for instance in instances]
        failures: dict[int, Failure] = {}
        live = list(range(len(rows)))
        with calling_models(self):
            for index, stage in enumerate(method.stages, start=1):
                if not live:
                    break
                outcomes = self._run_stage(method, index, stage, [rows[row] for row in live])
                for row, outcome in zip(live, outcomes, strict=True):
                    if isinstance(outcome, Failure):
                        failures[row] = outcome
                    else:
                        rows[row].append(list(outcome))
                if failures:
                    live = [row for row in live if row not in failures]
        self._collect_model_faults()
        return [
            failures[number] if number in failures else _read(row, method.returns)
            for number, row in enumerate(rows)
        ]

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
        return [
            _arrays(failed, result) for result in _run_call(failed, runner, subgraph, instances)
        ]

    # ---------------------------------------------------------------- stages

    def _run_stage(
        self, method: MethodDeclaration, index: int, stage: Stage, rows: list[Row]
    ) -> list[Result]:
        if isinstance(stage, ModelStage):
            return self._run_model(stage, [_read(row, stage.inputs) for row in rows])
        if isinstance(stage, BuiltinStage):
            function = BUILTINS[stage.name].function
            return [function(_read(row, stage.inputs)) for row in rows]
        return self._callers[method.name, index].call([_arguments(row, stage) for row in rows])

    def _run_model(self, stage: ModelStage, instances: list[Instance]) -> list[Result]:
        runner = self._runners[stage.model_key]
        results = run_user_code(lambda: runner.run(0, instances))
        if not isinstance(results, Raised):
            return results
        self._report(Fault(stage.model_key, results.error))
        return [_model_failure(results.error)] * len(instances)

    def _report(self, fault: Fault) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(fault)

    def _collect_model_faults(self) -> None:
        for key, runner in self._runners.items():
            for error in runner.faults:
                self._report(Fault(key, error))
            runner.faults.clear()

    # ---------------------------------------------------------------- batch sizes

    def _stage_batch_sizes(self, method: MethodDeclaration) -> list[int]:
        sizes = self._model_batch_sizes(method)
        return sizes + [
            self._slice_size(method, stage) or 1
            for stage in method.stages
            if isinstance(stage, FunctionStage)
        ]

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


def _read(row: Row, placeholders: Sequence[Placeholder]) -> Instance:
    return tuple(row[placeholder.stage][placeholder.index] for placeholder in placeholders)


def _arguments(row: Row, stage: FunctionStage) -> Arguments:
    """What a Python function gets; the row keeps the writable values, so edits stay visible."""
    arguments = []
    for placeholder in stage.inputs:
        values = row[placeholder.stage]
        value = values[placeholder.index] = make_writable(values[placeholder.index])
        arguments.append(to_python(value))
    return tuple(arguments)


def _model_failure(error: BaseException) -> Failure:
    """What clients are told when the model thread raised something that no backend should."""
    if isinstance(error, MemoryError):
        text = "malloc memory failed"
    elif isinstance(error, RuntimeError):
        text = f"runtime error occurred: {error_text(error)}"
    else:
        text = f"exception occurred: {error_text(error)}"
    return Failure(MS_SYSTEM_ERROR, f"Serving Error: {text}")


def _run_call(
    failed: str, runner: ModelRunner, subgraph: int, instances: Sequence[Sequence[object]]
) -> list[Result]:
    try:
        values = [tuple(from_python(item) for item in instance) for instance in instances]
    except ContractError as violation:
        raise RuntimeError(f"{failed}{violation}") from None
    for value in values:
        failure = runner.check(subgraph, value)
        if failure is not None:
            raise RuntimeError(failed + failure.message)
    return runner.run(subgraph, values)


def _arrays(failed: str, result: Result) -> tuple[npt.NDArray[Any], ...]:
    if isinstance(result, Failure):
        raise RuntimeError(failed + result.message)
    assert all(isinstance(value, np.ndarray) for value in result), "models give arrays only"
    return result  # type: ignore[return-value]


def _check_counts(declaration: ServableDeclaration, runners: Mapping[str, ModelRunner]) -> None:
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
