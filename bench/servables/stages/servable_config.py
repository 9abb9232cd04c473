"""Python stages and a model of known cost, on the numpy backend.

A batch of 4 takes the device DEVICE_MS. `waiting_…` stages sleep as long as that per batch, so that
Python and device have equal shares; `burning` is CPU-bound Python, 10 to 20 ms per instance.
"""

import time

import numpy as np

from mindspore_serving.server import register

DEVICE_MS = 20
BATCH = 4

#: Turns of a loop; 10 to 20 ms of one core.
BURN_TURNS = 500_000

device = register.declare_model("device.json", "MindIR", with_batch_dim=True)
quick = register.declare_model("quick.json", "MindIR", with_batch_dim=True)


def wait_each(x):
    """The share of one instance."""
    time.sleep(DEVICE_MS / 1000 / BATCH)
    return x


def wait_batch(instances):
    """The share of a batch."""
    time.sleep(DEVICE_MS / 1000)
    return [x for (x,) in instances]


def burn(x):
    """Python code that holds the GIL."""
    total = 0
    for turn in range(BURN_TURNS):
        total ^= turn
    return x + np.float32(total & 0)


@register.register_method(output_names=["y"])
def waiting_each(x):
    """2 * x, a function per instance before the model."""
    return register.add_stage(
        device, register.add_stage(wait_each, x, outputs_count=1), outputs_count=1
    )


@register.register_method(output_names=["y"])
def waiting_batch(x):
    """2 * x, a batch function before the model."""
    waited = register.add_stage(wait_batch, x, outputs_count=1, batch_size=BATCH)
    return register.add_stage(device, waited, outputs_count=1)


@register.register_method(output_names=["y"])
def burning(x):
    """2 * x, CPU-bound Python before a quick model."""
    return register.add_stage(quick, register.add_stage(burn, x, outputs_count=1), outputs_count=1)
