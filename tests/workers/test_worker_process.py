"""Real worker processes at work; the test plays the broker."""

import json
import random

import numpy as np
import pytest

from protocol import control, head, limits, ms_service_pb2, native, serving_texts, status
from protocol.values import Failure, InstanceSpec, MethodSignature, MethodTensors, RequestSpec
from tests.workers.fake_broker import (
    X1,
    X2,
    failure_of,
    open_gate,
    parcel,
    request,
    values_of,
)

pytestmark = pytest.mark.process

# ---------------------------------------------------------------- registration


def test_a_worker_offers_what_it_serves_and_reports_ready_after_welcome(place, broker, start):
    worker = start(place.document(generation=4, device_id=2))
    assert worker.report() == {"state": "loading"}
    ready = broker.admit()
    square = InstanceSpec("float32", (2, 2))
    model = MethodTensors(True, (square, square), (square,), 4)
    python = MethodTensors(True, (None,), (None,))
    assert ready == control.Ready(
        worker_id="add/1/device0",
        generation=4,
        service="add/1",
        credit=24,
        methods=(
            MethodSignature("add", "add", ("x1", "x2"), ("y",), model),
            MethodSignature("add", "counted", ("x",), ("executions",), python),
            MethodSignature("add", "gated", ("path",), ("text",), python),
            MethodSignature("add", "batch_length", ("x",), ("length",), python),
            MethodSignature("add", "zeros", ("size",), ("zeros",), python),
            MethodSignature("add", "@call_add.json_0", ("x0", "x1"), ("y0",), model),
        ),
        device=control.Device("CPU", 2),
        pid=worker.process.pid,
        servable="add",
    )
    inputs = [["x1", "float32", [4, 2, 2]], ["x2", "float32", [4, 2, 2]]]
    assert worker.report() == {
        "state": "ready",
        "device": {"target": "CPU", "id": 2},
        "version": 1,
        "methods": ["add", "counted", "gated", "batch_length", "zeros", "@call_add.json_0"],
        # What extra workers need:
        "models": {
            "add.json": {
                "inputs": [inputs],
                "outputs": [[["y", "float32", [4, 2, 2]]]],
                "batch_sizes": [4],
            }
        },
        "python_methods": ["counted", "gated", "batch_length", "zeros"],
    }
    assert worker.output_line() == (
        f"Serving: Start servable success, servable directory: '{place.path}', "
        "servable name: 'add', version number: 1\n"
    )


def test_the_device_id_is_in_the_environment_when_the_servable_is_imported(place, broker, start):
    place.config.write_text(
        place.config.read_text().replace(
            "executions = 0", "import os\nexecutions = int(os.environ['SERVING_DEVICE_ID'])"
        )
    )
    start(place.document(device_id=5))
    broker.admit()
    _, frames = broker.ask(1, "counted", {"x": 0})
    assert values_of(frames) == [{"executions": 6}]


@pytest.mark.shows("F7")
def test_a_lost_broker_is_found_again_with_a_new_offer(worker, broker):
    broker.restart()
    assert broker.admit().worker_id == "add/1/device0"
    _, frames = broker.ask(1, "add", {"x1": X1, "x2": X2})
    assert values_of(frames) == [{"y": (X1 + X2).tolist()}]


@pytest.mark.parametrize("has_link", [False])
def test_a_broker_that_does_not_know_a_worker_has_a_new_offer(worker, broker):
    broker.restart()
    broker.receive(head.HEARTBEAT)  # over a connection that libzmq made again
    broker.send(*control.pack(control.Disconnect("not registered")))
    assert broker.admit().worker_id == "add/1/device0"


@pytest.mark.parametrize("has_link", [True, False])
def test_a_silent_broker_is_left_for_a_new_connection(place, start, open_broker):
    broker = open_broker(interval_ms=20, liveness=5)
    try:
        start(place.document())
        broker.admit()
        first = broker.worker
        broker.admit()
        assert broker.worker != first
    finally:
        broker.close()


def test_a_large_request_comes_while_the_worker_computes_and_the_broker_is_still_heard(
    place, start, open_broker
):
    broker = open_broker(interval_ms=100, liveness=10)
    try:
        start(place.document())
        broker.admit()
        gate = place.gate()
        broker.send(*request(1, "gated", {"path": gate}))
        large = {"x1": X1, "x2": np.zeros(4_000_000, np.float32)}
        broker.send(*request(2, "add", large, flags=head.FLAG_BODY_LARGE, body_frames=2))
        for _ in range(30):  # three times as long as the worker bears silence
            broker.send(*control.pack(control.Heartbeat()))
            broker.receive(head.HEARTBEAT)
        open_gate(gate, "open")
        assert broker.replies(2).keys() == {1, 2}
    finally:
        broker.close()


@pytest.mark.shows("F11", "F2")
def test_no_reply_of_a_lost_connection_reaches_the_next_one(place, worker, broker):
    gate = place.gate()
    broker.send(*request(1, "gated", {"path": gate}))
    broker.wait_until_busy()
    broker.send(*control.pack(control.Disconnect("restart")))
    broker.admit()
    open_gate(gate, "too late")
    _, frames = broker.ask(1, "counted", {"x": 0})
    assert values_of(frames) == [{"executions": 1}]


# ---------------------------------------------------------------- requests


def test_a_native_request_is_computed(worker, broker):
    reply, frames = broker.ask(7, "add", {"x1": X1, "x2": X2}, {"x1": X2, "x2": X2})
    assert (reply.dialect, reply.status, reply.instance_count) == (head.DIALECT_NATIVE, 0, 2)
    assert values_of(frames) == [{"y": (X1 + X2).tolist()}, {"y": (X2 + X2).tolist()}]


def test_an_ms_service_request_is_answered_in_protobuf(worker, broker):
    asked = ms_service_pb2.PredictRequest(
        servable_spec=ms_service_pb2.ServableSpec(name="add", method_name="add")
    )
    items = asked.instances.add().items
    for name, array in (("x1", X1), ("x2", X2)):
        items[name].CopyFrom(
            ms_service_pb2.Tensor(
                shape=ms_service_pb2.TensorShape(dims=array.shape),
                dtype=ms_service_pb2.MS_FLOAT32,
                data=array.tobytes(),
            )
        )
    broker.send(*parcel(3, "add", [asked.SerializeToString()], dialect=head.DIALECT_MS_SERVICE))
    reply, frames = broker.reply()
    assert (reply.request_id, reply.dialect, reply.status) == (3, head.DIALECT_MS_SERVICE, 0)
    answered = ms_service_pb2.PredictReply.FromString(frames[0])
    tensor = answered.instances[0].items["y"]
    assert np.frombuffer(tensor.data, np.float32).tolist() == (X1 + X2).reshape(-1).tolist()
    assert list(tensor.shape.dims) == [2, 2]
    assert answered.servable_spec.method_name == "add"


def test_a_restful_request_is_answered_in_json(worker, broker):
    body = json.dumps({"instances": {"x1": X1.tolist(), "x2": X2.tolist()}}).encode()
    broker.send(*parcel(4, "add", [body], dialect=head.DIALECT_RESTFUL))
    reply, frames = broker.reply()
    assert (reply.request_id, reply.dialect, reply.status) == (4, head.DIALECT_RESTFUL, 0)
    assert json.loads(b"".join(frames)) == {"instances": [{"y": (X1 + X2).tolist()}]}


def test_large_tensors_travel_both_ways(worker, broker):
    size = 3 * limits.TENSOR_INLINE_BYTES_MAX
    large = np.zeros(size, np.uint8)
    flags = {"flags": head.FLAG_BODY_LARGE}
    _, frames = broker.ask(1, "batch_length", {"x": large}, {"x": large}, **flags)
    assert values_of(frames) == [{"length": 2}, {"length": 2}]
    reply, frames = broker.ask(2, "zeros", {"size": size})
    assert reply.flags == head.FLAG_BODY_LARGE
    (result,) = native.decode_reply(frames)
    assert np.array_equal(result["zeros"], large)


def test_requests_that_wait_are_computed_together(place, worker, broker):
    gate = place.gate()
    parcels = request(1, "gated", {"path": gate})
    for ticket in range(2, 7):
        parcels += request(ticket, "batch_length", {"x": ticket})
    broker.send(*parcels)
    broker.wait_until_busy()
    open_gate(gate, "open")
    replies = broker.replies(6)
    assert native.decode_reply(replies[1][1])[0]["text"].text == "open"
    lengths = [values_of(replies[ticket][1]) for ticket in range(2, 7)]
    assert lengths == [[{"length": 5}]] * 5


def test_a_request_larger_than_a_batch_is_spread_and_answered_once(worker, broker):
    _, frames = broker.ask(1, "batch_length", *[{"x": number} for number in range(19)])
    assert values_of(frames) == [{"length": 8}] * 16 + [{"length": 3}] * 3


def test_a_redelivered_request_is_computed_alone(place, worker, broker):
    gate = place.gate()
    broker.send(
        *request(1, "gated", {"path": gate}),
        *request(2, "batch_length", {"x": 0}),
        *request(3, "batch_length", {"x": 0}, flags=head.FLAG_REDELIVERED),
        *request(4, "batch_length", {"x": 0}),
    )
    broker.wait_until_busy()
    open_gate(gate, "open")
    replies = broker.replies(4)
    assert [values_of(replies[ticket][1]) for ticket in (2, 3, 4)] == [[{"length": 1}]] * 3


# ---------------------------------------------------------------- failures


def test_an_unknown_method_is_refused_in_the_words_of_mindspore_serving(worker, broker):
    reply, frames = broker.ask(1, "subtract", {"x": 1})
    assert reply.status == status.NOT_FOUND
    text = "Request servable(add) method(subtract) , method is not available"
    assert failure_of(frames) == ("unknown_method", text)
    assert text == serving_texts.method_not_available(RequestSpec("add", "subtract", 0))


def test_a_dialect_that_is_not_spoken_is_unsupported(worker, broker):
    reply, frames = broker.ask(1, "add", {"x": 1}, dialect=99)
    assert (reply.status, reply.dialect) == (status.UNIMPLEMENTED, head.DIALECT_NATIVE)
    assert failure_of(frames) == ("unsupported", "dialect 99 is not spoken")


def test_a_body_that_is_not_its_dialect_is_answered_in_the_dialect(worker, broker):
    broker.send(*parcel(1, "add", [b"\xff\xff"], dialect=head.DIALECT_MS_SERVICE))
    reply, frames = broker.reply()
    assert (reply.status, reply.dialect) == (status.INVALID_ARGUMENT, head.DIALECT_MS_SERVICE)
    answered = ms_service_pb2.PredictReply.FromString(frames[0])
    assert [error.error_code for error in answered.error_msg] == [status.MS_INVALID_INPUTS]


@pytest.mark.shows("F23")
def test_a_request_whose_budget_ends_while_it_waits_is_not_executed(place, worker, broker):
    gate = place.gate()
    broker.send(
        *request(1, "gated", {"path": gate}),
        *request(2, "counted", {"x": 0}, budget_ms=1),
        *request(3, "counted", {"x": 0}),
    )
    broker.wait_until_busy(2)
    open_gate(gate, "open")
    replies = broker.replies(3)
    assert replies[2][0].status == status.DEADLINE_EXCEEDED
    assert failure_of(replies[2][1]) == (
        "deadline_exceeded",
        "the budget ran out, waiting in the worker (add/1, method counted)",
    )
    assert values_of(replies[3][1]) == [{"executions": 1}]


def test_a_failing_instance_leaves_its_neighbours_alone(worker, broker):
    wrong = np.zeros(3, np.float32)
    reply, frames = broker.ask(1, "add", {"x1": X1, "x2": X2}, {"x1": wrong, "x2": X2})
    good, bad = values_of(frames)
    assert (reply.status, good) == (0, {"y": (X1 + X2).tolist()})
    text = "Given model input 0 size 12 not match the size 16 defined in model"
    assert bad == Failure(status.MS_INVALID_INPUTS, text)


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"GET / HTTP/1.1"],
        [b"MS" + bytes(46)],
        [random.Random(5).randbytes(64), b"tail"],
    ],
)
def test_garbage_costs_nothing_but_itself(worker, broker, parts):
    broker.send(*parts)
    # A head that claims a command may cost the connection; then the worker offers itself again.
    broker.send(*request(1, "counted", {"x": 0}))
    answer, _ = broker.receive(head.REPLY, head.DISCONNECT)
    if answer.command == head.DISCONNECT:
        broker.admit()
        broker.send(*request(1, "counted", {"x": 0}))
        answer, _ = broker.reply()
    assert (answer.request_id, answer.status) == (1, 0)
    assert worker.process.poll() is None
