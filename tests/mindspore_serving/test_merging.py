"""How several start configurations become deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mindspore_serving.server.merging import Deployment, as_configs, merge_configs
from mindspore_serving.server.start_config import ServableStartConfig


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Servables `add` with versions 1 and 3, and `text` with none."""
    for name, versions in (("add", ("1", "3", "0", "x")), ("text", ())):
        for version in versions:
            (tmp_path / name / version).mkdir(parents=True)
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "servable_config.py").touch()
    return tmp_path


def _config(directory: Path, name: str = "add", **more: Any) -> ServableStartConfig:
    return ServableStartConfig(str(directory), name, **more)


def test_version_zero_is_the_newest_directory_and_merges_with_its_number(directory: Path) -> None:
    deployments = merge_configs(
        [_config(directory, device_ids=2), _config(directory, device_ids=(0, 2), version_number=3)]
    )
    assert deployments == [
        Deployment(str(directory), "add", 3, "none", (0, 2), 0, None, "AES-GCM"),
    ]


def test_versions_and_servables_run_side_by_side(directory: Path) -> None:
    deployments = merge_configs(
        [
            _config(directory, version_number=1, device_ids=0),
            _config(directory, "text"),
            _config(directory, version_number=3, device_ids=1),
        ]
    )
    assert [(d.servable_name, d.version_number, d.device_ids) for d in deployments] == [
        ("add", 1, (0,)),
        ("text", 1, ()),
        ("add", 3, (1,)),
    ]


def test_the_larger_number_of_parallel_workers_wins(directory: Path) -> None:
    [deployment] = merge_configs(
        [_config(directory, num_parallel_workers=2), _config(directory, num_parallel_workers=5)]
    )
    assert deployment.num_parallel_workers == 5


def test_a_version_without_directory_is_left_to_the_worker(directory: Path) -> None:
    [deployment] = merge_configs([_config(directory, "text", version_number=7)])
    assert deployment.version_number == 7


@pytest.mark.parametrize(
    ("name", "version_number", "is_unversioned"),
    [
        ("add", 0, False),
        ("add", 3, False),
        ("add", 7, False),
        ("text", 0, True),
        ("text", 1, False),
    ],
)
def test_the_newest_version_of_none_is_remembered_for_the_worker(
    directory: Path, name: str, version_number: int, is_unversioned: bool
) -> None:
    [deployment] = merge_configs([_config(directory, name, version_number=version_number)])
    assert deployment.is_unversioned is is_unversioned


@pytest.mark.parametrize(
    "other", [{"dec_key": b"x" * 16}, {"dec_key": b"k" * 16, "dec_mode": "AES-CBC"}]
)
def test_one_version_has_one_key(directory: Path, other: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError) as raised:
        merge_configs([_config(directory, dec_key=b"k" * 16), _config(directory, **other)])
    assert str(raised.value) == (
        "The dec key or dec mode of servable name add is different in multiple configurations."
    )


def test_one_name_has_one_directory(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as raised:
        merge_configs([_config(directory), _config(directory / "other")])
    assert str(raised.value) == (
        "The servable directory of servable name add is different in multiple configurations, "
        f"servable directory: {directory / 'other'} and {directory}"
    )


def test_a_missing_directory_is_named(directory: Path) -> None:
    with pytest.raises(RuntimeError) as raised:
        merge_configs([_config(directory, "nothing")])
    assert str(raised.value) == (
        f"Check servable config failed, directory '{directory}/nothing' not exist, "
        f"servable directory '{directory}', servable name 'nothing'"
    )


def test_a_missing_servable_config_is_named(directory: Path) -> None:
    (directory / "bare").mkdir()
    with pytest.raises(RuntimeError) as raised:
        merge_configs([_config(directory, "bare")])
    assert str(raised.value) == (
        f"Check servable config failed, file '{directory}/bare/servable_config.py' not exist,  "
        f"servable directory '{directory}', servable name 'bare'"
    )


def test_a_device_of_ascend_910_is_used_once(directory: Path) -> None:
    configs = [_config(directory, device_ids=(0, 1)), _config(directory, "text", device_ids=1)]
    assert len(merge_configs(configs, lambda: True)) == 2
    with pytest.raises(RuntimeError) as raised:
        merge_configs(configs, lambda: False)
    assert str(raised.value) == "Ascend 910 device id 1 is used repeatedly in servable text"


def test_one_config_a_list_and_a_tuple_are_taken(directory: Path) -> None:
    config = _config(directory)
    assert as_configs(config) == (config,)
    assert as_configs([config]) == (config,)
    assert as_configs((config, config)) == (config, config)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            1,
            (
                "Parameter '1' should be ServableStartConfig, list or tuple of "
                "ServableStartConfig, but actually <class 'int'>"
            ),
        ),
        (
            ["x"],
            (
                "The item of parameter '['x']' should be ServableStartConfig, but actually "
                "<class 'str'>"
            ),
        ),
    ],
)
def test_anything_else_is_refused(value: object, text: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        as_configs(value)
    assert str(raised.value) == text
