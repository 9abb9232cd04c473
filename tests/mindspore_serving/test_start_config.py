"""What `ServableStartConfig` refuses, in which order and words, and what it makes of the rest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mindspore_serving.server.devices import (
    available_device_types,
    check_device_type,
    may_share_devices,
)
from mindspore_serving.server.servables import start_servables
from mindspore_serving.server.ssl_config import SSLConfig
from mindspore_serving.server.start_config import ServableStartConfig

INT = "<class 'int'>"
STR = "<class 'str'>"
BOOL = "<class 'bool'>"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"servable_directory": 1},
            f"Parameter 'servable_directory' should be str, but actually {INT}",
        ),
        ({"servable_directory": ""}, "Parameter 'servable_directory' should not be empty str"),
        ({"servable_name": 2}, f"Parameter 'servable_name' should be str, but actually {INT}"),
        ({"servable_name": ""}, "Parameter 'servable_name' should not be empty str"),
        ({"version_number": "1"}, f"Parameter 'version_number' should be int, but actually {STR}"),
        (
            {"version_number": False},
            f"Parameter 'version_number' should be int, but actually {BOOL}",
        ),
        ({"version_number": -1}, "Parameter 'version_number' should be >= 0"),
        (
            {"num_parallel_workers": True},
            f"Parameter 'num_parallel_workers' should be int, but actually {BOOL}",
        ),
        (
            {"num_parallel_workers": -1},
            "Parameter 'num_parallel_workers' should be in range [0,64]",
        ),
        (
            {"num_parallel_workers": 65},
            "Parameter 'num_parallel_workers' should be in range [0,64]",
        ),
        ({"dec_key": "k" * 16}, f"Parameter 'dec_key' should be bytes, but actually {STR}"),
        ({"dec_key": b""}, "Parameter 'dec_key' should not be empty bytes"),
        ({"dec_key": b"12345"}, "Parameter 'dec_key' length 5 expected to be 16, 24 or 32"),
        ({"dec_mode": 1}, f"Parameter 'dec_mode' should be str, but actually {INT}"),
        ({"dec_mode": "ABC"}, "Parameter 'dec_mode' expected to be 'AES-GCM' or 'AES-CBC'"),
        (
            {"device_ids": "0"},
            f"Parameter 'device_ids' should be int or tuple/list of int, but actually {STR}",
        ),
        ({"device_ids": -1}, "The item value '-1' in parameter 'device_ids' should be >= 0"),
        ({"device_ids": (0, -2)}, "The item value '-2' in parameter 'device_ids' should be >= 0"),
        (
            {"device_ids": [1, 1]},
            "The item value '1' in parameter 'device_ids' should not be repeated",
        ),
        (
            {"device_ids": ["1"]},
            f"The item value '1' in parameter 'device_ids' should be int, but actually {STR}",
        ),
        ({"device_type": 1}, f"Parameter 'device_type' should be str, but actually {INT}"),
        ({"device_type": ""}, "Parameter 'device_type' should not be empty str"),
        (
            {"device_type": "Npu"},
            (
                "Unsupported device type 'Npu', only support 'Ascend', 'GPU', 'CPU' and None, "
                "case ignored"
            ),
        ),
    ],
)
def test_a_wrong_parameter_is_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        ServableStartConfig(**{"servable_directory": "/d", "servable_name": "add"} | arguments)
    assert str(raised.value) == text


def test_the_first_wrong_parameter_is_named_in_the_order_of_the_checks() -> None:
    wrong: dict[str, Any] = {
        "servable_directory": "",
        "servable_name": "",
        "version_number": -1,
        "num_parallel_workers": -1,
        "dec_key": b"",
        "dec_mode": "",
        "device_ids": -1,
        "device_type": "",
    }
    right: dict[str, Any] = {
        "servable_directory": "/d",
        "servable_name": "add",
        "version_number": 0,
        "num_parallel_workers": 0,
        "dec_key": None,
        "dec_mode": "AES-CBC",
        "device_ids": None,
    }
    named = []
    for name in wrong:
        with pytest.raises(RuntimeError) as raised:
            ServableStartConfig(**wrong)
        named.append(str(raised.value).split("parameter '")[-1].split("Parameter '")[-1])
        wrong |= {name: right.get(name)}
    assert [text.partition("'")[0] for text in named] == list(wrong)


def test_a_config_shows_what_it_was_given() -> None:
    config = ServableStartConfig("/d", "add", [3, 1], 2, "CPU", 4, b"k" * 16, "AES-CBC")
    assert config.servable_directory == "/d"
    assert config.servable_name == "add"
    assert config.device_ids == (3, 1)
    assert config.version_number == 2
    assert config.device_type == "cpu"
    assert config.num_parallel_workers == 4
    assert config.dec_key == b"k" * 16
    assert config.dec_mode == "AES-CBC"


@pytest.mark.parametrize(
    ("device_ids", "num_parallel_workers", "expected"),
    [(None, 0, ((), 1)), ((), 0, ((), 1)), (None, 3, ((), 3)), (0, 0, ((0,), 0))],
)
def test_without_devices_there_is_at_least_one_worker(
    device_ids: Any, num_parallel_workers: int, expected: tuple[tuple[int, ...], int]
) -> None:
    config = ServableStartConfig("/d", "add", device_ids, num_parallel_workers=num_parallel_workers)
    assert (config.device_ids, config.num_parallel_workers) == expected


@pytest.mark.parametrize(("given", "expected"), [(None, "none"), ("None", "none"), ("cPu", "cpu")])
def test_the_case_of_a_device_type_does_not_matter(given: str | None, expected: str) -> None:
    assert ServableStartConfig("/d", "add", device_type=given).device_type == expected


def test_a_relative_directory_begins_at_the_real_place_of_the_start_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "start.py").write_text("")
    (tmp_path / "link.py").symlink_to(tmp_path / "real" / "start.py")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "link.py")])
    assert ServableStartConfig(".", "add").servable_directory == str(tmp_path / "real")
    assert ServableStartConfig("../x/", "add").servable_directory == str(tmp_path / "x")
    assert ServableStartConfig("/a/./b", "add").servable_directory == "/a/b"
    monkeypatch.setattr(sys, "argv", [""])
    monkeypatch.chdir(tmp_path)
    assert ServableStartConfig("x", "add").servable_directory == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("nodes", "types"),
    [
        ([], ("cpu",)),
        (["davinci0", "davinci_manager", "null"], ("ascend", "cpu")),
        (["nvidia0", "nvidiactl"], ("gpu", "cpu")),
        (["davinci_manager", "nvidiactl"], ("cpu",)),
    ],
)
def test_devices_are_found_by_their_nodes(
    tmp_path: Path, nodes: list[str], types: tuple[str, ...]
) -> None:
    for node in nodes:
        (tmp_path / node).touch()
    assert available_device_types(tmp_path) == types


@pytest.mark.parametrize(
    ("nodes", "device_type", "given", "supported"),
    [
        ([], "ascend", "Ascend", "None or 'Cpu'"),
        ([], "gpu", "GPU", "None or 'Cpu'"),
        (["davinci0"], "gpu", "gPu", "None, 'Ascend' or 'Cpu'"),
        (["nvidia0"], "ascend", "ascend", "None, 'Gpu' or 'Cpu'"),
    ],
)
def test_a_device_type_that_is_not_here_is_refused(
    tmp_path: Path, nodes: list[str], device_type: str, given: str, supported: str
) -> None:
    for node in nodes:
        (tmp_path / node).touch()
    with pytest.raises(RuntimeError) as raised:
        check_device_type(device_type, given, "add", tmp_path)
    assert str(raised.value) == (
        f"The device type '{given}' of servable name add is inconsistent with current running "
        f"environment, supported device type: {supported}"
    )


def test_a_config_of_a_device_type_that_is_not_here_cannot_be_made() -> None:
    here = available_device_types()
    for device_type in {"ascend", "gpu"}.difference(here):
        with pytest.raises(RuntimeError, match=f"The device type '{device_type}' of servable name"):
            ServableStartConfig("/d", "add", device_type=device_type)
    for device_type in here:
        assert ServableStartConfig("/d", "add", device_type=device_type).device_type == device_type


def test_a_missing_directory_is_told_when_servables_start_not_before(tmp_path: Path) -> None:
    config = ServableStartConfig(str(tmp_path / "none"), "add")
    with pytest.raises(RuntimeError, match=r"^Check servable config failed, directory "):
        start_servables(config)


def test_defaults_are_those_of_release_2_0() -> None:
    config = ServableStartConfig("/d", "add")
    assert (config.device_ids, config.version_number, config.device_type) == ((), 0, "none")
    assert (config.num_parallel_workers, config.dec_key, config.dec_mode) == (1, None, "AES-GCM")


def test_a_config_cannot_be_changed() -> None:
    config = ServableStartConfig("/d", "add")
    for name in (
        *("servable_directory", "servable_name", "device_ids", "version_number", "device_type"),
        *("num_parallel_workers", "dec_key", "dec_mode"),
    ):
        with pytest.raises(AttributeError):
            setattr(config, name, None)


def test_a_device_type_that_is_here_passes(tmp_path: Path) -> None:
    (tmp_path / "davinci0").touch()
    for device_type in ("none", "ascend", "cpu"):
        check_device_type(device_type, device_type, "add", tmp_path)


@pytest.mark.parametrize(
    ("numbers", "shared"),
    [
        ([], True),
        ([("0x8086", "0xd801")], True),
        ([("0x19e5", "0xd500")], True),
        ([("0x8086", "0x1"), ("0x19e5", "0xd802")], False),
    ],
)
def test_only_ascend_910_keeps_a_device_to_one_process(
    tmp_path: Path, numbers: list[tuple[str, str]], shared: bool
) -> None:
    (tmp_path / "unplugged").mkdir()
    for index, (vendor, number) in enumerate(numbers):
        device = tmp_path / str(index)
        device.mkdir()
        (device / "vendor").write_text(vendor + "\n")
        (device / "device").write_text(number + "\n")
    assert may_share_devices(tmp_path) is shared


def test_a_machine_without_pci_shares_its_devices(tmp_path: Path) -> None:
    assert may_share_devices(tmp_path / "none") is True


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, "k"), f"Parameter 'certificate' should be str, but actually {INT}"),
        (("", "k"), "Parameter 'certificate' should not be empty str"),
        (("c", None), "Parameter 'private_key' should be str, but actually <class 'NoneType'>"),
        (("c", ""), "Parameter 'private_key' should not be empty str"),
        (("c", "k", None, 1), f"Parameter 'verify_client' should be bool, but actually {INT}"),
        (
            ("c", "k", None, True),
            "Parameter 'custom_ca' should be str, but actually <class 'NoneType'>",
        ),
        (("c", "k", "", True), "Parameter 'custom_ca' should not be empty str"),
    ],
)
def test_a_wrong_parameter_of_tls_is_refused(arguments: Any, text: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        SSLConfig(*arguments)
    assert str(raised.value) == text


@pytest.mark.parametrize("custom_ca", [None, "", "ca"])
def test_tls_without_verified_clients_needs_no_authority(custom_ca: str | None) -> None:
    config = SSLConfig("c", "k", custom_ca)
    assert (config.certificate, config.private_key) == ("c", "k")
    assert (config.custom_ca, config.verify_client) == (custom_ca, False)
