"""`mindbus restart` under load: every worker is replaced, and no request fails."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindbus.runtime_client import RefusedError, RuntimeClient
from mindspore_serving.client import Client
from tests.figures import Figures
from tests.processes.load import Load, check_p99, load
from tests.processes.probe import broker_stats, probe_server
from tests.processes.server_process import CHECKOUT, ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

#: Rounds of rolling restart under load: of a full run, and of the run that goes with every change.
ROUNDS, ROUNDS_SHORT = 20, 4

#: A new worker counts as settled at once: these tests are about requests, not about bad versions.
SETTLE_MS = 0


def restart(server: ServerProcess, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "mindbus", "restart"),
            *("--run-directory", str(server.run_directory), "--settle-ms", str(SETTLE_MS)),
            *flags,
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def workers_of(server: ServerProcess) -> dict[str, dict[str, Any]]:
    return {slot["slot"]: slot for slot in server.status()["slots"] if slot["kind"] == "worker"}


class Latencies:
    """Asks for `slow` and measures; each answer is checked by value."""

    def __init__(self, address: str) -> None:
        self.seconds: list[float] = []
        self._address = address

    def make_ask(self, seed: int) -> Callable[[], Any]:
        generator = np.random.default_rng(seed)
        client = Client(self._address, "probe", "slow")

        def ask() -> Any:
            row = generator.random(4, np.float32)
            sent = time.monotonic()
            answer = client.infer([{"x": row}])
            self.seconds.append(time.monotonic() - sent)
            is_right = isinstance(answer, list) and np.array_equal(answer[0].get("y"), 2 * row)
            return None if is_right else answer

        return ask


@contextmanager
def slow_load(server: ServerProcess) -> Iterator[tuple[list[float], Load]]:
    """Latencies as they come, in seconds, and the load that makes them."""
    latencies = Latencies(server.grpc_address)
    with load(latencies.make_ask, pause_s=0.02) as clients:
        yield latencies.seconds, clients


def p99_ms(latencies_s: list[float]) -> float:
    return statistics.quantiles(latencies_s, n=100)[98] * 1000


@pytest.mark.shows("F25", "R1", "R4")
@pytest.mark.parametrize(
    ("device_ids", "flags"),
    [("0,1", ("--mode", "in-place")), ("0,1", ("--mode", "surge")), ("0", ())],
    ids=["two workers in place", "two workers by surge", "a single worker by surge"],
)
def test_rolling_restarts_under_load_fail_no_request(
    device_ids: str, flags: tuple[str, ...], figures: Figures, is_full: bool
) -> None:
    rounds = ROUNDS if is_full else ROUNDS_SHORT
    workers = len(device_ids.split(","))
    with probe_server("--device-ids", device_ids) as server, slow_load(server) as (seen_s, clients):
        wait_until(lambda: len(seen_s) >= 100)
        baseline = p99_ms(seen_s[:])
        seen = {slot["pid"] for slot in workers_of(server).values()}
        start = len(seen_s)
        for number in range(rounds):
            done = restart(server, *flags)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.splitlines()[-1].endswith(f"{workers}/{workers} done")
            now = workers_of(server)
            assert {slot["state"] for slot in now.values()} == {"READY"}
            assert {slot["generation"] for slot in now.values()} == {number + 2}
            pids = {slot["pid"] for slot in now.values()}
            assert len(pids) == workers
            assert not pids & seen
            seen |= pids
        clients.stop()
        assert clients.failures == []
        rolled = seen_s[start:]
        rolling = p99_ms(rolled)
        figures(rounds=rounds, requests=len(rolled), p99_before_ms=baseline, p99_rolling_ms=rolling)
        if is_full:
            check_p99(baseline, rolling)
        counters = broker_stats(server)["counters"]
        assert counters["accepted"] == counters["answered"] == len(seen_s)
        assert server.stderr == []


@pytest.mark.shows("F26")
def test_a_crash_in_the_middle_of_a_roll_pauses_it_and_no_request_fails() -> None:
    with probe_server("--device-ids", "0,1") as server, slow_load(server) as (_, clients):
        with RuntimeClient(server.run_directory) as client:
            client.roll("restart", {"settle_ms": 300})
            os.kill(workers_of(server)["probe/1/device1"]["pid"], signal.SIGKILL)
            assert wait_until(lambda: client.status()["roll"]["is_over"])
            roll = client.status()["roll"]
        assert roll["failure"] is None
        assert [step["state"] for step in roll["replacements"]] == ["DONE", "DONE"]
        assert {slot["generation"] for slot in workers_of(server).values()} == {2}
        clients.stop()
        assert clients.failures == []


@pytest.mark.shows("R3", "F26")
def test_a_worker_that_cannot_start_ends_the_roll_and_the_old_ones_serve_on(
    tmp_path: Path,
) -> None:
    servable = tmp_path / "picky"
    servable.mkdir()
    config = servable / "servable_config.py"
    good = (
        "from mindspore_serving.server import register\n"
        "def same(x):\n"
        "    return x\n"
        "@register.register_method(output_names=['y'])\n"
        "def echo(x):\n"
        "    return register.add_stage(same, x, outputs_count=1)\n"
    )
    config.write_text(good)
    flags = ("--backend", "numpy", "--device-ids", "0,1")
    with ServerProcess(tmp_path, *flags) as server:
        before = {name: slot["pid"] for name, slot in workers_of(server).items()}
        config.write_text("raise ValueError('half written')\n")
        done = restart(server)
        assert done.returncode == 1
        assert done.stderr == (
            "mindbus: the roll stopped: slot picky/1/device0~ failed, phase STARTING: "
            "import picky.servable_config failed, half written\n"
        )
        assert {name: slot["pid"] for name, slot in workers_of(server).items()} == before
        client = Client(server.grpc_address, "picky", "echo")
        assert client.infer([{"x": np.float32(3)}])[0]["y"] == 3
        config.write_text(good)
        assert restart(server).returncode == 0
        assert not set(before.values()) & {slot["pid"] for slot in workers_of(server).values()}


def test_a_slot_is_found_by_its_name_also_after_a_surge() -> None:
    with (
        probe_server("--device-ids", "0,1") as server,
        RuntimeClient(server.run_directory) as client,
    ):
        assert restart(server).returncode == 0
        assert "probe/1/device0~" in workers_of(server)
        client.slot_command("kill", "probe/1/device0")
        assert wait_until(lambda: workers_of(server)["probe/1/device0~"]["generation"] == 3)


def test_a_dry_run_shows_the_plan_and_touches_nothing() -> None:
    with probe_server("--device-ids", "0,1", "--extra-workers", "1") as server:
        before = {name: slot["pid"] for name, slot in workers_of(server).items()}
        shown = restart(server, "--dry-run")
        assert shown.returncode == 0
        assert shown.stdout.splitlines() == [
            "1. probe/1/device0  surge, new slot probe/1/device0~",
            "2. probe/1/device1  surge, new slot probe/1/device1~",
            "3. probe/1/extra0   surge, new slot probe/1/extra0~",
        ]
        assert {name: slot["pid"] for name, slot in workers_of(server).items()} == before
        assert server.status()["roll"] is None


def test_what_cannot_be_rolled_is_refused_with_its_reason() -> None:
    with probe_server() as server, RuntimeClient(server.run_directory) as client:
        refused = restart(server, "--mode", "in-place")
        assert refused.returncode == 1
        assert "in-place leaves 0 workers of probe/1" in refused.stderr
        assert restart(server, "nobody").stderr == (
            "mindbus: the server refused: no worker serves 'nobody'\n"
        )
        for request, text in (
            ({"mode": "sideways"}, "mode 'sideways' is not one of surge, in-place"),
            ({"min_ready": -1}, "min_ready -1 is not an integer >= 0"),
            ({"settle_ms": "x"}, "settle_ms 'x' is not an integer >= 0"),
            ({"servable": 3}, "servable 3 is not a text"),
        ):
            with pytest.raises(RefusedError, match=text):
                client.roll("restart", request)
        client.roll("restart", {"settle_ms": 60_000})
        with pytest.raises(RefusedError, match="another roll is under way and waits for slot"):
            client.roll("restart", {})
        assert server.stop() == 0
