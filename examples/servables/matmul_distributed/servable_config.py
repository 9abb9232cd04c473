"""y = x @ w by a model that is split over ranks; each holds some of the rows of w, [16, 8].

x is [16] and y is [8], both float32; the model takes four instances at once. There are as many
ranks as files were exported.
"""

from pathlib import Path

import numpy as np

from mindspore_serving.server import distributed, register

model = distributed.declare_servable(
    rank_size=len(list((Path(__file__).parent / "1").glob("rank*.mindir"))),
    stage_size=1,
    with_batch_dim=True,
)


def to_float32(x):
    """The numbers as the model wants them."""
    return x.astype(np.float32)


@register.register_method(output_names=["y"])
def predict(x):
    """A Python stage in the worker, then the model on all ranks."""
    x = register.add_stage(to_float32, x, outputs_count=1)
    y = register.add_stage(model, x, outputs_count=1)
    return y
