"""Real worker processes; the test plays the broker."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from protocol import control, head, limits, ms_service_pb2, native, serving_texts, status
from protocol.values import Failure, MethodSignature, RequestSpec
from tests.workers.fake_broker import (
    DEADLINE_S,
    ROOT,
    FakeBroker,
    Place,
    WorkerProcess,
    parcel,
    request,
)
from workers.device_worker import run_worker

pytestmark = pytest.mark.process

X1 = np.asarray([[1, 2], [3, 4]], np.float32)
X2 = np.asarray([[10, 20], [30, 40]], np.float32)


@pytest.fixture
def place():
    made = Place()
    yield made
    made.remove()


@pytest.fixture
def broker(place):
    made = FakeBroker(place.address)
    yield made
    made.close()


@pytest.fixture
def start():
    """Starts workers, and ends those that are left."""
    started = []

    def make(document):
        started.append(WorkerProcess(document))
        return started[-1]

    yield make
    for worker in started:
        worker.close()


@pytest.fixture
def worker(place, broker, start):
    """A worker that is welcome and ready."""
    made = start(place.document())
    broker.admit()
    assert [made.report()["state"], made.report()["state"]] == ["loading", "ready"]
    return made


def ask(broker, ticket, method, *instances, **fields):
    broker.send(*request(ticket, method, *instances, **fields))
    reply, frames = broker.reply()
    assert reply.request_id == ticket
    return reply, frames


def values_of(frames):
    return [
        result if isinstance(result, Failure) else {name: v.tolist() for name, v in result.items()}
        for result in native.decode_reply(frames)
    ]


def failure_of(frames):
    error = native.decode_failure(frames)
    return error.reason, error.message


# ---------------------------------------------------------------- registration


def test_a_worker_offers_what_it_serves_and_reports_ready_after_welcome(place, broker, start):
    worker = start(place.document(generation=4, device_id=2))
    assert worker.report() == {"state": "loading"}
    ready = broker.admit()
    assert ready == control.Ready(
        worker_id="add/1/device0",
        generation=4,
        service="add/1",
        credit=16,
        methods=(
            MethodSignature("add", "add", ("x1", "x2"), ("y",)),
            MethodSignature("add", "counted", ("x",), ("executions",)),
            MethodSignature("add", "gated", ("path",), ("text",)),
            MethodSignature("add", "batch_length", ("x",), ("length",)),
            MethodSignature("add", "zeros", ("size",), ("zeros",)),
        ),
        device=control.Device("CPU", 2),
        pid=worker.process.pid,
        servable="add",
    )
    assert worker.report() == {
        "state": "ready",
        "device": {"target": "CPU", "id": 2},
        "version": 1,
        "methods": ["add", "counted", "gated", "batch_length", "zeros"],
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
    _, frames = ask(broker, 1, "counted", {"x": 0})
    assert values_of(frames) == [{"executions": 6}]


def test_a_lost_broker_is_found_again_with_a_new_offer(worker, broker):
    broker.restart()
    broker.receive(head.HEARTBEAT)  # from a worker that this broker does not know
    broker.send(*control.pack(control.Disconnect("not registered")))
    assert broker.admit().worker_id == "add/1/device0"
    _, frames = ask(broker, 1, "add", {"x1": X1, "x2": X2})
    assert values_of(frames) == [{"y": (X1 + X2).tolist()}]


def test_a_silent_broker_is_left_for_a_new_connection(place, start):
    broker = FakeBroker(place.address, interval_ms=20, liveness=5)
    try:
        start(place.document())
        broker.admit()
        first = broker.worker
        broker.admit()
        assert broker.worker != first
    finally:
        broker.close()


def test_no_reply_of_a_lost_connection_reaches_the_next_one(place, worker, broker):
    gate = place.gate()
    broker.send(*request(1, "gated", {"path": gate}))
    wait_until_busy(broker)
    broker.send(*control.pack(control.Disconnect("restart")))
    broker.admit()
    open_gate(gate, "too late")
    _, frames = ask(broker, 1, "counted", {"x": 0})
    assert values_of(frames) == [{"executions": 1}]


# ---------------------------------------------------------------- requests


def test_a_native_request_is_computed(worker, broker):
    reply, frames = ask(broker, 7, "add", {"x1": X1, "x2": X2}, {"x1": X2, "x2": X2})
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
    _, frames = ask(broker, 1, "batch_length", {"x": large}, {"x": large}, **flags)
    assert values_of(frames) == [{"length": 2}, {"length": 2}]
    reply, frames = ask(broker, 2, "zeros", {"size": size})
    assert reply.flags == head.FLAG_BODY_LARGE
    (result,) = native.decode_reply(frames)
    assert np.array_equal(result["zeros"], large)


def test_requests_that_wait_are_computed_together(place, worker, broker):
    gate = place.gate()
    parcels = request(1, "gated", {"path": gate})
    for ticket in range(2, 7):
        parcels += request(ticket, "batch_length", {"x": ticket})
    broker.send(*parcels)
    wait_until_busy(broker)
    open_gate(gate, "open")
    replies = broker.replies(6)
    assert native.decode_reply(replies[1][1])[0]["text"].text == "open"
    lengths = [values_of(replies[ticket][1]) for ticket in range(2, 7)]
    assert lengths == [[{"length": 5}]] * 5


def test_a_request_larger_than_a_batch_is_spread_and_answered_once(worker, broker):
    _, frames = ask(broker, 1, "batch_length", *[{"x": number} for number in range(19)])
    assert values_of(frames) == [{"length": 8}] * 16 + [{"length": 3}] * 3


def test_a_redelivered_request_is_computed_alone(place, worker, broker):
    gate = place.gate()
    broker.send(
        *request(1, "gated", {"path": gate}),
        *request(2, "batch_length", {"x": 0}),
        *request(3, "batch_length", {"x": 0}, flags=head.FLAG_REDELIVERED),
        *request(4, "batch_length", {"x": 0}),
    )
    wait_until_busy(broker)
    open_gate(gate, "open")
    replies = broker.replies(4)
    assert [values_of(replies[ticket][1]) for ticket in (2, 3, 4)] == [[{"length": 1}]] * 3


# ---------------------------------------------------------------- failures


def test_an_unknown_method_is_refused_in_the_words_of_mindspore_serving(worker, broker):
    reply, frames = ask(broker, 1, "subtract", {"x": 1})
    assert reply.status == status.NOT_FOUND
    text = "Request servable(add) method(subtract) , method is not available"
    assert failure_of(frames) == ("unknown_method", text)
    assert text == serving_texts.method_not_available(RequestSpec("add", "subtract", 0))


def test_a_dialect_that_is_not_spoken_is_unsupported(worker, broker):
    reply, frames = ask(broker, 1, "add", {"x": 1}, dialect=99)
    assert (reply.status, reply.dialect) == (status.UNIMPLEMENTED, head.DIALECT_NATIVE)
    assert failure_of(frames) == ("unsupported", "dialect 99 is not spoken")


def test_a_body_that_is_not_its_dialect_is_answered_in_the_dialect(worker, broker):
    broker.send(*parcel(1, "add", [b"\xff\xff"], dialect=head.DIALECT_MS_SERVICE))
    reply, frames = broker.reply()
    assert (reply.status, reply.dialect) == (status.INVALID_ARGUMENT, head.DIALECT_MS_SERVICE)
    answered = ms_service_pb2.PredictReply.FromString(frames[0])
    assert [error.error_code for error in answered.error_msg] == [status.MS_INVALID_INPUTS]


def test_a_request_whose_budget_ends_while_it_waits_is_not_executed(place, worker, broker):
    gate = place.gate()
    broker.send(
        *request(1, "gated", {"path": gate}),
        *request(2, "counted", {"x": 0}, budget_ms=1),
        *request(3, "counted", {"x": 0}),
    )
    wait_until_busy(broker, 2)
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
    reply, frames = ask(broker, 1, "add", {"x1": X1, "x2": X2}, {"x1": wrong, "x2": X2})
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


# ---------------------------------------------------------------- the end


def test_sigterm_drains_without_losing_what_is_in_flight(place, worker, broker):
    gate = place.gate()
    broker.send(*request(1, "gated", {"path": gate}), *request(2, "counted", {"x": 0}))
    wait_until_busy(broker)
    worker.signal(signal.SIGTERM)
    broker.receive(head.DRAIN)
    assert worker.report() == {"state": "draining"}
    broker.send(*request(3, "counted", {"x": 0}))  # was on the way when the worker asked
    broker.send(*control.pack(control.Drain()))
    open_gate(gate, "open")
    replies = broker.replies(3)
    assert values_of(replies[2][1]) != values_of(replies[3][1])
    _, frames = broker.receive(head.DISCONNECT)
    assert control.unpack_disconnect(frames).reason == "drained"
    code, _, err = worker.exit()
    assert code == 0, err


def test_an_idle_worker_drains_on_sigint(worker, broker):
    worker.signal(signal.SIGINT)
    drain(broker)
    assert worker.exit()[0] == 0


def test_a_second_signal_ends_a_worker_that_still_computes(place, worker, broker):
    broker.send(*request(1, "gated", {"path": place.gate()}))
    wait_until_busy(broker)
    worker.signal(signal.SIGTERM)
    broker.receive(head.DRAIN)
    worker.signal(signal.SIGTERM)
    assert worker.exit()[0] == 1


def test_a_worker_without_a_broker_leaves_on_sigterm(place, start):
    worker = start(place.document())
    assert worker.report() == {"state": "loading"}
    broker = FakeBroker(place.address)
    broker.receive(head.READY)
    broker.close()
    worker.signal(signal.SIGTERM)
    assert worker.exit()[0] == 0


def test_a_worker_dies_with_its_parent_even_when_that_is_killed(place, broker):
    launcher = (
        "import json, os, subprocess, sys\n"
        "document = json.loads(sys.argv[1]) | {'parent_pid': os.getpid()}\n"
        "worker = subprocess.Popen([sys.executable, '-m', 'workers'], stdin=subprocess.PIPE)\n"
        "worker.stdin.write(json.dumps(document).encode())\n"
        "worker.stdin.close()\n"
        "worker.wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", launcher, json.dumps(place.document())], cwd=ROOT
    )
    try:
        pidfd = os.pidfd_open(broker.admit().pid)
        try:
            parent.kill()
            assert select.select([pidfd], [], [], DEADLINE_S)[0] == [pidfd]
        finally:
            os.close(pidfd)
    finally:
        parent.kill()
        parent.wait()


# ---------------------------------------------------------------- boot failures


def test_a_servable_that_cannot_be_imported_is_reported_with_exit_code_3(place, start):
    place.config.write_text("raise ValueError('no such luck')\n")
    worker = start(place.document())
    assert worker.report() == {"state": "loading"}
    text = "import add.servable_config failed, no such luck"
    assert worker.report() == {"state": "failed", "error": text}
    code, out, err = worker.exit()
    assert (code, out) == (3, "")
    assert "servable_config.py" in err  # the traceback is for the log


def test_a_model_that_cannot_be_loaded_is_reported_with_all_that_names_it(place, start):
    place.model.write_text("{}")
    worker = start(place.document())
    worker.report()
    failed = worker.report()
    assert failed["state"] == "failed"
    assert failed["error"].startswith(
        f"Load model failed, servable directory: '{place.path}', servable name: 'add', "
        "model file: '[add.json]', version number 1,model context: {}, load error details: "
        f"model file '{place.model}' is not a scripted model"
    )
    assert worker.exit()[0] == 3


def test_a_missing_version_is_a_boot_failure(place, start):
    worker = start(place.document(version=9))
    worker.report()
    assert worker.report()["error"] == (
        "Start servable failed: There is no specified version directory of models, specified "
        f"version number: 9, servable directory: '{place.path}', servable name: 'add'"
    )
    assert worker.exit()[0] == 3


def test_a_launch_document_that_is_wrong_is_a_boot_failure(place, start):
    worker = start(place.document(backend="abacus"))
    worker.report()
    assert worker.report()["error"] == (
        "key 'backend' of the launch document is 'abacus', not one of mindspore, numpy"
    )
    assert worker.exit()[0] == 3


# ---------------------------------------------------------------- inside of another process


@pytest.fixture
def worker_thread(place, broker):
    """Runs welcome workers on threads, and drains those that are left."""
    threads = []

    def run(**options):
        stop = threading.Event()
        said, codes = [], []
        document = place.document()
        thread = threading.Thread(
            target=lambda: codes.append(run_worker(document, stop, said.append, **options))
        )
        thread.start()
        threads.append((thread, stop))
        assert broker.admit().pid == os.getpid()
        return stop, said, codes, thread

    yield run
    for thread, stop in threads:
        if thread.is_alive():
            stop.set()
            drain(broker)
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_a_worker_runs_on_a_thread_of_another_process_until_it_is_stopped(worker_thread, broker):
    stop, said, codes, thread = worker_thread()
    _, frames = ask(broker, 1, "add", {"x1": X1, "x2": X2})
    assert values_of(frames) == [{"y": (X1 + X2).tolist()}]
    stop.set()
    drain(broker)
    thread.join(DEADLINE_S)
    assert codes == [0]
    assert [each["state"] for each in said] == ["loading", "ready", "draining"]


class BrokenDialect:
    """Speaks native, with a bug where it is told to have one."""

    def __init__(self, bug):
        self._bug = bug

    def __getattr__(self, name):
        return self._fail if name == self._bug else getattr(native, name)

    def _fail(self, *_):
        raise ZeroDivisionError("a secret of the inside")


def test_a_bug_in_a_dialect_costs_one_request_and_not_the_worker(worker_thread, broker):
    worker_thread(
        dialects={
            head.DIALECT_NATIVE: native,
            7: BrokenDialect("decode_request"),
            8: BrokenDialect("encode_reply"),
            9: BrokenDialect("encode_failure"),
        }
    )
    broker.send(
        *request(1, "counted", {"x": 0}, dialect=7),
        *request(2, "counted", {"x": 0}, dialect=8),
        *request(3, "no such method", {"x": 0}, dialect=9),
        *request(4, "counted", {"x": 0}),
    )
    replies = broker.replies(4)
    for ticket in (1, 2, 3):
        reply, frames = replies[ticket]
        assert (reply.status, reply.dialect) == (status.INTERNAL, head.DIALECT_NATIVE)
        text = "internal error of the worker, details are in its log"
        assert failure_of(frames) == ("system_error", text)
    assert values_of(replies[4][1]) == [{"executions": 2}]


def drain(broker):
    broker.receive(head.DRAIN)
    broker.send(*control.pack(control.Drain()))
    broker.receive(head.DISCONNECT)


def wait_until_busy(broker, busy_ms=0):
    """Wait for a heartbeat of a worker that computes; all that was sent before has arrived."""
    while True:
        _, frames = broker.receive(head.HEARTBEAT)
        beat = control.unpack_heartbeat(frames)
        if beat.batch_seq and beat.busy_ms > busy_ms:
            return


def open_gate(path, text):
    Path(path).write_text(text)
