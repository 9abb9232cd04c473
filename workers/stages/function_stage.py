"""How a Python function is called on instances, one by one or in slices, and how it may fail.

Per instance: what it raises fails that instance. In slices (the function gets a tuple of
instances and gives one result for each):
- raised when called: every instance of the call fails;
- raised while its results are iterated: the instance at hand fails, and the function is called
  again with those behind it;
- fewer results than instances: every instance of the call fails, because nobody can say which of
  them the results belong to; more results are ignored.
A result of the wrong form fails its instance only (MindSpore Serving retires the worker).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import GeneratorType
from typing import Any, cast

from protocol.status import MS_SYSTEM_ERROR
from protocol.values import Failure, Instance, Result
from workers.servable.declarations import FunctionStage, MethodDeclaration
from workers.stages.stage_values import ContractError, from_python
from workers.stages.user_code import Fault, Raised, error_text, run_user_code

#: One instance as a Python function sees it.
Arguments = tuple[object, ...]


class FunctionCaller:
    """A function stage of one method, ready to be called.

    index: the stage's number in its method, from 1.
    slice_size: instances per call, or None if the function is called once per instance.
    report: takes what user code raised, for the log.
    """

    def __init__(
        self,
        method: MethodDeclaration,
        index: int,
        stage: FunctionStage,
        slice_size: int | None,
        report: Callable[[Fault], None],
    ) -> None:
        self._method_name = method.name
        self._stage = stage
        self._slice_size = slice_size
        self._report = report
        self._frame = (
            f"Call {stage.tag} Failed, method: '{method.name}', "
            f"stage index(begin with 1): {index}, error msg: "
        )

    def call(self, instances: Sequence[Arguments]) -> list[Result]:
        """Call the function on all instances; one result each, in their order."""
        if self._slice_size is None:
            return [self._call_with(instance) for instance in instances]
        results: list[Result] = []
        for start in range(0, len(instances), self._slice_size):
            results += self._call_slice(instances[start : start + self._slice_size])
        return results

    def _call_with(self, instance: Arguments) -> Result:
        outcome = run_user_code(lambda: self._read_outputs(self._stage.function(*instance)))
        return self._failure(outcome.error) if isinstance(outcome, Raised) else outcome

    def _call_slice(self, instances: Sequence[Arguments]) -> list[Result]:
        results: list[Result] = []
        while len(results) < len(instances):  # every call settles at least one instance
            results += self._call_once(tuple(instances[len(results) :]))
        return results

    def _call_once(self, instances: tuple[Arguments, ...]) -> list[Result]:
        """Results of the first instances: of all of them, or up to one whose iteration raised."""
        returned = run_user_code(lambda: self._stage.function(instances))
        if isinstance(returned, Raised):
            return [self._failure(returned.error)] * len(instances)
        # What is no iterator is left to next(), whose text says so to the client.
        iterator = iter(returned) if isinstance(returned, list | tuple) else returned
        results: list[Result] = []
        for _ in instances:
            item = run_user_code(lambda: next(cast(Iterator[object], iterator)))
            if isinstance(item, Raised):
                if isinstance(item.error, StopIteration):
                    return [self._too_few(len(results), len(instances))] * len(instances)
                return [*results, self._failure(item.error)]
            results.append(self._read_instance(item))
        if isinstance(iterator, GeneratorType):
            closed = run_user_code(iterator.close)
            if isinstance(closed, Raised):
                self._report(Fault(self._stage.name, closed.error))
        return results

    def _read_instance(self, returned: object) -> Result:
        outcome = run_user_code(lambda: self._read_outputs(returned))
        return self._failure(outcome.error) if isinstance(outcome, Raised) else outcome

    def _read_outputs(self, returned: Any) -> Instance:
        """The outputs of one instance. A list or tuple is always read as the outputs."""
        outputs = returned if isinstance(returned, list | tuple) else (returned,)
        if len(outputs) != self._stage.outputs_count:
            raise ContractError(
                f"The outputs number {len(outputs)} of one instance returned by function "
                f"'{self._stage.name}' is not equal to the outputs number "
                f"{self._stage.outputs_count}  registered in method {self._method_name}"
            )
        return tuple(from_python(output) for output in outputs)

    def _too_few(self, results_count: int, instances_count: int) -> Failure:
        return self._failure(
            ContractError(
                f"The number {results_count} of instances returned by function "
                f"'{self._stage.name}' is not equal to the number {instances_count} of instances "
                "provided to this function."
            )
        )

    def _failure(self, error: BaseException) -> Failure:
        self._report(Fault(self._stage.name, error))
        return Failure(MS_SYSTEM_ERROR, self._frame + error_text(error))
