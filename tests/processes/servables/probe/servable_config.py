"""A servable of scripted models for tests over real doors: one method per thing that can happen."""

import sys
from pathlib import Path

import numpy as np

from mindspore_serving.server import register

add_model = register.declare_model("add.json", "MindIR", with_batch_dim=False)
double_model = register.declare_model("double.json", "MindIR", with_batch_dim=True)
broken_model = register.declare_model("broken.json", "MindIR", with_batch_dim=True)
slow_model = register.declare_model("slow.json", "MindIR", with_batch_dim=True)
mortal_model = register.declare_model("mortal.json", "MindIR", with_batch_dim=True)


@register.register_method(output_names=["y"])
def add(x1, x2):
    """float32 [2, 2] + float32 [2, 2]."""
    return register.add_stage(add_model, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def double(x):
    """2 * float32 [4], batched."""
    return register.add_stage(double_model, x, outputs_count=1)


@register.register_method(output_names=["y"])
def broken(x):
    """2 * float32 [4]; the model fails when the first value is 13 to 16."""
    return register.add_stage(broken_model, x, outputs_count=1)


@register.register_method(output_names=["y"])
def slow(x):
    """2 * float32 [4], after 30 ms per batch of at most 4."""
    return register.add_stage(slow_model, x, outputs_count=1)


@register.register_method(output_names=["y"])
def mortal(x):
    """2 * float32 [4]; the worker dies when the first value is 666."""
    return register.add_stage(mortal_model, x, outputs_count=1)


@register.register_method(output_names=["x"])
def echo(x):
    """The input, untouched."""
    return x


def copy_of(x):
    """The same value through Python code."""
    return x if isinstance(x, str) else np.array(x)


@register.register_method(output_names=["y"])
def copy(x):
    """The input as a Python stage gives it back (bytes become their array)."""
    return register.add_stage(copy_of, x, outputs_count=1)


def scalars_of(x):
    """One Python value of each kind."""
    return bool(x), int(x), float(x), f"text {x}", f"bytes {x}".encode()


@register.register_method(output_names=["truth", "number", "real", "text", "content"])
def scalars(x):
    """bool, int, float, str and bytes made of one number."""
    return register.add_stage(scalars_of, x, outputs_count=5)


def positive(x):
    """x, unless it is negative."""
    if np.any(np.asarray(x) < 0):
        raise ValueError(f"x is {float(np.ravel(x)[0])}, not positive")
    return x


@register.register_method(output_names=["y"])
def checked(x):
    """A Python stage that may raise."""
    return register.add_stage(positive, x, outputs_count=1)


@register.register_method(output_names=["y"])
def tagged(x):
    """The same with a tag."""
    return register.add_stage(positive, x, outputs_count=1, tag="Check of x")


@register.register_method(output_names=["index"])
def largest(x):
    """The built-in function."""
    return register.add_stage("argmax_cpp", x, outputs_count=1)


def two(x):
    """Two values where one is registered."""
    return x, x


@register.register_method(output_names=["y"])
def wrong_count(x):
    """Breaks the contract of outputs."""
    return register.add_stage(two, x, outputs_count=1)


def unsendable(x):
    """A value that no tensor can hold."""
    return np.array([1j])


@register.register_method(output_names=["y"])
def wrong_type(x):
    """Breaks the contract of types."""
    return register.add_stage(unsendable, x, outputs_count=1)


def short(instances):
    """One result fewer than there are instances."""
    return [instance[0] for instance in instances][:-1]


@register.register_method(output_names=["y"])
def too_few(x):
    """Breaks the contract of batch functions."""
    return register.add_stage(short, x, outputs_count=1, batch_size=8)


def leave(x):
    """What no stage should do."""
    sys.exit(3)


@register.register_method(output_names=["y"])
def exits(x):
    """A stage that calls sys.exit."""
    return register.add_stage(leave, x, outputs_count=1)


def wait_for_gate(path):
    """Reads a FIFO: comes back when somebody has written to it and closed it."""
    return Path(path).read_text()


@register.register_method(output_names=["text"])
def gated(path):
    """Keeps the Python thread busy until the gate is opened."""
    return register.add_stage(wait_for_gate, path, outputs_count=1)


def batch_length(instances):
    """How many instances came together."""
    return [len(instances)] * len(instances)


@register.register_method(output_names=["count"])
def together(x):
    """How many instances were computed with this one."""
    return register.add_stage(batch_length, x, outputs_count=1, batch_size=32)
