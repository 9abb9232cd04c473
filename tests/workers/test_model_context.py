"""Options for loading models, and the text for each wrong one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from workers.servable.model_context import (
    AclOptions,
    AscendDeviceInfo,
    Context,
    CPUDeviceInfo,
    DeviceInfo,
    GPUDeviceInfo,
    GpuOptions,
)


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def test_a_context_keeps_its_options_and_one_info_per_device() -> None:
    context = Context(thread_num=2, thread_affinity_core_list=[0, 1], enable_parallel=True)
    context.append_device_info(CPUDeviceInfo(precision_mode="fp16"))
    context.append_device_info(AscendDeviceInfo(input_format="NCHW", output_type="FP16"))
    assert context.options == {
        "thread_num": 2,
        "thread_affinity_core_list": [0, 1],
        "enable_parallel": True,
    }
    assert context.device_options("CPU") == {"precision_mode": "fp16"}
    assert context.device_options("Ascend") == {"input_format": "NCHW", "output_type": "FP16"}
    assert context.device_options("GPU") == {}
    assert repr(context) == (
        "Context(thread_num=2, thread_affinity_core_list=[0, 1], enable_parallel=True, "
        "CPUDeviceInfo(precision_mode='fp16'), "
        "AscendDeviceInfo(input_format='NCHW', output_type='FP16'))"
    )


def test_an_unknown_context_option_is_refused() -> None:
    with pytest.raises(RuntimeError, match=exactly("Set context failed, unsupported option spam")):
        Context(spam=1)


@pytest.mark.parametrize(
    "option",
    [
        {"thread_num": 0},
        {"thread_num": True},
        {"thread_affinity_core_list": [0, 0]},
        {"thread_affinity_core_list": [-1]},
        {"thread_affinity_core_list": "0"},
        {"enable_parallel": 1},
    ],
)
def test_a_bad_context_value_is_refused_by_its_name(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(RuntimeError, match=f"'{name}'"):
        Context(**option)


def test_a_second_info_for_a_device_is_refused() -> None:
    context = Context()
    context.append_device_info(GPUDeviceInfo())
    text = "Device info of type gpu has already been appended"
    with pytest.raises(RuntimeError, match=exactly(text)):
        context.append_device_info(GPUDeviceInfo())


def test_an_info_of_another_class_is_refused() -> None:
    text = (
        "Parameter 'device_info' should instance of CPUDeviceInfo, GPUDeviceInfo, or "
        "AscendDeviceInfo, but actually <class 'str'>"
    )
    with pytest.raises(RuntimeError, match=exactly(text)):
        Context().append_device_info("CPU")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("info", "options", "text"),
    [
        (
            CPUDeviceInfo,
            {"precision_mode": "int8"},
            "Cpu device info 'precision_mode' can only be 'origin', 'fp16'. given 'int8'",
        ),
        (
            GPUDeviceInfo,
            {"precision_mode": "int8"},
            "Gpu device info 'precision_mode' can only be 'origin', 'fp16'. given 'int8'",
        ),
        (
            AscendDeviceInfo,
            {"output_type": "INT8"},
            "Ascend device info 'output_type' can only be 'FP32', 'FP16', 'UINT8'. given 'INT8'",
        ),
        (CPUDeviceInfo, {"spam": "x"}, "Set cpu device info failed, unsupported option spam"),
        (GPUDeviceInfo, {"spam": "x"}, "Set gpu device info failed, unsupported option spam"),
        (
            AscendDeviceInfo,
            {"spam": "x"},
            "Set ascend device info failed, unsupported parameter spam",
        ),
    ],
)
def test_a_bad_device_option_is_refused(
    info: type[DeviceInfo], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(RuntimeError, match=exactly(text)):
        info(**options)


def test_the_deprecated_options_warn_and_are_a_context_with_one_info() -> None:
    with pytest.warns(FutureWarning, match="'AclOptions' is deprecated"):
        acl = AclOptions(insert_op_cfg_path="aipp.cfg")
    with pytest.warns(FutureWarning, match="'GpuOptions' is deprecated"):
        gpu = GpuOptions(precision_mode="origin")
    assert acl.device_options("Ascend") == {"insert_op_cfg_path": "aipp.cfg"}
    assert gpu.device_options("GPU") == {"precision_mode": "origin"}
