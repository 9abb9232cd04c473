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


CORES = "thread_affinity_core_list"


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"thread_num": 0}, "Parameter 'thread_num' should be >= 1"),
        (
            {"thread_num": True},
            "Parameter 'thread_num' should be int, but actually <class 'bool'>",
        ),
        ({CORES: [0, 0]}, f"The item value '0' in parameter '{CORES}' should not be repeated"),
        ({CORES: [-1]}, f"The item value '-1' in parameter '{CORES}' should be >= 0"),
        (
            {CORES: "0"},
            f"Parameter '{CORES}' should be tuple/list of int, but actually <class 'str'>",
        ),
        (
            {CORES: 0},
            f"Parameter '{CORES}' should be tuple/list of int, but actually <class 'int'>",
        ),
        (
            {"enable_parallel": 1},
            "Parameter 'enable_parallel' should be bool, but actually <class 'int'>",
        ),
    ],
)
def test_a_bad_context_value_is_refused_by_its_name(option: dict[str, Any], text: str) -> None:
    with pytest.raises(RuntimeError, match=exactly(text)):
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


ASCEND_CHOICES = {
    "input_format": ["ND", "NCHW", "NHWC", "CHWN", "NC1HWC0", "NHWC1C0"],
    "output_type": ["FP32", "FP16", "UINT8"],
    "precision_mode": [
        *("force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype", "allow_mix_precision"),
    ],
    "op_select_impl_mode": ["high_performance", "high_precision"],
    "buffer_optimize_mode": [
        *("l1_optimize", "l2_optimize", "off_optimize", "l1_and_l2_optimize"),
    ],
}


@pytest.mark.parametrize("option", ASCEND_CHOICES)
def test_an_ascend_option_takes_its_values_and_no_other(option: str) -> None:
    for value in ASCEND_CHOICES[option]:
        assert AscendDeviceInfo(**{option: value}).options == {option: value}
    choices = ", ".join(f"'{value}'" for value in ASCEND_CHOICES[option])
    text = f"Ascend device info '{option}' can only be {choices}. given 'other'"
    with pytest.raises(RuntimeError, match=exactly(text)):
        AscendDeviceInfo(**{option: "other"})


@pytest.mark.parametrize(
    "option", ["insert_op_cfg_path", "input_shape", "fusion_switch_config_path"]
)
def test_an_ascend_option_without_choices_is_any_text(option: str) -> None:
    assert AscendDeviceInfo(**{option: "a:1,2"}).options == {option: "a:1,2"}
    with pytest.raises(
        RuntimeError, match=exactly(f"Parameter '{option}' should not be empty str")
    ):
        AscendDeviceInfo(**{option: ""})


def test_options_of_a_context_are_keywords() -> None:
    with pytest.raises(TypeError):
        Context(2)  # type: ignore[call-arg, misc]


def test_the_deprecated_options_warn_and_are_a_context_with_one_info() -> None:
    with pytest.warns(FutureWarning, match="'AclOptions' is deprecated"):
        acl = AclOptions(insert_op_cfg_path="aipp.cfg")
    with pytest.warns(FutureWarning, match="'GpuOptions' is deprecated"):
        gpu = GpuOptions(precision_mode="origin")
    assert acl.device_options("Ascend") == {"insert_op_cfg_path": "aipp.cfg"}
    assert gpu.device_options("GPU") == {"precision_mode": "origin"}
