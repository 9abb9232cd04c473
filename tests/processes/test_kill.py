"""`kill -9` of workers under load: every request is answered, every answer is right."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mindspore_serving.client import Client
from tests.figures import Figures
from tests.processes.probe import broker_stats, probe_server
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

REQUESTS = 1_000
CLIENTS = 16
#: A worker is killed each time this many more answers have come.
ANSWERS_PER_KILL = 120


class Tally:
    """What the clients of one run have seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.answered = 0
        self.wrong: list[Any] = []

    def note(self, is_right: bool, answer: Any) -> None:
        with self._lock:
            self.answered += 1
            if not is_right:
                self.wrong.append(answer)


def infer_many(address: str, seed: int, count: int, tally: Tally) -> None:
    """One client: requests of one to three instances, each checked against the reference."""
    generator = np.random.default_rng(seed)
    client = Client(address, "probe", "slow")
    for _ in range(count):
        inputs = generator.random((int(generator.integers(1, 4)), 4), np.float32)
        results = client.infer([{"x": row} for row in inputs])
        is_right = isinstance(results, list) and all(
            "y" in result and np.array_equal(result["y"], 2 * row)
            for result, row in zip(results, inputs, strict=True)
        )
        tally.note(is_right, results)


def worker_pids(server: ServerProcess) -> dict[str, int]:
    """Process of each worker slot that is READY."""
    return {
        slot["slot"]: slot["pid"]
        for slot in server.status()["slots"]
        if slot["kind"] == "worker" and slot["state"] == "READY"
    }


@pytest.mark.shows("F1", "R19")
@pytest.mark.parametrize("mode", ["embedded", "standalone"])
def test_a_thousand_requests_survive_the_death_of_both_workers_in_turn(
    mode: str, figures: Figures
) -> None:
    with probe_server(
        "--device-ids",
        "0,1",
        "--mode",
        mode,
    ) as server:
        tally = Tally()
        killed: list[int] = []
        with ThreadPoolExecutor(CLIENTS) as pool:
            shares = [REQUESTS // CLIENTS + (n < REQUESTS % CLIENTS) for n in range(CLIENTS)]
            running = [
                pool.submit(infer_many, server.grpc_address, seed, share, tally)
                for seed, share in enumerate(shares)
            ]
            slots = ["probe/1/device0", "probe/1/device1"]
            while tally.answered < REQUESTS - ANSWERS_PER_KILL:
                slot = slots[len(killed) % 2]
                target = (len(killed) + 1) * ANSWERS_PER_KILL
                wait_until(lambda target=target: tally.answered >= target, 120)  # type: ignore[misc]
                if tally.answered >= REQUESTS - ANSWERS_PER_KILL:
                    break
                # Both must be up, and what the last kill left must be computed, or the second
                # attempt of a request would die as well.
                pids = wait_until(lambda: both_ready(server), 60)
                os.kill(pids[slot], signal.SIGKILL)
                killed.append(pids[slot])
            for future in running:
                future.result(180)
        assert tally.answered == REQUESTS
        assert tally.wrong == []
        assert len(killed) >= 4
        assert len(set(killed)) == len(killed)
        figures(requests=REQUESTS, deaths=len(killed))
        counters = broker_stats(server)["counters"]
        assert counters["accepted"] == counters["answered"] == REQUESTS
        assert broker_stats(server)["requests"] == 0


def both_ready(server: ServerProcess) -> dict[str, int] | None:
    """The worker processes once both have registered with the broker, and nothing is suspect."""
    pids = worker_pids(server)
    stats = broker_stats(server)
    registered = {worker["pid"] for worker in stats["workers"]}
    are_calm = not any(each["suspects"] or each["second_attempts"] for each in stats["services"])
    return pids if are_calm and len(pids) == 2 and set(pids.values()) <= registered else None


@pytest.mark.shows("F1")
def test_a_busy_workers_requests_are_answered_by_its_successor(figures: Figures) -> None:
    with probe_server("--device-ids", "0") as server:
        with ThreadPoolExecutor(4) as pool:
            tally = Tally()
            running = [
                pool.submit(infer_many, server.grpc_address, seed, 25, tally) for seed in range(4)
            ]
            wait_until(lambda: tally.answered >= 10)
            (pid,) = worker_pids(server).values()
            os.kill(pid, signal.SIGKILL)
            begin = time.monotonic()
            wait_until(lambda: pid not in worker_pids(server).values())
            figures(detected_ms=(time.monotonic() - begin) * 1_000)
            wait_until(lambda: worker_pids(server))
            figures(ready_again_ms=(time.monotonic() - begin) * 1_000)
            for future in running:
                future.result(120)
        assert (tally.answered, tally.wrong) == (100, [])
        (slot,) = [slot for slot in server.status()["slots"] if slot["kind"] == "worker"]
        assert (slot["generation"], slot["restarts"]) == (2, 1)
        # With the default level of the log, the death is all that it says.
        (line,) = server.stderr
        assert line.startswith("[WARNING] SERVING(")
        assert line.endswith(
            f'child exited slot={slot["slot"]} pid={pid} generation=1 exit="killed by SIGKILL"'
        )


@pytest.mark.shows("F5", "R29")
def test_a_request_that_kills_its_worker_twice_is_answered_and_the_server_lives() -> None:
    with probe_server("--device-ids", "0,1") as server:
        client = Client(server.grpc_address, "probe", "mortal")
        deadly = client.infer([{"x": np.array([666, 0, 0, 0], np.float32)}])
        assert "2 workers of probe/1 were lost while they computed this request" in deadly["error"]
        again = client.infer([{"x": np.array([666, 0, 0, 0], np.float32)}])
        assert again["error"].startswith("the same request killed 2 workers of probe/1 lately")
        row = np.array([random.Random(1).random()] * 4, np.float32)
        (answer,) = client.infer([{"x": row}])
        assert np.array_equal(answer["y"], 2 * row)


@pytest.mark.shows("F7")
@pytest.mark.parametrize(("mode", "kind"), [("embedded", "gateway"), ("standalone", "broker")])
def test_a_killed_broker_comes_back_and_no_request_is_told_that_the_servable_is_unknown(
    mode: str, kind: str
) -> None:
    with probe_server("--mode", mode) as server:
        address = server.grpc_address
        row = np.ones(4, np.float32)
        assert Client(address, "probe", "double").infer([{"x": row}])[0]["y"].tolist() == [2] * 4
        (pid,) = [slot["pid"] for slot in server.status()["slots"] if slot["kind"] == kind]
        os.kill(pid, signal.SIGKILL)
        answers: list[Any] = []

        def answered() -> bool:
            answers.append(Client(address, "probe", "double").infer([{"x": row}]))
            return isinstance(answers[-1], list)

        wait_until(answered, 60)
        errors = [answer["error"] for answer in answers[:-1]]
        assert not [error for error in errors if "is not available" in error]
