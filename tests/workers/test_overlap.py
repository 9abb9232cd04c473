"""A real worker process: Python stages of one batch run while the device computes another."""

import json
import time

import numpy as np
import pytest

from tests.workers.fake_broker import request, values_of

pytestmark = pytest.mark.process

BATCH = 4
DELAY_MS = 20
BATCHES = 30

CONFIG = """
import time

import numpy as np
from workers.servable.registry import add_stage, declare_model, register_method

model = declare_model("add.json", "mindir")


def prepare_batch(instances):
    time.sleep({delay_s})
    return [(x, x) for (x,) in instances]


def prepare_one(x):
    time.sleep({delay_s} / {batch})
    return x, x


def lengths(instances):
    return [(y, np.int32(len(instances))) for (y,) in instances]


@register_method(output_names=["y"])
def by_batch(x):
    a, b = add_stage(prepare_batch, x, outputs_count=2, batch_size={batch})
    return add_stage(model, a, b, outputs_count=1)


@register_method(output_names=["y"])
def one_by_one(x):
    a, b = add_stage(prepare_one, x, outputs_count=2)
    return add_stage(model, a, b, outputs_count=1)


@register_method(output_names=["y", "length"])
def counted(x):
    y = add_stage(model, x, x, outputs_count=1)
    return add_stage(lengths, y, outputs_count=2, batch_size=64)
"""


@pytest.fixture
def slow_worker(place, broker, start):
    """Starts a worker whose model takes as long as its Python stages, per batch."""

    def make(delay_ms):
        place.config.write_text(CONFIG.format(delay_s=delay_ms / 1000, batch=BATCH))
        spec = {"dtype": "float32", "shape": [BATCH, 1]}
        script = {
            "inputs": [{"name": "a", **spec}, {"name": "b", **spec}],
            "outputs": [{"name": "y", **spec}],
            "op": "add",
            "delay_ms": delay_ms,
        }
        place.model.write_text(json.dumps(script))
        start(place.document())
        assert broker.admit().credit >= 3 * BATCH

    return make


def ask(broker, method, tickets):
    """Send requests as the broker does: those that it may send at once as one message."""
    parts = []
    for ticket in tickets:
        parts += request(ticket, method, {"x": np.asarray([ticket], np.float32)})
    broker.send(*parts)


def seconds_for(broker, method, count):
    """How long `count` requests take, with three batches of them in flight."""
    started = time.monotonic()
    asked = min(count, 3 * BATCH)
    ask(broker, method, range(asked))
    answered = 0
    while answered < count:
        replies = broker.message()
        for reply, frames in replies:
            assert values_of(frames) == [{"y": [2.0 * reply.request_id]}]
        answered += len(replies)
        more = min(count, answered + 3 * BATCH)
        if more > asked:
            ask(broker, method, range(asked, more))
        asked = more
    return time.monotonic() - started


@pytest.mark.parametrize("method", ["by_batch", "one_by_one"])
def test_python_stages_overlap_with_the_device(slow_worker, broker, method):
    slow_worker(DELAY_MS)
    serial_s = BATCHES * 2 * DELAY_MS / 1000
    taken_s = seconds_for(broker, method, BATCHES * BATCH)
    print(f"{method}: throughput {serial_s / taken_s:.2f} times that of the serial sum")
    assert taken_s <= 0.8 * serial_s


def test_a_batch_grows_while_the_device_is_busy(slow_worker, broker):
    slow_worker(250)
    ask(broker, "counted", [1])
    broker.wait_until_busy()
    ask(broker, "counted", range(2, 2 + BATCH))
    lengths = {
        ticket: values_of(frames)[0]["length"]
        for ticket, (_, frames) in broker.replies(1 + BATCH).items()
    }
    assert lengths == {1: 1} | dict.fromkeys(range(2, 2 + BATCH), BATCH)
