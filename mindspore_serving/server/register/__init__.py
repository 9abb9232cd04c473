"""What `servable_config.py` imports: models, methods and stages.

The names of releases before 1.5 (`declare_servable`, `call_…`) work, too; each warns when used.
"""

from workers.servable.legacy_registry import (
    call_postprocess,
    call_postprocess_pipeline,
    call_preprocess,
    call_preprocess_pipeline,
    call_servable,
    declare_servable,
)
from workers.servable.model_call import Model
from workers.servable.model_context import (
    AclOptions,
    AscendDeviceInfo,
    Context,
    CPUDeviceInfo,
    GPUDeviceInfo,
    GpuOptions,
)
from workers.servable.registry import add_stage, declare_model, register_method

__all__ = [
    "AclOptions",
    "AscendDeviceInfo",
    "CPUDeviceInfo",
    "Context",
    "GPUDeviceInfo",
    "GpuOptions",
    "Model",
    "add_stage",
    "call_postprocess",
    "call_postprocess_pipeline",
    "call_preprocess",
    "call_preprocess_pipeline",
    "call_servable",
    "declare_model",
    "declare_servable",
    "register_method",
]
