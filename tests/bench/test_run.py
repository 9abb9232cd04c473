"""What a run is told, what it keeps of earlier ones, and the peers that it may choose."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import run
from bench.peers import registry
from bench.peers.__main__ import ENVIRONMENTS
from bench.peers.peer import REQUIREMENTS
from bench.records import Record, Run


def test_flags_are_names_with_commas() -> None:
    flags = run.parser().parse_args(["--workloads", "w2,w1", "--peers", "none", "--rounds", "7"])
    assert (flags.workloads, flags.peers, flags.rounds) == (["w2", "w1"], [], 7)


def test_default_is_everything_five_times() -> None:
    flags = run.parser().parse_args([])
    assert flags.workloads == ["ceilings", "w1", "w2", "w3", "w4", "w5", "w6", "w7"]
    assert flags.peers == ["triton", "mosec", "mlserver", "kserve", "litserve", "ray", "bentoml"]
    assert flags.rounds == 5


def test_unknown_name_is_refused_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run.parser().parse_args(["--peers", "triton,jina"])
    assert "'jina' is none of triton, mosec" in capsys.readouterr().err


def test_figures_of_other_workloads_stay(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    assert run.before(results, ["w1"]) == Run()
    records = [Record(name, "ours", "REST", 1, 0, {"rate": 1.0}) for name in ("w1", "w2")]
    missing = [{"workload": name, "system": "x", "reason": "y"} for name in ("w1", "w2")]
    results.write_text(Run(records=records, missing=missing).to_json())
    kept = run.before(results, ["w1"])
    assert (kept.records, kept.missing) == (records[1:], missing[1:])


def test_only_peers_that_can_run_a_workload_are_chosen() -> None:
    w3 = registry.choose(["triton", "mosec", "kserve"], "w3")
    assert [peer.name for peer in w3] == ["Triton, batching on", "Mosec, batching on"]
    assert [peer.name for peer in registry.choose(["kserve"], "w1")] == ["KServe"]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_package_of_a_peer_has_its_version_and_no_address(name: str) -> None:
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    assert lines
    assert all(re.fullmatch(r"[\w.\[\]-]+==[\w.+!]+", line) for line in lines), lines
