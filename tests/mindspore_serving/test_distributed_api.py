"""`distributed.start_servable` and `startup_agents`: what they refuse, in which words."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from mindspore_serving.server import distributed
from mindspore_serving.server.host import host
from mindspore_serving.worker import distributed as old_distributed
from tests.mindspore_serving.start_script import free_port

INT, STR, NONE = "<class 'int'>", "<class 'str'>", "<class 'NoneType'>"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"servable_directory": 1},
            f"Parameter 'servable_directory' should be str, but actually {INT}",
        ),
        ({"servable_name": ""}, "Parameter 'servable_name' should not be empty str"),
        ({"version_number": -1}, "Parameter 'version_number' should be >= 0"),
        (
            {"rank_table_json_file": 1},
            f"Parameter 'rank_table_json_file' should be str, but actually {INT}",
        ),
        ({"rank_table_json_file": ""}, "Parameter 'rank_table_json_file' should not be empty str"),
        (
            {"distributed_address": 6200},
            f"Parameter 'distributed_address' should be str, but actually {INT}",
        ),
        (
            {"distributed_address": "localhost"},
            "Parameter 'distributed_address' should be 'ip:port', but actually 'localhost'",
        ),
        (
            {"distributed_address": "127.0.0.1:0"},
            "Parameter 'distributed_address' should be 'ip:port', but actually '127.0.0.1:0'",
        ),
        (
            {"wait_agents_time_in_seconds": "1"},
            f"Parameter 'wait_agents_time_in_seconds' should be int, but actually {STR}",
        ),
        (
            {"wait_agents_time_in_seconds": -1},
            "Parameter 'wait_agents_time_in_seconds' should be >= 0",
        ),
        (
            {},
            (
                "Check servable config failed, directory '/nowhere/bert' not exist, servable "
                "directory '/nowhere', servable name 'bert'"
            ),
        ),
    ],
)
def test_start_servable_refuses_before_anything_starts(
    arguments: dict[str, Any], text: str
) -> None:
    given = {
        "servable_directory": "/nowhere",
        "servable_name": "bert",
        "rank_table_json_file": "hccl.json",
    }
    with pytest.raises(RuntimeError) as caught:
        distributed.start_servable(**(given | arguments))
    assert str(caught.value) == text
    assert not host.is_running


def test_parameters_and_defaults_are_those_of_the_original() -> None:
    def parameters(function: Any) -> dict[str, Any]:
        return {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
        }

    given = inspect.Parameter.empty
    assert parameters(distributed.start_servable) == {
        "servable_directory": given,
        "servable_name": given,
        "rank_table_json_file": given,
        "version_number": 1,
        "distributed_address": "0.0.0.0:6200",
        "wait_agents_time_in_seconds": 0,
    }
    assert parameters(distributed.startup_agents) == {
        "distributed_address": given,
        "model_files": given,
        "group_config_files": None,
        "agent_start_port": 7000,
        "agent_ip": None,
        "rank_start": None,
        "dec_key": None,
        "dec_mode": "AES-GCM",
    }
    assert parameters(distributed.declare_servable) == {
        "rank_size": given,
        "stage_size": given,
        "with_batch_dim": True,
        "without_batch_dim_inputs": None,
        "enable_pipeline_infer": False,
    }


def files(directory: Path, *names: str) -> list[str]:
    """Files that can be read."""
    for name in names:
        (directory / name).write_text("")
    return [str(directory / name) for name in names]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"distributed_address": None},
            f"Parameter 'distributed_address' should be str, but actually {NONE}",
        ),
        (
            {"agent_start_port": 65529},
            "Parameter 'agent_start_port' should be in range [1,65528]",
        ),
        ({"agent_start_port": 0}, "Parameter 'agent_start_port' should be in range [1,65528]"),
        (
            {"model_files": 1},
            f"Parameter 'model_files' should be str or tuple/list of str, but actually {INT}",
        ),
        ({"model_files": []}, "Parameter 'model_files' should not be empty"),
        (
            {"model_files": [1]},
            f"The item value '1' in parameter 'model_files' should be str, but actually {INT}",
        ),
        (
            {"model_files": [""]},
            "The item value '' in parameter 'model_files' should not be empty str",
        ),
        (
            {"model_files": ["a", "a"]},
            "The item value 'a' in parameter 'model_files' should not be repeated",
        ),
        (
            {"model_files": [["a", 1]]},
            f"The inner of parameter 'model_files' should be str, but actually {INT}",
        ),
        (
            {"model_files": [["a", ""]]},
            "The inner of parameter 'model_files' should not be empty str",
        ),
        (
            {"group_config_files": 1},
            (
                "Parameter 'group_config_files' should be str or tuple/list of str, but actually "
                "<class 'int'>"
            ),
        ),
        ({"dec_key": "k" * 16}, f"Parameter 'dec_key' should be bytes, but actually {STR}"),
        ({"dec_key": b""}, "Parameter 'dec_key' should not be empty bytes"),
        ({"dec_key": b"short"}, "Parameter 'dec_key' length 5 expected to be 16, 24 or 32"),
        ({"dec_mode": "ROT13"}, "Parameter 'dec_mode' expected to be 'AES-GCM' or 'AES-CBC'"),
        (
            {"agent_ip": 1, "rank_start": 0},
            f"Parameter 'agent_ip' should be str, but actually {INT}",
        ),
        ({"agent_ip": "1.1.1.1", "rank_start": -1}, "Parameter 'rank_start' should be >= 0"),
        *(
            (
                pair,
                (
                    "Parameter 'agent_ip' and parameter 'rank_start' must have values at the same "
                    "time, or both None at the same time."
                ),
            )
            for pair in ({"agent_ip": "1.1.1.1"}, {"rank_start": 0})
        ),
    ],
)
def test_startup_agents_refuses_before_it_asks_the_worker(
    arguments: dict[str, Any], text: str, tmp_path: Path
) -> None:
    given = {"distributed_address": "127.0.0.1:6200", "model_files": files(tmp_path, "a")}
    with pytest.raises(RuntimeError) as caught:
        distributed.startup_agents(**(given | arguments))
    assert str(caught.value) == text


def test_files_that_cannot_be_read_are_named_with_the_directory_of_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "agents.py")])
    (there,) = files(tmp_path, "there.mindir")
    with pytest.raises(RuntimeError) as caught:
        distributed.startup_agents("127.0.0.1:6200", ["there.mindir", "gone.mindir"])
    assert str(caught.value) == f"Cannot access model file '{tmp_path / 'gone.mindir'}'"
    with pytest.raises(RuntimeError) as caught:
        distributed.startup_agents("127.0.0.1:6200", [[there, "gone.mindir"]])
    assert str(caught.value) == f"Cannot access model file '{tmp_path / 'gone.mindir'}'"
    with pytest.raises(RuntimeError) as caught:
        distributed.startup_agents("127.0.0.1:6200", "there.mindir", group_config_files=["gone.pb"])
    assert str(caught.value) == f"Cannot access group config file '{tmp_path / 'gone.pb'}'"


def test_entries_of_different_length_are_refused(tmp_path: Path) -> None:
    a, b, c = files(tmp_path, "a", "b", "c")
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(RuntimeError, match="please check the number of  model files and group"):
        distributed.startup_agents(address, [[a, b], c])


@pytest.mark.filterwarnings("ignore:.*is deprecated from version 1.3.0:FutureWarning")
def test_the_names_of_release_1_2_check_the_same(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="directory '/nowhere/bert' not exist"):
        old_distributed.start_distributed_servable_in_master("/nowhere", "bert", "hccl.json")
    with pytest.raises(RuntimeError, match=r"'worker_port' should be in range \[1,65535\]"):
        old_distributed.startup_worker_agents("127.0.0.1", 0, files(tmp_path, "a"))
    with pytest.raises(RuntimeError, match=r"Cannot access model file '/nowhere/a\.mindir'"):
        old_distributed.startup_worker_agents("127.0.0.1", 6200, ["/nowhere/a.mindir"])
