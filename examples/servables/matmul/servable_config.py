"""Products of matrices by a model of two subgraphs: two MindIR files declared as one.

`add_stage` runs the first file, subgraph 0. `Model.call` inside a Python stage reaches every one.
x1 is [2, 4], x2 is [4, 3], x3 and the result are [2, 3]; all are float32 and without batch
dimension.
"""

from mindspore_serving.server import register

matmul_model = register.declare_model(
    model_file=["matmul_0.mindir", "matmul_1.mindir"],
    model_format="MindIR",
    with_batch_dim=False,
)


def call_matmul(x1, x2):
    """x1 @ x2 by subgraph 0."""
    return matmul_model.call(x1, x2)


def call_matmul_add(x1, x2, x3):
    """x1 @ x2 + x3 by subgraph 1."""
    return matmul_model.call(x1, x2, x3, subgraph=1)


def call_both(x1, x2):
    """x1 @ x2 by subgraph 0, and twice that: subgraph 1 adds a product to what 0 gave."""
    once = matmul_model.call(x1, x2, subgraph=0)
    twice = matmul_model.call(x1, x2, once, subgraph=1)
    return once, twice


@register.register_method(output_names=["y"])
def matmul(x1, x2):
    """y = x1 @ x2: subgraph 0 as a stage."""
    y = register.add_stage(matmul_model, x1, x2, outputs_count=1)
    return y


@register.register_method(output_names=["y"])
def matmul_call(x1, x2):
    """y = x1 @ x2: subgraph 0 called by a Python stage."""
    y = register.add_stage(call_matmul, x1, x2, outputs_count=1)
    return y


@register.register_method(output_names=["y"])
def matmul_add(x1, x2, x3):
    """y = x1 @ x2 + x3: subgraph 1."""
    y = register.add_stage(call_matmul_add, x1, x2, x3, outputs_count=1)
    return y


@register.register_method(output_names=["once", "twice"])
def matmul_both(x1, x2):
    """once = x1 @ x2 by subgraph 0, twice = 2 * once by subgraph 1."""
    once, twice = register.add_stage(call_both, x1, x2, outputs_count=2)
    return once, twice
