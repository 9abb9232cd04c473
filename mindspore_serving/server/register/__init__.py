"""What `servable_config.py` imports: models, methods and stages."""

from workers.model_call import Model
from workers.model_context import (
    AclOptions,
    AscendDeviceInfo,
    Context,
    CPUDeviceInfo,
    GPUDeviceInfo,
    GpuOptions,
)
from workers.registry import add_stage, declare_model, register_method

__all__ = [
    "AclOptions",
    "AscendDeviceInfo",
    "CPUDeviceInfo",
    "Context",
    "GPUDeviceInfo",
    "GpuOptions",
    "Model",
    "add_stage",
    "declare_model",
    "register_method",
]
