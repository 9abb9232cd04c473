"""Which ranks and files a launcher starts, and how contradictions are named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.group import Place
from workers.distributed.launch_plan import (
    AgentsSettings,
    LaunchPlanError,
    LocalRank,
    agent_environment,
    check_files,
    check_together,
    local_ranks,
    rank_table_ip,
    scheduler_environment,
)

PLACES = (Place("10.0.0.1", 4), Place("10.0.0.2", 0), Place("10.0.0.2", 1))

SETTINGS = AgentsSettings(
    address="10.0.0.1:6200",
    model_files=("/a", "/b"),
    group_config_files=None,
    start_port=7000,
    agent_ip=None,
    rank_start=None,
    device_target="CPU",
    backend="mindspore",
    dec_key=b"0123456789abcdef",
    dec_mode="AES-GCM",
)


def test_the_ranks_of_an_ip_get_the_files_in_order() -> None:
    assert local_ranks(SETTINGS, PLACES, "10.0.0.2") == (
        LocalRank(1, 0, ("/a",), ()),
        LocalRank(2, 1, ("/b",), ()),
    )


def test_an_entry_with_several_files_is_a_model_of_subgraphs() -> None:
    settings = replace(
        SETTINGS, model_files=(("/a", "/b"),), group_config_files=("/g",), device_target="Ascend"
    )
    (local,) = local_ranks(settings, PLACES, "10.0.0.1")
    assert local == LocalRank(0, 4, ("/a", "/b"), ("/g",))
    assert agent_environment(settings, local, 3, "", "/tmp/table.json") == {
        "RANK_ID": "0",
        "DEVICE_ID": "4",
        "MS_ENABLE_HCCL": "1",
        "RANK_TABLE_FILE": "/tmp/table.json",
        "PARA_GROUP_FILE": "/g",
    }


def test_ranks_on_the_cpu_meet_at_the_scheduler() -> None:
    local = LocalRank(1, 0, ("/a",), ())
    meeting = {"MS_WORKER_NUM": "3", "MS_SCHED_HOST": "10.0.0.1", "MS_SCHED_PORT": "7000"}
    assert agent_environment(SETTINGS, local, 3, "10.0.0.1:7000", "") == {
        "RANK_ID": "1",
        "DEVICE_ID": "0",
        "MS_ROLE": "MS_WORKER",
        "MS_NODE_ID": "1",
        **meeting,
    }
    assert scheduler_environment(3, "10.0.0.1:7000") == {
        "MS_ROLE": "MS_SCHED",
        "MS_NODE_ID": "scheduler",
        **meeting,
    }


def test_the_first_rank_says_which_ip_of_the_table_is_meant() -> None:
    assert rank_table_ip(1, PLACES) == "10.0.0.2"
    with pytest.raises(LaunchPlanError) as caught:
        rank_table_ip(3, PLACES)
    assert str(caught.value) == ("Parameter 'rank_start' cannot equal or larger than rank size 3.")


@pytest.mark.parametrize(
    ("model_files", "group_files", "text"),
    [
        (
            ("/a",),
            None,
            (
                "Card count [0, 1] described rank table does not equal to model files size 1, "
                "model files: ['/a']"
            ),
        ),
        (
            ("/a", "/b"),
            ("/g",),
            (
                "Model files count 2 does not equal to group config files count 1 when "
                "group_config_files is not None, model files: ['/a', '/b'], group config files: "
                "['/g']"
            ),
        ),
    ],
)
def test_one_file_for_each_rank(
    model_files: tuple[str, ...], group_files: tuple[str, ...] | None, text: str
) -> None:
    settings = replace(SETTINGS, model_files=model_files, group_config_files=group_files)
    with pytest.raises(LaunchPlanError) as caught:
        local_ranks(settings, PLACES, "10.0.0.2")
    assert str(caught.value) == text


def test_every_rank_has_as_many_files() -> None:
    check_files(replace(SETTINGS, model_files=(("/a", "/b"), ("/c", "/d"))))
    with pytest.raises(LaunchPlanError) as caught:
        check_files(replace(SETTINGS, model_files=(("/a", "/b"), "/c")))
    assert str(caught.value) == (
        "please check the number of  model files and group config files, model files: "
        "[['/a', '/b'], '/c'], group config files: None"
    )
    with pytest.raises(LaunchPlanError) as caught:
        check_files(replace(SETTINGS, group_config_files=(("/g", "/h"),)))
    assert str(caught.value) == (
        "please check the number of  group config files, currently only support one at most"
    )


def test_agent_ip_and_rank_start_go_together() -> None:
    check_together(None, None)
    check_together("10.0.0.1", 0)
    for pair in (("10.0.0.1", None), (None, 0)):
        with pytest.raises(LaunchPlanError) as caught:
            check_together(*pair)
        assert str(caught.value) == (
            "Parameter 'agent_ip' and parameter 'rank_start' must have values at the same time, "
            "or both None at the same time."
        )


def test_the_key_of_the_models_is_never_shown() -> None:
    assert "0123456789abcdef" not in repr(SETTINGS)
