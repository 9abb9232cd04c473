"""Models that device workers have loaded, as an extra worker calls them; the wire is scripted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from protocol import head as heads
from protocol import limits, native
from protocol.client_session import Completion, failure
from protocol.native import Buffer
from protocol.values import Failure, MethodSignature, RequestSpec
from tests.workers.models import FakeModel, floats, runner, tensor
from workers.backends.base import TensorSpec
from workers.servable.declarations import ModelDeclaration
from workers.stages.checked_model import ModelDescription, read_model_description
from workers.stages.remote_model import REQUEST_BYTES_MAX, Call, RemoteModel

DEADLINE_NS = 7


class Wire:
    """Answers calls with twice what came, or as it is told."""

    def __init__(self, answer: Completion | None = None) -> None:
        self.calls: list[tuple[str, int]] = []
        self.answer = answer

    def send(self, calls: Sequence[Call], deadline_ns: int) -> list[Completion]:
        assert deadline_ns == DEADLINE_NS
        self.calls += [(method, count) for method, _, count in calls]
        return [self.answer or self._double(method, frames) for method, frames, _ in calls]

    def _double(self, method: str, frames: list[Buffer]) -> Completion:
        assert len(frames) <= limits.BODY_FRAMES_MAX
        signature = MethodSignature("s", method, ("x0",), ("y0",))
        results = [
            (2 * np.asarray(x),) if np.ravel(x)[0] < 100 else Failure(1, "Predict Failed")
            for (x,) in native.decode_request(frames, signature)
        ]
        reply = native.encode_reply(RequestSpec("s", method, 1), signature, results)
        return Completion(1, heads.pack(heads.Head(heads.REPLY, body_frames=len(reply))), reply)


def remote(wire: Wire, *shape: int, key: str = "m.mindir", subgraphs: int = 1) -> RemoteModel:
    specs = [(tensor(-1, *shape),)] * subgraphs
    declaration = ModelDeclaration(key, tuple(key.split(";")), "mindir")
    return RemoteModel(declaration, ModelDescription(specs, specs, (1, 4)), wire.send)


def test_instances_travel_in_one_request_of_the_hidden_method() -> None:
    wire = Wire()
    model = remote(wire, 2, key="a.mindir;b.mindir", subgraphs=2)
    results = model.run(1, [(floats(1, 2),), (floats(3, 4),), (floats(5, 6),)], DEADLINE_NS)
    assert [[output.tolist() for output in result] for result in results] == [  # type: ignore[union-attr]
        [[2, 4]],
        [[6, 8]],
        [[10, 12]],
    ]
    assert wire.calls == [("@call_a.mindir;b.mindir_1", 3)]


def test_instances_of_several_requests_travel_apart() -> None:
    wire = Wire()
    instances = [(floats(1),), (floats(500),), (floats(3),)]
    results = remote(wire, 1).run(0, instances, DEADLINE_NS, is_mixed=True)
    assert wire.calls == [("@call_m.mindir_0", 1)] * 3
    assert results[1] == Failure(1, "Predict Failed")
    assert [np.asarray(results[index][0]).tolist() for index in (0, 2)] == [[2], [6]]  # type: ignore[index]


def test_a_worker_that_waits_for_another_says_so_and_no_longer() -> None:
    model = remote(Wire(), 1)
    said: list[bool] = []
    model.on_wait = said.append
    model.run(0, [(floats(1),)], DEADLINE_NS)
    assert said == [True, False]


def test_a_bad_instance_is_not_sent_and_fails_alone() -> None:
    wire = Wire()
    good, bad = remote(wire, 2).run(0, [(floats(1, 2),), (floats(1, 2, 3),)], DEADLINE_NS)
    assert good[0].tolist() == [2, 4]  # type: ignore[union-attr]
    assert bad == Failure(2, "Given model input 0 size 12 not match the size 8 defined in model")
    assert wire.calls == [("@call_m.mindir_0", 1)]


def test_without_a_good_instance_nothing_is_sent() -> None:
    wire = Wire()
    assert isinstance(remote(wire, 2).run(0, [(floats(1),)], DEADLINE_NS)[0], Failure)
    assert wire.calls == []


def test_an_instance_that_failed_on_the_device_fails_alone_with_its_text() -> None:
    results = remote(Wire(), 1).run(0, [(floats(1),), (floats(100),)], DEADLINE_NS)
    assert results[1] == Failure(1, "Predict Failed")
    assert results[0][0].tolist() == [2]  # type: ignore[union-attr]


def test_instances_that_are_too_large_for_one_request_travel_in_several() -> None:
    wire = Wire()
    half = REQUEST_BYTES_MAX // 8
    rows = [np.full(half, number, np.float32) for number in range(3)]
    results = remote(wire, half).run(0, [(row,) for row in rows], DEADLINE_NS)
    assert [result[0][0] for result in results] == [0, 2, 4]  # type: ignore[union-attr]
    assert wire.calls == [("@call_m.mindir_0", 2), ("@call_m.mindir_0", 1)]


def test_more_large_tensors_than_a_request_has_frames_travel_in_several() -> None:
    wire = Wire()
    size = limits.TENSOR_INLINE_BYTES_MAX // 4
    row = np.ones(size, np.float32)
    results = remote(wire, size).run(0, [(row,)] * 300, DEADLINE_NS)
    assert len(results) == 300
    assert [count for _, count in wire.calls] == [254, 46]


@pytest.mark.parametrize(
    ("reason", "message", "text"),
    [
        ("no_worker", "x", "There are no available inference processes that occupy devices"),
        ("unknown_service", "x", "There are no available inference processes that occupy devices"),
        ("worker_lost", "2 workers were lost", "Remote call model failed: 2 workers were lost"),
    ],
)
def test_a_call_that_failed_as_a_whole_fails_each_of_its_instances(
    reason: str, message: str, text: str
) -> None:
    wire = Wire(failure(1, reason, message))
    results = remote(wire, 1).run(0, [(floats(1),), (floats(2),)], DEADLINE_NS)
    assert results == [Failure(1, text)] * 2


@pytest.mark.parametrize(
    "instances", [[], [{"y0": 1.0}], [{"y1": 1.0}, {"y1": 1.0}], "none", [1, 2]]
)
def test_a_reply_that_does_not_answer_the_call_fails_it(instances: Any) -> None:
    body = native.pack_meta({"instances": instances})
    wire = Wire(Completion(1, heads.pack(heads.Head(heads.REPLY, body_frames=1)), [body]))
    for result in remote(wire, 1).run(0, [(floats(1),), (floats(2),)], DEADLINE_NS):
        assert isinstance(result, Failure)
        assert result.message.startswith("Remote call model failed: ")


def test_a_model_whose_name_is_too_long_to_be_called_is_refused_at_the_start() -> None:
    with pytest.raises(RuntimeError) as raised:
        remote(Wire(), 1, key="m" * 250)
    assert "method name of 258 B exceeds method_bytes_max 255" in str(raised.value)


def test_a_description_says_all_that_checks_need() -> None:
    model = FakeModel(
        [[tensor(-1, 2), tensor(3, dtype="int8")], [tensor(-1, 4), tensor(5)]],
        [[tensor(-1, 2)], [tensor(-1, 4)]],
    )
    described = runner(model, [2, 1], without_batch_dim_inputs=(1,)).describe()
    assert described.batch_sizes == (1, 2)
    read = read_model_description(described.as_document())
    assert read == described
    assert read.inputs[0][1] == TensorSpec("t", np.dtype("int8"), (3,))


def test_a_description_in_other_words_is_an_error() -> None:
    for document in ({}, {"inputs": [[["x"]]], "outputs": [], "batch_sizes": []}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            read_model_description(document)
