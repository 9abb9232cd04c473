"""How real worker processes end, and how they fail to begin; the test plays the broker."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from protocol import control, head, native, status
from tests.workers.fake_broker import (
    DEADLINE_S,
    ROOT,
    X1,
    X2,
    failure_of,
    open_gate,
    request,
    values_of,
)
from workers.device_worker import run_worker

pytestmark = pytest.mark.process


@pytest.fixture(params=[True, False], ids=["link", "zeromq"])
def has_link(request):
    return request.param


# ---------------------------------------------------------------- the end


def test_sigterm_drains_without_losing_what_is_in_flight(place, worker, broker):
    gate = place.gate()
    broker.send(*request(1, "gated", {"path": gate}), *request(2, "counted", {"x": 0}))
    broker.wait_until_busy()
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
    broker.drain()
    assert worker.exit()[0] == 0


def test_a_thread_that_user_code_left_does_not_keep_a_drained_worker(place, broker, start):
    place.config.write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        f"{place.config.read_text()}"
    )
    worker = start(place.document())
    broker.admit()
    assert [worker.report()["state"], worker.report()["state"]] == ["loading", "ready"]
    worker.signal(signal.SIGTERM)
    broker.drain()
    assert worker.exit()[0] == 0


def test_a_second_signal_ends_a_worker_that_still_computes(place, worker, broker):
    broker.send(*request(1, "gated", {"path": place.gate()}))
    broker.wait_until_busy()
    worker.signal(signal.SIGTERM)
    broker.receive(head.DRAIN)
    worker.signal(signal.SIGTERM)
    assert worker.exit()[0] == 1


def test_a_worker_without_a_broker_leaves_on_sigterm(place, start, open_broker):
    worker = start(place.document())
    assert worker.report() == {"state": "loading"}
    broker = open_broker()
    broker.receive(head.READY)
    broker.close()
    worker.signal(signal.SIGTERM)
    assert worker.exit()[0] == 0


def test_a_worker_that_still_boots_leaves_on_sigterm(place, start):
    place.config.write_text(f"open({place.gate()!r}).read()\n")
    worker = start(place.document())
    assert worker.report() == {"state": "loading"}
    worker.signal(signal.SIGTERM)
    assert worker.exit()[0] == 0


LAUNCHER = """
import json, os, subprocess, sys
document = json.loads(sys.argv[1]) | {"parent_pid": os.getpid()}
worker = subprocess.Popen(
    [sys.executable, "-m", "workers"], stdin=subprocess.PIPE, start_new_session=True
)
worker.stdin.write(json.dumps(document).encode())
worker.stdin.close()
worker.wait()
"""


@pytest.mark.shows("R7")
def test_a_worker_and_what_it_started_die_with_its_parent_even_when_that_is_killed(place, broker):
    note = place.path / "grandchild"
    place.config.write_text(
        "import pathlib, subprocess\n"
        "grandchild = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(note)!r}).write_text(str(grandchild.pid))\n"
        f"{place.config.read_text()}"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, json.dumps(place.document())], cwd=ROOT
    )
    pidfds = []
    try:
        pidfds.append(os.pidfd_open(broker.admit().pid))
        pidfds.append(os.pidfd_open(int(note.read_text())))
        parent.kill()
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], DEADLINE_S)[0] == [pidfd]
    finally:
        parent.kill()
        parent.wait()
        for pidfd in pidfds:
            os.close(pidfd)


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
        f"Raise failed: Load model failed, servable directory: '{place.path}', "
        "servable name: 'add', "
        "model file: '[add.json]', version number 1,model context: {}, load error details: "
        f"model file '{place.model}' is not a scripted model"
    )
    assert worker.exit()[0] == 3


def test_a_config_file_is_warned_of_because_only_lite_reads_it(place, broker, start):
    text = place.config.read_text()
    place.config.write_text(text.replace('"mindir")', '"mindir", config_file="mixed.cfg")'))
    worker = start(place.document())
    broker.admit()
    assert [worker.report()["state"], worker.report()["state"]] == ["loading", "ready"]
    worker.signal(signal.SIGTERM)
    broker.drain()
    code, _, err = worker.exit()
    assert code == 0
    assert "config_file is ignored, only MindSpore Lite would read it" in err
    assert "model=add.json config_file=mixed.cfg" in err


def test_a_missing_version_is_a_boot_failure(place, start):
    worker = start(place.document(version=9, version_asked=9))
    worker.report()
    assert worker.report()["error"] == (
        "Start servable failed: There is no specified version directory of models, specified "
        f"version number: 9, servable directory: '{place.path}', servable name: 'add'"
    )
    assert worker.exit()[0] == 3


def test_models_without_any_version_are_a_boot_failure(place, start):
    shutil.rmtree(place.model.parent)
    worker = start(place.document(version_asked=0))
    worker.report()
    assert worker.report()["error"] == (
        "There is no valid version directory of models while there are models declared in "
        f"servable_config.py, servable directory: {place.path}, servable name: add"
    )
    assert worker.exit()[0] == 3


def test_a_launch_document_that_is_wrong_is_a_boot_failure(place, start):
    worker = start(place.document(backend="abacus"))
    worker.report()
    assert worker.report()["error"] == (
        "key 'backend' of the launch document is 'abacus', not one of mindspore, numpy"
    )
    assert worker.exit()[0] == 3


# ---------------------------------------------------------------- with MindSpore

EXPORT = """
import sys
import mindspore as ms
import numpy as np

class Add(ms.nn.Cell):
    def construct(self, x1, x2):
        return x1 + x2

array = ms.Tensor(np.zeros((4, 2, 2), np.float32))
ms.export(Add(), array, array, file_name=sys.argv[1], file_format="MINDIR")
"""


@pytest.mark.mindspore
def test_a_mindspore_worker_computes_and_drains_on_sigterm(place, broker, start):
    model = place.model.with_suffix(".mindir")
    script = place.path / "export.py"  # MindSpore reads the source of a Cell from its file
    script.write_text(EXPORT)
    subprocess.run([sys.executable, str(script), str(model)], check=True, capture_output=True)
    place.config.write_text(place.config.read_text().replace("add.json", model.name))
    worker = start(place.document(backend="mindspore"))
    assert broker.admit().device == control.Device("CPU", 0)
    _, frames = broker.ask(1, "add", {"x1": X1, "x2": X2})
    assert values_of(frames) == [{"y": (X1 + X2).tolist()}]
    worker.signal(signal.SIGTERM)
    broker.drain()
    code, _, err = worker.exit()
    assert code == 0, err


def test_a_worker_without_a_device_refuses_models_that_would_need_one(place, start):
    worker = start(place.document(device_id=None, device_target="Ascend"))
    assert worker.report() == {"state": "loading"}
    assert worker.report() == {
        "state": "failed",
        "error": "Servable 'add' has models declared by declare_model, but parameter 'device_ids' "
        "of ServableStartConfig is not set in Serving startup script when the device target is "
        "not CPU",
    }
    assert worker.exit()[0] == 3


def test_a_worker_without_a_device_serves_python_whatever_the_device_target_is(
    place, broker, start
):
    place.config.write_text(
        "from workers.servable.registry import add_stage, register_method\n"
        "def same(x):\n"
        "    return x\n"
        "@register_method(output_names=['y'])\n"
        "def echo(x):\n"
        "    return add_stage(same, x, outputs_count=1)\n"
    )
    start(place.document(device_id=None, device_target="Ascend"))
    assert not broker.admit().is_extra
    _, frames = broker.ask(1, "echo", {"x": X1})
    assert values_of(frames) == [{"y": X1.tolist()}]


@pytest.mark.parametrize(
    ("models", "text"),
    [
        ({}, "model 'add.json' is declared, but device workers have not loaded it"),
        (
            {"add.json": {"inputs": []}},
            "what device workers say of model 'add.json' is unclear: 'outputs'",
        ),
    ],
)
def test_an_extra_worker_whose_models_are_unknown_says_which(place, start, models, text):
    worker = start(place.document(device_id=None, models=models, producers_address=place.address))
    assert worker.report() == {"state": "loading"}
    assert worker.report() == {"state": "failed", "error": text}


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
            broker.drain()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_a_worker_runs_on_a_thread_of_another_process_until_it_is_stopped(worker_thread, broker):
    stop, said, codes, thread = worker_thread()
    _, frames = broker.ask(1, "add", {"x1": X1, "x2": X2})
    assert values_of(frames) == [{"y": (X1 + X2).tolist()}]
    stop.set()
    broker.drain()
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
