"""The functions of `mindspore_serving.server`: names, parameters, workers asked for, old names."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mindspore_serving import client, server
from mindspore_serving import master as old_master
from mindspore_serving.server.host import host
from mindspore_serving.server.merging import Deployment
from mindspore_serving.server.servables import NO_LITE_TEXT, to_launch

ROOT = Path(__file__).parents[2]
INT = "<class 'int'>"
STR = "<class 'str'>"


def test_everything_is_imported_by_a_star() -> None:
    program = (
        "from mindspore_serving.server import *\n"
        "print(all([start_servables, start_grpc_server, start_restful_server, stop, SSLConfig,"
        " ServableStartConfig, register.declare_model, master.context]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_a_worker_that_imports_register_does_not_load_the_supervisor() -> None:
    program = (
        "import sys\n"
        "from mindspore_serving.server import register\n"
        "from mindspore_serving.worker import register as old\n"
        "print(old.declare_model is register.declare_model)\n"
        "print([name for name in ('mindbus', 'grpc', 'zmq', 'mindspore') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n[]\n"


def test_register_has_the_names_that_a_servable_config_uses() -> None:
    names = {
        *("declare_model", "register_method", "add_stage", "Model", "Context"),
        *("declare_servable", "call_preprocess", "call_preprocess_pipeline", "call_servable"),
        *("call_postprocess", "call_postprocess_pipeline"),
        *("CPUDeviceInfo", "GPUDeviceInfo", "AscendDeviceInfo", "AclOptions", "GpuOptions"),
    }
    assert names <= set(server.register.__all__)
    assert all(hasattr(server.register, name) for name in server.register.__all__)


def test_parameters_have_the_names_order_and_defaults_of_release_2_0() -> None:
    def parameters(function: Any) -> str:
        shown = []
        for parameter in inspect.signature(function).parameters.values():
            has_default = parameter.default is not parameter.empty
            shown.append(
                f"{parameter.name}={parameter.default!r}" if has_default else parameter.name
            )
        return ", ".join(shown)

    door = "address, max_msg_mb_size=100, ssl_config=None"
    assert parameters(server.start_grpc_server) == door
    assert parameters(server.start_restful_server) == door
    assert parameters(server.start_servables) == "servable_configs, enable_lite=False"
    assert parameters(server.stop) == ""
    assert parameters(server.SSLConfig) == (
        "certificate, private_key, custom_ca=None, verify_client=False"
    )
    assert parameters(server.ServableStartConfig) == (
        "servable_directory, servable_name, device_ids=None, version_number=0, device_type=None, "
        "num_parallel_workers=0, dec_key=None, dec_mode='AES-GCM'"
    )
    assert parameters(client.Client) == (
        "address, servable_name, method_name, version_number=0, ssl_config=None"
    )
    assert parameters(client.SSLConfig) == "certificate=None, private_key=None, custom_ca=None"
    assert parameters(server.register.declare_model).startswith(
        "model_file, model_format, with_batch_dim=True, options=None, "
        "without_batch_dim_inputs=None, context=None, config_file=None"
    )
    assert parameters(server.register.add_stage) == (
        "stage, args, outputs_count, batch_size=None, tag=None"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'start_everything'"):
        _ = server.start_everything


@pytest.mark.parametrize("function", [server.start_grpc_server, server.start_restful_server])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1,), f"Parameter 'address' should be str, but actually {INT}"),
        (("",), "Parameter 'address' should not be empty str"),
        (("a:1", "1"), f"Parameter 'max_msg_mb_size' should be int, but actually {STR}"),
        (("a:1", True), "Parameter 'max_msg_mb_size' should be int, but actually <class 'bool'>"),
        (("a:1", 0), "Parameter 'max_msg_mb_size' should be in range [1,512]"),
        (("a:1", 513), "Parameter 'max_msg_mb_size' should be in range [1,512]"),
    ],
)
def test_a_wrong_parameter_of_a_door_is_refused(function: Any, arguments: Any, text: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        function(*arguments)
    assert str(raised.value) == text


def test_the_type_of_tls_settings_is_checked_in_each_doors_words() -> None:
    wrong: Any = "tls"
    text = "The type of ssl_config should be {} of SSLConfig"
    with pytest.raises(RuntimeError, match=f"^{text.format('type')}$"):
        server.start_grpc_server("a:1", ssl_config=wrong)
    with pytest.raises(RuntimeError, match=f"^{text.format('class')}$"):
        server.start_restful_server("a:1", ssl_config=wrong)


GRPC_TEXTS = {
    "127.0.0.1": "The format of the Serving gRPC address '127.0.0.1' is illegal",
    "127.0.0.1:": "Missing ip or port of the Serving gRPC address '127.0.0.1:'",
    "127.0.0.1:x": "The type of Serving gRPC address '127.0.0.1:x' port is not a number",
    "a:0": "The port of the Serving gRPC address 'a:0' is out of legal range [1 ~ 65535]",
    "unix:": "Empty grpc server unix domain socket address",
}
REST_TEXTS = {
    "127.0.0.1": "The format of the RESTful server address '127.0.0.1' is illegal",
    "a:65536": "The port of the RESTful server address 'a:65536' is out of legal range [1 ~ 65535]",
    "unix:/tmp/x": "RESTful server does not support binding to unix domain socket",
}


@pytest.mark.parametrize(
    ("function", "address", "text"),
    [(server.start_grpc_server, *pair) for pair in GRPC_TEXTS.items()]
    + [(server.start_restful_server, *pair) for pair in REST_TEXTS.items()],
)
def test_an_address_that_is_none_starts_nothing(function: Any, address: str, text: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        function(address)
    assert str(raised.value) == f"Raise failed: Serving Error: {text}"
    assert not host.is_running


def test_a_missing_file_of_tls_is_a_file_not_found_error() -> None:
    config = server.SSLConfig("/nonexistent/c.pem", "/nonexistent/k.pem")
    with pytest.raises(FileNotFoundError):
        server.start_grpc_server("127.0.0.1:1", ssl_config=config)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "Parameter 'max_enqueued_requests' should be >= 1"),
        ("1", f"Parameter 'max_enqueued_requests' should be int, but actually {STR}"),
    ],
)
def test_the_limit_of_requests_is_a_positive_int(value: Any, text: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        server.master.context.set_max_enqueued_requests(value)
    assert str(raised.value) == text
    assert old_master.context.set_max_enqueued_requests is (
        server.master.context.set_max_enqueued_requests
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"ip": 1}, f"Parameter 'ip' should be str, but actually {INT}"),
        ({"grpc_port": 0}, "Parameter 'grpc_port' should be in range [1,65535]"),
        ({"grpc_port": 1, "max_msg_mb_size": 0}, "Parameter 'max_msg_mb_size' should be in range"),
    ],
)
def test_old_doors_take_ip_and_port(arguments: dict[str, Any], text: str) -> None:
    deprecated = (
        "'mindspore_serving.master.start_grpc_server' is deprecated from version 1.3.0 and will be "
        "removed in a future version, use 'mindspore_serving.server.start_grpc_server' instead."
    )
    with (
        pytest.warns(FutureWarning) as warned,
        pytest.raises(RuntimeError) as raised,
    ):
        old_master.start_grpc_server(**arguments)
    assert [(str(warning.message), warning.filename) for warning in warned] == [
        (deprecated, __file__)
    ]
    assert str(raised.value).startswith(text)


def test_enable_lite_is_a_bool(tmp_path: Path) -> None:
    wrong: Any = 1
    with pytest.raises(RuntimeError, match=f"'enable_lite' should be bool, but actually {INT}"):
        server.start_servables(server.ServableStartConfig(str(tmp_path), "add"), wrong)


def test_enable_lite_is_ignored_with_a_warning() -> None:
    program = (
        "from mindspore_serving import server\n"
        "config = server.ServableStartConfig('/nonexistent', 'add')\n"
        "server.start_servables(config, enable_lite=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    warning, *_, error = done.stderr.splitlines()
    assert warning.startswith("[WARNING] SERVING(")
    assert warning.endswith(NO_LITE_TEXT)
    assert "Check servable config failed, directory " in error


def _deployment(devices: tuple[int, ...], workers: int, device_type: str = "none") -> Deployment:
    return Deployment("/d", "add", 1, device_type, devices, workers, None, "AES-GCM")


@pytest.mark.parametrize(
    ("devices", "workers", "expected"),
    [((0,), 0, 0), ((0,), 1, 0), ((3, 1), 1, 0), ((1,), 3, 2), ((5, 6), 4, 2), ((), 3, 3)],
)
def test_parallel_workers_beyond_the_devices_are_extra_workers(
    devices: tuple[int, ...], workers: int, expected: int
) -> None:
    launch = to_launch(_deployment(devices, workers), "numpy", ("ascend", "cpu"))
    assert (launch.device_ids, launch.extra_workers) == (devices, expected)


@pytest.mark.parametrize(
    ("device_type", "devices", "available", "target"),
    [
        ("none", (0,), ("ascend", "cpu"), None),
        ("none", (), ("ascend", "cpu"), "CPU"),
        ("none", (0,), ("cpu",), "CPU"),
        ("cpu", (0,), ("gpu", "cpu"), "CPU"),
        ("ascend", (0,), ("ascend", "cpu"), "Ascend"),
        ("gpu", (0,), ("gpu", "cpu"), "GPU"),
    ],
)
def test_a_launch_names_the_target_where_it_is_known(
    device_type: str, devices: tuple[int, ...], available: tuple[str, ...], target: str | None
) -> None:
    launch = to_launch(_deployment(devices, 1, device_type), "numpy", available)
    assert (launch.device_target, launch.backend) == (target, "numpy")
    assert (launch.servable_name, launch.version, launch.device_ids) == ("add", 1, devices)
