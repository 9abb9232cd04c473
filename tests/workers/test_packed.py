"""Requests that are not decoded get the replies, byte by byte, that they would get decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from protocol import head, native
from protocol.dialects import DIALECTS
from protocol.values import MethodSignature
from protocol.worker_session import Arrival
from tests.protocol.oip_helpers import json_input, json_request
from tests.protocol.oip_helpers import request as oip_request
from tests.workers.models import FakeModel, named_method, tensor, total
from workers.backends.base import BackendError, GroupError
from workers.servable.declarations import ModelDeclaration
from workers.servable.registry import add_stage, collecting, declare_model, register_method
from workers.stages.executor import Executor
from workers.stages.method_tensors import method_tensors
from workers.stages.model_runner import ModelRunner
from workers.stages.request_desk import RequestDesk
from workers.stages.rows import PendingRequest
from workers.stages.scheduler import Scheduler

Bodies = Sequence[tuple[int, list[bytes]]]


class Worker:
    """The main thread of a worker with a model `K` (y = x1 + x2, two float32 each).

    Methods: `add` (the model), `swapped` (the model, its inputs in the other order), `prepared` (a
    stage of Python, and the model).
    """

    def __init__(self, compute: Callable[..., Any], size: int, is_packing: bool) -> None:
        spec = tensor(size, 2)
        with collecting("s") as declaration:
            model = declare_model("K", "MindIR")

            def stage(*inputs: Any) -> Any:
                return add_stage(model, *inputs, outputs_count=1)

            def prepare(x: Any) -> Any:
                return x * 2, x

            for name, body in (
                ("add", stage),
                ("swapped", lambda x1, x2: stage(x2, x1)),
                ("prepared", lambda x1, x2: stage(x1, add_stage(prepare, x2, outputs_count=2)[0])),
            ):
                register_method("y")(named_method(name, ["x1", "x2"], body))
        self.model = FakeModel([spec, spec], [spec], compute)
        runner = ModelRunner(ModelDeclaration("K", ("K",), "mindir"), self.model, (1, 2, 4))
        self.executor = Executor(declaration, {"K": runner})
        self.scheduler = Scheduler(self.executor.plans)
        methods = {
            name: MethodSignature(
                "s", name, ("x1", "x2"), ("y",), method_tensors(method, {"K": runner}), version=3
            )
            for name, method in declaration.methods.items()
        }
        self.packed: list[bool] = []
        packable = [name for name, plan in self.executor.plans.items() if plan.is_packable]
        assert packable == ["add"]
        self.desk = RequestDesk("s/3", methods, self._add, DIALECTS, packable if is_packing else [])

    def _add(self, request: PendingRequest) -> None:
        self.packed.append(request.packed is not None)
        self.scheduler.add(request)

    def answer(self, bodies: Bodies, method: str = "add") -> list[tuple[head.Head, list[bytes]]]:
        """Take requests in, compute them together, and give the replies, by their order."""
        desk, scheduler = self.desk, self.scheduler
        for ticket, (dialect, frames) in enumerate(bodies):
            made = head.Head(
                head.REQUEST, request_id=ticket, dialect=dialect, body_frames=len(frames),
                service=b"s/0", method=method.encode(), trace_id=bytes([ticket]) * 16,
            )  # fmt: skip
            desk.receive(Arrival(head.pack(made), frames, 0))
        while (work := scheduler.next_python_work(0) or scheduler.next_device_work(0)) is not None:
            scheduler.complete(work, self.executor.run(work), 0)
            scheduler.check_invariants()
        desk.take_back(scheduler.finished, scheduler.expired)
        scheduler.finished, scheduler.expired = [], []
        desk.write_replies()
        replies = [
            (head.unpack(frame), [bytes(part) for part in frames])
            for frame, frames in head.split_parcels(desk.replies)  # type: ignore[arg-type]
        ]
        desk.tickets, desk.replies = [], []
        return sorted(replies, key=lambda reply: reply[0].request_id)


def bodies(*pairs: Any, request_id: str = "") -> Bodies:
    """The same instances in several dialects, one after another."""
    made: list[tuple[int, list[bytes]]] = []
    for x1, x2 in pairs:
        one, two = np.array(x1, np.float32), np.array(x2, np.float32)
        frames = native.encode_request([{"x1": one, "x2": two}])
        made.append((head.DIALECT_NATIVE, [bytes(frame) for frame in frames]))
        infer = oip_request(("x2", two[None]), ("x1", one[None]), id=request_id)
        made.append((head.DIALECT_OIP, [infer.SerializeToString()]))
        inputs = [json_input(n, "FP32", [1, 2], data=a) for n, a in (("x1", x1), ("x2", x2))]
        document = {"id": request_id, "inputs": inputs}
        made.append((head.DIALECT_OIP_JSON, [bytes(each) for each in json_request(document)]))
    return made


def check(
    compute: Callable[..., Any], asked: Bodies, size: int = -1, method: str = "add"
) -> Worker:
    """Ask twice, so that the second time layouts are known, with and without them."""
    packing, plain = Worker(compute, size, True), Worker(compute, size, False)
    for _ in range(2):
        assert packing.answer(asked, method) == plain.answer(asked, method)
    faults = [[str(fault) for fault in each.executor.faults] for each in (packing, plain)]
    assert faults[0] == faults[1]
    assert not any(plain.packed)
    return packing


PAIRS = [([1.5, 2.0], [0.5, -1.0]), ([3.0, 4.0], [1e-3, 0.1]), ([13.0, 5.0], [6.0, 7.0])]


@pytest.mark.parametrize("size", [-1, 4])
def test_requests_of_all_layouts_share_a_batch_and_get_their_own_replies(size: int) -> None:
    worker = check(total, bodies(*PAIRS, request_id="id"), size)
    assert all(worker.packed[-9:])
    assert len(worker.model.runs[-1][1][0]) in (1, 4)


def test_what_is_not_alike_is_computed_with_what_is() -> None:
    several = native.encode_request(
        [{"x1": np.ones(2, np.float32), "x2": np.ones(2, np.float32)}] * 3
    )
    wrong = native.encode_request([{"x1": np.ones(2, np.float32), "x2": np.ones(2, np.float64)}])
    asked = [
        *bodies(*PAIRS[:1]),
        (head.DIALECT_NATIVE, [bytes(frame) for frame in several]),
        (head.DIALECT_NATIVE, [bytes(frame) for frame in wrong]),
        (head.DIALECT_OIP, [b"\x0a"]),
    ]
    worker = check(total, asked)
    assert worker.packed[-5:] == [True, True, True, False, False]


def failing(error: Exception) -> Callable[..., Any]:
    """Computes, but not what has a 13."""

    def compute(arrays: Sequence[Any]) -> Any:
        if any((array == 13).any() for array in arrays):
            raise error
        return total(arrays)

    return compute


@pytest.mark.parametrize(
    "error", [BackendError("b"), GroupError("g"), RuntimeError("r"), MemoryError()]
)
@pytest.mark.parametrize("size", [-1, 4])
def test_an_instance_that_fails_does_so_as_if_it_had_been_decoded(
    error: Exception, size: int
) -> None:
    worker = check(failing(error), bodies(*PAIRS), size)
    assert all(worker.packed[-9:])


@pytest.mark.parametrize(
    "output",
    [
        lambda total: total / 0.0,
        lambda total: total.astype(np.float64)[:, ::-1],
        lambda total: total > 0,
        lambda total: total[:, :0],
        lambda total: total[:, 0],
        lambda total: total.astype(np.complex64),
        lambda total: np.repeat(total[..., None], 3, axis=2).astype(np.int8),
        lambda total: total[:-1],
        lambda total: total.astype(">f4"),
    ],
)
def test_outputs_of_any_kind_are_answered_as_if_decoded(output: Callable[..., Any]) -> None:
    def compute(arrays: Sequence[Any]) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return [output(sum(arrays))]

    check(compute, bodies(*PAIRS))


def test_models_with_too_many_outputs_fail_alike() -> None:
    check(lambda arrays: [arrays[0], arrays[0]], bodies(*PAIRS))


@pytest.mark.parametrize("method", ["swapped", "prepared"])
def test_methods_that_do_more_than_their_model_are_decoded(method: str) -> None:
    worker = check(total, bodies(*PAIRS), method=method)
    assert not any(worker.packed)


def test_a_model_may_write_to_what_it_is_given() -> None:
    def compute(arrays: Sequence[Any]) -> Any:
        arrays[0][...] += arrays[1]
        return [arrays[0].copy()]

    check(compute, bodies(*PAIRS), 4)


def test_a_bug_costs_the_reply_in_hand_only() -> None:
    worker = Worker(total, -1, True)
    asked = bodies(*PAIRS)
    worker.answer(asked)
    made = head.Head(
        head.REQUEST, request_id=7, dialect=head.DIALECT_OIP, service=b"s/0", method=b"add"
    )
    with pytest.raises(TypeError):
        worker.desk.receive(Arrival(head.pack(made), None, 0))  # type: ignore[arg-type]
    assert worker.desk.fail_in_hand()
    assert worker.desk.tickets == [7]
    worker.desk.tickets, worker.desk.replies = [], []
    assert len(worker.answer(asked)) == len(asked)
