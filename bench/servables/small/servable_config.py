"""W1: two float32[16] in, their sum out, on the numpy backend, batched."""

from mindspore_serving.server import register

model = register.declare_model("sum.json", "MindIR", with_batch_dim=True)


@register.register_method(output_names=["y"])
def add(x1, x2):
    """y = x1 + x2."""
    return register.add_stage(model, x1, x2, outputs_count=1)
