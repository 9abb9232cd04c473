"""Adds two 2x2 matrices on the device: the smallest servable that has a model.

`add_common` takes float32 only. `add_cast` takes any numbers: a Python stage converts them before
the model stage. The model's matrices have no batch dimension, so one instance is one call.
"""

import numpy as np

from mindspore_serving.server import register

tensor_add = register.declare_model(
    model_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False
)


def to_float32(x1, x2):
    """Convert both matrices of one instance to what the model takes."""
    return x1.astype(np.float32), x2.astype(np.float32)


@register.register_method(output_names=["y"])
def add_common(x1, x2):
    """y = x1 + x2, all float32 [2, 2]."""
    y = register.add_stage(tensor_add, x1, x2, outputs_count=1)
    return y


@register.register_method(output_names=["y"])
def add_cast(x1, x2):
    """y = x1 + x2; x1 and x2 have shape [2, 2] and any numeric dtype, y is float32."""
    x1, x2 = register.add_stage(to_float32, x1, x2, outputs_count=2)
    y = register.add_stage(tensor_add, x1, x2, outputs_count=1)
    return y
