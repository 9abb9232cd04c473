"""Both scripts of a distributed servable as real processes: start, deaths and end of a group.

The ranks compute with the scripted backend; `test_distributed_mindspore.py` has real ones.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mindbus.bus_client import BusClient
from mindbus.runtime_client import RefusedError, RuntimeClient
from mindspore_serving.client import Client
from tests.processes.group_scripts import (
    AGENTS_LINE,
    GRPC_LINE,
    GroupScripts,
)
from tests.processes.waiting import descendants, wait_gone, wait_until

pytestmark = pytest.mark.process

INSTANCES = [{"x": np.full(2, number, np.float32)} for number in range(5)]

#: The last rank of two multiplies by 2.
TWICE = [[2.0 * number] * 2 for number in range(5)]


@pytest.fixture
def scripts() -> Iterator[GroupScripts]:
    with GroupScripts("dist", ranks=2, backend="numpy", deadline_s=60) as made:
        made.write_servable()
        yield made


def values(scripts: GroupScripts) -> list[list[float]]:
    """What the group computes for INSTANCES; it may have to come back first."""
    results = scripts.infer(INSTANCES)
    assert isinstance(results, list), results
    return [result["y"].tolist() for result in results]


def test_both_scripts_serve_and_the_end_of_the_server_ends_the_agents(
    scripts: GroupScripts,
) -> None:
    scripts.start(scripts.write_scripted_models())
    assert scripts.server is not None
    assert scripts.agents is not None
    assert values(scripts) == TWICE
    (line,) = (line for line in scripts.agents.lines if line.startswith(AGENTS_LINE))
    assert "agent_ip: 127.0.0.1" in line
    assert "device ids: [0, 1], rank ids: [0, 1]" in line
    below = descendants(scripts.agents.process.pid)
    assert len(below) == 2
    assert scripts.server.end(signal.SIGTERM) == 0
    assert scripts.agents.process.wait(60) == 0
    for pid in below:
        wait_gone(pid)
    left = {path.name for path in (scripts.directory / "agents").rglob("*")}
    assert left == {"serving_server.py", "rank0.json", "rank1.json", "cwd"}, "nothing else is left"


@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_a_rank_restarts_the_group_which_serves_again(
    scripts: GroupScripts, rank: int
) -> None:
    scripts.start(scripts.write_scripted_models())
    before = scripts.agent_pids()
    worker = scripts.worker_pid()
    os.kill(before[rank], signal.SIGKILL)
    scripts.wait_agents(before)
    assert values(scripts) == TWICE
    assert scripts.worker_pid() != worker
    assert scripts.server is not None
    assert scripts.server.end(signal.SIGTERM) == 0


def test_the_death_of_the_worker_restarts_the_group_which_serves_again(
    scripts: GroupScripts,
) -> None:
    scripts.start(scripts.write_scripted_models())
    before = scripts.agent_pids()
    os.kill(scripts.worker_pid(), signal.SIGKILL)
    scripts.wait_agents(before)
    assert values(scripts) == TWICE


def test_requests_in_the_hands_of_a_group_that_loses_a_rank_are_computed_by_the_next_one(
    scripts: GroupScripts,
) -> None:
    scripts.start(scripts.write_scripted_models())
    before = scripts.agent_pids()
    os.kill(before[1], signal.SIGSTOP)
    with Client(f"127.0.0.1:{scripts.grpc_port}", "dist", "predict") as client:
        futures = [client.infer_async([instance]) for instance in INSTANCES]
        wait_until(lambda: requests_in_flight(scripts))
        os.kill(before[1], signal.SIGKILL)
        results = [future.result() for future in futures]
    assert [result[0]["y"].tolist() for result in results] == TWICE


def requests_in_flight(scripts: GroupScripts) -> int:
    """How many requests the worker holds, as the broker sees it."""
    (file,) = scripts.directory.glob("mindbus*/server.json")
    with BusClient(json.loads(file.read_text())["producers"][0]) as client:
        return sum(worker["in_flight"] for worker in client.stats()["workers"])


DOORS = ("gRPC", "REST")


def test_an_error_of_a_rank_is_told_through_both_doors_and_the_group_serves_on(
    scripts: GroupScripts,
) -> None:
    faults = [{"when_first_value": 13, "do": "raise"}]
    scripts.start(scripts.write_scripted_models(faults=faults))
    before = scripts.agent_pids()
    for door in DOORS:
        text = scripts.error(door, [13.0, 1.5])
        assert text.startswith("Error happened on get result of rank ")
        assert text.endswith(": scripted fault")
    assert values(scripts) == TWICE
    assert scripts.agent_pids() == before


def test_a_rank_that_answers_nothing_is_told_through_both_doors_and_the_group_comes_back(
    scripts: GroupScripts,
) -> None:
    scripts.start(scripts.write_scripted_models())
    for door in DOORS:
        before = scripts.agent_pids()
        os.kill(before[1], signal.SIGSTOP)
        assert scripts.error(door, [1.5, 2.5]) == "Failed to wait for result of rank 1"
        scripts.wait_agents(before)
        assert values(scripts) == TWICE


def test_agents_whose_script_is_killed_go_with_it_and_a_new_script_brings_the_group_back(
    scripts: GroupScripts,
) -> None:
    files = scripts.write_scripted_models()
    scripts.start(files)
    assert scripts.agents is not None
    before = scripts.agent_pids()
    with scripts.agents as killed:
        killed.process.kill()
        killed.process.wait()
        for pid in before.values():
            wait_gone(pid)
    scripts.start_agents(files).wait_for(AGENTS_LINE, 60)
    assert values(scripts) == TWICE


def test_a_script_of_agents_that_is_terminated_ends_them_and_the_worker_waits_for_others(
    scripts: GroupScripts,
) -> None:
    files = scripts.write_scripted_models()
    scripts.start(files)
    assert scripts.agents is not None
    with scripts.agents as first:
        assert first.end(signal.SIGTERM) == -signal.SIGTERM
    scripts.start_agents(files).wait_for(AGENTS_LINE, 60)
    assert values(scripts) == TWICE


def test_agents_of_a_machine_that_the_rank_table_calls_otherwise(scripts: GroupScripts) -> None:
    scripts.write_rank_table("192.0.2.1")  # nobody's: it is kept for documents
    scripts.version = 0
    scripts.more = {"agent_ip": "127.0.0.1", "rank_start": 0}
    scripts.start(scripts.write_scripted_models())
    assert values(scripts) == TWICE
    assert scripts.server is not None
    log = scripts.server.cwd / "serving_logs" / "log_dist_distributed.log"
    assert "servable name: 'dist', version number: 1\n" in log.read_text()


def test_a_rank_table_without_this_machine_is_refused(scripts: GroupScripts) -> None:
    scripts.write_rank_table("192.0.2.1")
    scripts.start_server()
    agents = scripts.start_agents(scripts.write_scripted_models())
    assert agents.process.wait(60) == 1
    assert "Get local machine ip failed, rank table ips: ['192.0.2.1'], " in agents.errors()


def test_a_group_is_not_replaced_as_single_workers_are(scripts: GroupScripts) -> None:
    scripts.start(scripts.write_scripted_models())
    (directory,) = scripts.directory.glob("mindbus*")
    with RuntimeClient(directory) as client, pytest.raises(RefusedError) as caught:
        client.roll("restart", {})
    assert "worker dist/1/distributed is that of a group of ranks" in str(caught.value)
    assert values(scripts) == TWICE


def test_a_server_whose_agents_do_not_come_fails_with_the_text(scripts: GroupScripts) -> None:
    text = (
        "RuntimeError: Fail to start workers: {distributed servable:dist, Failed to wait for ready "
        "of all agents, current agents count: 0, rank size: 2}"
    )
    server = scripts.start_server(wait_s=1)
    assert server.process.wait(60) == 1
    assert not any(line.startswith(GRPC_LINE) for line in server.lines)
    assert text in server.errors()


def test_an_agent_that_cannot_load_fails_both_scripts_with_its_text(scripts: GroupScripts) -> None:
    files = scripts.write_scripted_models(op="unknown")
    server, agents = scripts.start_server(), scripts.start_agents(files)
    assert agents.process.wait(60) == 1
    assert server.process.wait(60) == 1
    assert "is not a scripted model: KeyError('unknown')" in agents.errors()
    assert any(line.startswith("Failed to start agents, ") for line in agents.lines)
    assert (
        "RuntimeError: Fail to start workers: {distributed servable:dist, Failed to starting all "
        "agents, maybe some error reported, rank "
    ) in server.errors()


def test_too_few_model_files_are_refused_before_any_agent_starts(scripts: GroupScripts) -> None:
    scripts.start_server()
    agents = scripts.start_agents(scripts.write_scripted_models()[:1])
    assert agents.process.wait(60) == 1
    assert (
        "RuntimeError: Card count [0, 1] described rank table does not equal to model files size 1"
    ) in agents.errors()


KEY = b"sixteen secrets!"
FORMS = [KEY, KEY.hex().encode(), base64.b64encode(KEY), repr(KEY)[2:-1].encode()]


def shows_key(content: bytes) -> bool:
    return any(form in content for form in FORMS)


def test_the_key_of_the_models_is_in_no_command_line_environment_output_or_core_file(
    scripts: GroupScripts,
) -> None:
    scripts.dec_key = KEY
    scripts.start(scripts.write_scripted_models(dec_key=base64.b64encode(KEY).decode()))
    assert values(scripts) == TWICE
    server, agents = scripts.server, scripts.agents
    assert server is not None
    assert agents is not None
    roots = [server.process.pid, agents.process.pid]
    for pid in [*roots, *descendants(roots[0]), *descendants(roots[1])]:
        with contextlib.suppress(FileNotFoundError):  # it has just gone
            assert not shows_key(Path(f"/proc/{pid}/cmdline").read_bytes())
            assert not shows_key(Path(f"/proc/{pid}/environ").read_bytes())
    rank0 = scripts.agent_pids()[0]
    os.kill(rank0, signal.SIGABRT)
    wait_gone(rank0)
    os.kill(agents.process.pid, signal.SIGABRT)
    assert agents.process.wait(60) == -signal.SIGABRT
    assert list(scripts.directory.rglob("core*")) == []
    for script in (server, agents):
        assert not shows_key("\n".join([*script.lines, *script.error_lines]).encode())


def test_an_agent_without_a_key_leaves_the_core_file_that_is_asked_for(
    scripts: GroupScripts,
) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if pattern.startswith(("|", "/")) or hard == 0:
        pytest.skip(f"core files go to {pattern}, limit {hard}")
    scripts.start(scripts.write_scripted_models())
    rank0 = scripts.agent_pids()[0]
    os.kill(rank0, signal.SIGABRT)
    assert wait_until(lambda: list(scripts.directory.rglob("core*")))


def test_a_wrong_key_fails_the_start(scripts: GroupScripts) -> None:
    scripts.dec_key = b"another key here"
    key = base64.b64encode(b"sixteen secrets!").decode()
    scripts.start_server()
    agents = scripts.start_agents(scripts.write_scripted_models(dec_key=key))
    assert agents.process.wait(60) == 1
    assert "cannot be decrypted with this dec_key" in agents.errors()
    assert "another key here" not in agents.errors()
