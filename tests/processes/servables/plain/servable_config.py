"""A servable without models: Python only."""

from mindspore_serving.server import register


def twice(x):
    """2 * x."""
    return 2 * x


@register.register_method(output_names=["y"])
def double(x):
    """2 * x of any numeric dtype."""
    return register.add_stage(twice, x, outputs_count=1)
