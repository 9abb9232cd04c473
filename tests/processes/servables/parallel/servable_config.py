"""A servable whose Python stages extra workers can run; they tell in which process they ran."""

import os

import numpy as np

from mindspore_serving.server import register

double_model = register.declare_model("double.json", "MindIR", with_batch_dim=True)
pair_model = register.declare_model(["first.json", "second.json"], "MindIR", with_batch_dim=False)


def prepare(x):
    """x + 1, and where that was computed."""
    return x + np.float32(1), os.getpid()


def sign(y, pid):
    """The result, unless the two stages ran in different processes."""
    assert pid == os.getpid()
    return y, pid


@register.register_method(output_names=["y", "pid"])
def prepared(x):
    """2 * (x + 1) of float32 [4], and the process of the Python stages."""
    prepared_x, pid = register.add_stage(prepare, x, outputs_count=2)
    y = register.add_stage(double_model, prepared_x, outputs_count=1)
    return register.add_stage(sign, y, pid, outputs_count=2)


def call_models(x):
    """Both models, called out of a Python stage."""
    ((doubled,),) = double_model.call([[x]])
    hundredfold = pair_model.call(x, subgraph=1)
    return doubled + hundredfold, os.getpid()


@register.register_method(output_names=["y", "pid"])
def called(x):
    """102 * x of float32 [4], and the process of the Python stage."""
    return register.add_stage(call_models, x, outputs_count=2)


@register.register_method(output_names=["y"])
def plain(x):
    """2 * x: all stages are models."""
    return register.add_stage(double_model, x, outputs_count=1)
