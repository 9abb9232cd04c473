"""How far x3 is below the mean of x1 and x2: two models with Python between them.

y = (x1 + x2) / 2 - x3, by one model that adds, Python that halves, and one model that subtracts;
all are float32 [3]. The same is written three times, as a pipeline of stages and with
`Model.call`. Both models compute 4 instances in one call.
"""

import numpy as np

from mindspore_serving.server import register

tensor_add = register.declare_model(
    model_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=True
)
tensor_sub = register.declare_model(
    model_file="tensor_sub.mindir", model_format="MindIR", with_batch_dim=True
)

HALF = np.float32(0.5)


def halve(total):
    """Half of one array."""
    return total * HALF


def below_mean(x1, x2, x3):
    """The whole computation for one instance; each call waits for its model."""
    mean = tensor_add.call(x1, x2) * HALF
    return tensor_sub.call(mean, x3)


def below_mean_of_many(instances):
    """The whole computation for a tuple of instances; each model is called once for all.

    Gives one result per instance, in their order.
    """
    totals = tensor_add.call([[x1, x2] for x1, x2, _ in instances])
    means = [total * HALF for (total,) in totals]
    subtrahends = [x3 for _, _, x3 in instances]
    return tensor_sub.call(list(zip(means, subtrahends, strict=True)))


@register.register_method(output_names=["y"])
def add_sub(x1, x2, x3):
    """A pipeline of three stages: model, function, model."""
    total = register.add_stage(tensor_add, x1, x2, outputs_count=1)
    mean = register.add_stage(halve, total, outputs_count=1)
    y = register.add_stage(tensor_sub, mean, x3, outputs_count=1)
    return y


@register.register_method(output_names=["y"])
def add_sub_call(x1, x2, x3):
    """One Python stage that calls both models."""
    y = register.add_stage(below_mean, x1, x2, x3, outputs_count=1)
    return y


@register.register_method(output_names=["y"])
def add_sub_batch(x1, x2, x3):
    """One Python stage that calls both models for up to 8 instances, two batches of theirs."""
    y = register.add_stage(below_mean_of_many, x1, x2, x3, outputs_count=1, batch_size=8)
    return y
