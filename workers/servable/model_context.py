"""`Context` and the device infos of `servable_config.py`: options for loading a model.

All errors are RuntimeError with the texts of MindSpore Serving, because they surface when a
server starts and people search for them. The info that matches the device in use is applied,
the others are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from protocol.parameter_checks import (
    check_bool,
    check_int,
    check_int_list,
    check_str,
)
from workers.servable.deprecation import warn_deprecated

#: What each option may be set to; None = any text that is not empty.
Choices = Mapping[str, tuple[str, ...] | None]

PRECISION_MODES = ("origin", "fp16")

#: Options of AscendDeviceInfo.
ASCEND_OPTIONS: Choices = {
    "insert_op_cfg_path": None,
    "input_format": ("ND", "NCHW", "NHWC", "CHWN", "NC1HWC0", "NHWC1C0"),
    "input_shape": None,
    "output_type": ("FP32", "FP16", "UINT8"),
    "precision_mode": (
        "force_fp16",
        "allow_fp32_to_fp16",
        "must_keep_origin_dtype",
        "allow_mix_precision",
    ),
    "op_select_impl_mode": ("high_performance", "high_precision"),
    "fusion_switch_config_path": None,
    "buffer_optimize_mode": (
        "l1_optimize",
        "l2_optimize",
        "off_optimize",
        "l1_and_l2_optimize",
    ),
}


class DeviceInfo:
    """Options for one type of device. target: "CPU", "GPU" or "Ascend"."""

    target: ClassVar[str] = ""
    _allowed: ClassVar[Choices] = {}
    _unknown_option: ClassVar[str] = "option"

    def __init__(self, **options: Any) -> None:
        kind = self.target.lower()
        for name, value in options.items():
            if name not in self._allowed:
                raise RuntimeError(
                    f"Set {kind} device info failed, unsupported {self._unknown_option} {name}"
                )
            check_str(name, value)
            allowed = self._allowed[name]
            if allowed is not None and value not in allowed:
                choices = ", ".join(repr(choice) for choice in allowed)
                raise RuntimeError(
                    f"{self.target.capitalize()} device info '{name}' can only be {choices}. "
                    f"given '{value}'"
                )
        #: Options by name, exactly those that the user gave.
        self.options: dict[str, str] = dict(options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_keywords(self.options)})"


class CPUDeviceInfo(DeviceInfo):
    """Options for CPU: `precision_mode` "origin" or "fp16"."""

    target: ClassVar[str] = "CPU"
    _allowed: ClassVar[Choices] = {"precision_mode": PRECISION_MODES}


class GPUDeviceInfo(DeviceInfo):
    """Options for GPU: `precision_mode` "origin" or "fp16"."""

    target: ClassVar[str] = "GPU"
    _allowed: ClassVar[Choices] = {"precision_mode": PRECISION_MODES}


class AscendDeviceInfo(DeviceInfo):
    """Options for Ascend, see `ASCEND_OPTIONS`; all are texts."""

    target: ClassVar[str] = "Ascend"
    _allowed: ClassVar[Choices] = ASCEND_OPTIONS
    _unknown_option: ClassVar[str] = "parameter"


class Context:
    """Options for loading a model: threads, and one device info per type of device.

    Keywords: thread_num (int ≥ 1), thread_affinity_core_list (distinct ints ≥ 0),
    enable_parallel (bool).
    """

    def __init__(self, **options: Any) -> None:
        for name, value in options.items():
            check = _CONTEXT_OPTIONS.get(name)
            if check is None:
                raise RuntimeError(f"Set context failed, unsupported option {name}")
            check(value)
        #: Options by name, exactly those that the user gave.
        self.options: dict[str, Any] = dict(options)
        #: Device infos by target.
        self.device_infos: dict[str, DeviceInfo] = {}

    def append_device_info(self, device_info: DeviceInfo) -> None:
        """Add the options for one type of device. Raises RuntimeError for a second of its type."""
        if not isinstance(device_info, CPUDeviceInfo | GPUDeviceInfo | AscendDeviceInfo):
            raise RuntimeError(
                "Parameter 'device_info' should instance of CPUDeviceInfo, GPUDeviceInfo, or "
                f"AscendDeviceInfo, but actually {type(device_info)}"
            )
        if device_info.target in self.device_infos:
            raise RuntimeError(
                f"Device info of type {device_info.target.lower()} has already been appended"
            )
        self.device_infos[device_info.target] = device_info

    def device_options(self, target: str) -> dict[str, str]:
        """The options that apply on a device of this target; empty if none were given."""
        info = self.device_infos.get(target)
        return dict(info.options) if info is not None else {}

    def __repr__(self) -> str:
        infos = "".join(f", {info!r}" for info in self.device_infos.values())
        return f"Context({_keywords(self.options)}{infos})"


class AclOptions(Context):
    """Deprecated since MindSpore Serving 1.6: a `Context` with one `AscendDeviceInfo`."""

    def __init__(self, **options: Any) -> None:
        warn_deprecated("AclOptions", "1.6.0", "AscendDeviceInfo")
        super().__init__()
        self.append_device_info(AscendDeviceInfo(**options))


class GpuOptions(Context):
    """Deprecated since MindSpore Serving 1.6: a `Context` with one `GPUDeviceInfo`."""

    def __init__(self, **options: Any) -> None:
        warn_deprecated("GpuOptions", "1.6.0", "GPUDeviceInfo")
        super().__init__()
        self.append_device_info(GPUDeviceInfo(**options))


def _keywords(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


_CONTEXT_OPTIONS: dict[str, Callable[[Any], object]] = {
    "thread_num": lambda value: check_int("thread_num", value, minimum=1),
    "thread_affinity_core_list": lambda value: check_int_list("thread_affinity_core_list", value),
    "enable_parallel": lambda value: check_bool("enable_parallel", value),
}
