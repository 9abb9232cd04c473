"""A real worker process of a distributed servable; the test plays its broker and its agents."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from protocol import control, status
from protocol.values import Failure
from tests.mindspore_serving.start_script import free_port
from tests.workers.distributed.played_agents import PlayedAgent, PlayedLauncher
from tests.workers.fake_broker import FakeBroker, Place, WorkerProcess, request, values_of

pytestmark = pytest.mark.process

CONFIG = """
from mindspore_serving.server import distributed, register

model = distributed.declare_servable(
    rank_size=2, stage_size={stages}, with_batch_dim=True, enable_pipeline_infer={is_pipelined}
)


@register.register_method(output_names=["y"])
def predict(x):
    return register.add_stage(model, x, outputs_count=1)


def call(x):
    return model.call(x)


@register.register_method(output_names=["y"])
def predict_by_call(x):
    return register.add_stage(call, x, outputs_count=1)
"""

START = Callable[[dict[str, object]], WorkerProcess]


class World:
    """A worker with the ranks that it wants, and a broker."""

    def __init__(self, place: Place, broker: FakeBroker, start: START) -> None:
        self.place = place
        # The broker beats only where a test has it do so, and must not be missed for that.
        broker.welcome = control.Welcome(heartbeat_interval_ms=100, liveness=600)
        self.broker = broker
        self._start = start
        self.address = f"127.0.0.1:{free_port()}"
        self.launcher = PlayedLauncher(self.address)
        self.epoch = ""
        self.agents: list[PlayedAgent] = []
        self.write_table(2)

    def write_table(self, ranks: int) -> None:
        devices = [{"device_id": str(rank), "rank_id": str(rank)} for rank in range(ranks)]
        table = {"server_list": [{"server_id": "127.0.0.1", "device": devices}]}
        (self.place.path / "table.json").write_text(json.dumps(table))

    def start(
        self, stages: int = 1, is_pipelined: bool = False, wait_s: int = 0, **changes: object
    ) -> WorkerProcess:
        """Start the worker; it waits for its agents."""
        self.place.config.write_text(CONFIG.format(stages=stages, is_pipelined=is_pipelined))
        return self.start_as_it_is(wait_s, **changes)

    def start_as_it_is(self, wait_s: int = 0, **changes: object) -> WorkerProcess:
        """The same with whatever servable is there."""
        group = {
            "rank_table_file": str(self.place.path / "table.json"),
            "address": self.address,
            "wait_s": wait_s,
        }
        worker = self._start(self.place.document(**({"group": group} | changes)))
        assert worker.report() == {"state": "loading"}
        return worker

    def join(self) -> tuple[PlayedAgent, PlayedAgent]:
        """Start both agents, have them warmed up, and let the worker serve."""
        self.epoch = self.launcher.epoch()
        self.launcher.claim(self.epoch, 0, 1)
        agents = self.play(0), self.play(1)
        for agent in agents:
            agent.answer(agent.batch())
        self.broker.admit()
        return agents

    def play(self, rank: int) -> PlayedAgent:
        """Be the agent of a rank."""
        self.agents.append(PlayedAgent(self.address, self.epoch, rank))
        return self.agents[-1]

    def ask(self, ticket: int, value: float, method: str = "predict") -> None:
        instance = {"x": np.full(2, value, np.float32)}
        self.broker.send(*request(ticket, method, instance))

    def answers(self, count: int) -> dict[int, Any]:
        """The one result of each reply, by ticket."""
        replies = self.broker.replies(count)
        return {ticket: values_of(frames)[0] for ticket, (_, frames) in replies.items()}


@pytest.fixture
def world(place: Place, broker: FakeBroker, start: START) -> Iterator[World]:
    made = World(place, broker, start)
    with made.launcher:
        yield made
    for agent in made.agents:
        agent.close()


@pytest.mark.parametrize("method", ["predict", "predict_by_call"])
def test_every_rank_computes_and_the_last_one_gives_the_result(world: World, method: str) -> None:
    worker = world.start()
    first, last = world.join()
    assert worker.report()["state"] == "ready"
    world.ask(1, 7, method)
    for agent in (first, last):
        batch = agent.batch()
        assert [array.tolist() for array in batch.arrays] == [[[7, 7]]]
        assert batch.has_result == (agent is last)
        agent.answer(batch)
    assert world.answers(1) == {1: {"y": [70, 70]}}


def test_without_pipeline_inference_one_batch_is_under_way(world: World) -> None:
    world.start()
    first, last = world.join()
    for ticket in (1, 2):
        world.ask(ticket, ticket)
    batch = first.batch()
    first.answer(batch)
    world.broker.wait_until_busy()
    world.broker.wait_until_busy()
    assert not first.has_batch, "the last rank has not answered"
    last.answer(last.batch())
    first.answer(first.batch())
    last.answer(last.batch())
    assert world.answers(2) == {1: {"y": [10, 10]}, 2: {"y": [20, 20]}}


def test_with_pipeline_inference_as_many_batches_as_stages_overlap(world: World) -> None:
    world.start(stages=2, is_pipelined=True)
    first, last = world.join()
    for ticket in (1, 2, 3):
        world.ask(ticket, ticket)
    # The first stage is done with a batch and has the next one, while the last holds both.
    first.answer(first.batch())
    first.answer(first.batch())
    held = [last.batch(), last.batch()]
    world.broker.wait_until_busy()
    world.broker.wait_until_busy()
    assert not first.has_batch, "three batches for two stages"
    for batch in held:
        last.answer(batch)
    first.answer(first.batch())
    last.answer(last.batch())
    assert world.answers(3) == {n: {"y": [10 * n] * 2} for n in (1, 2, 3)}


def test_an_error_of_a_rank_fails_its_batch_with_its_text_and_no_other(world: World) -> None:
    world.start()
    first, last = world.join()
    world.ask(1, 1)
    first.answer(first.batch(), error="no memory")
    last.answer(last.batch())
    text = "Error happened on get result of rank 0: no memory"
    assert world.answers(1) == {1: Failure(status.MS_FAILED, text)}
    world.ask(2, 2)
    for agent in (first, last):
        agent.answer(agent.batch())
    assert world.answers(1) == {2: {"y": [20, 20]}}


def test_a_lost_rank_ends_the_worker_which_answers_nothing_that_it_holds(world: World) -> None:
    worker = world.start()
    first, _ = world.join()
    world.ask(1, 1)
    first.answer(first.batch())
    world.launcher.lose(world.epoch, 1)
    assert worker.report()["state"] == "ready"
    assert worker.report() == {
        "state": "failed",
        "error": "rank 1 is lost: killed by SIGKILL",
    }
    code, _, err = worker.exit()
    assert (code, "group lost" in err) == (4, True)


def test_a_rank_that_is_silent_for_10_s_fails_its_batch_before_the_worker_ends(
    world: World,
) -> None:
    worker = world.start()
    first, _ = world.join()
    world.ask(1, 1)
    first.answer(first.batch())
    text = "Failed to wait for result of rank 1"
    assert world.answers(1) == {1: Failure(status.MS_FAILED, text)}
    assert worker.exit()[0] == 4


def test_a_worker_that_is_drained_says_goodbye(world: World) -> None:
    worker = world.start()
    first, last = world.join()
    assert worker.report()["state"] == "ready"
    worker.signal(signal.SIGTERM)
    world.broker.drain()
    assert world.launcher.goodbye() == "the worker has ended"
    assert worker.exit()[0] == 0
    assert [first.end_reason(), last.end_reason()] == ["the worker has ended"] * 2


def failure(worker: WorkerProcess) -> object:
    """Why the worker could not start."""
    said = worker.report()
    assert said["state"] == "failed", said
    assert worker.exit()[0] == 3
    return said["error"]


def test_missing_agents_end_the_start(world: World) -> None:
    worker = world.start(wait_s=3)
    world.epoch = world.launcher.epoch()
    world.play(1)
    assert failure(worker) == (
        "Failed to wait for ready of all agents, current agents count: 1, rank size: 2"
    )


def test_an_agent_that_ends_while_the_ranks_warm_up_ends_the_start(world: World) -> None:
    worker = world.start()
    world.epoch = world.launcher.epoch()
    world.launcher.claim(world.epoch, 0, 1)
    first, _ = world.play(0), world.play(1)
    first.answer(first.batch())
    world.launcher.lose(world.epoch, 1)
    assert failure(worker) == "rank 1 is lost: killed by SIGKILL"


def test_a_rank_table_that_does_not_fit_ends_the_start(world: World) -> None:
    world.write_table(3)
    assert failure(world.start()) == (
        f"Rank size 3 declared in rank table file '{world.place.path}/table.json' not equal to 2 "
        "declared in servable config"
    )


def test_a_rank_table_that_is_not_there_ends_the_start(world: World) -> None:
    (world.place.path / "table.json").unlink()
    text = str(failure(world.start()))
    assert text.startswith(f"failed to open rank table file: {world.place.path}/table.json, ")


def test_an_address_in_use_ends_the_start(world: World) -> None:
    world.start()
    world.launcher.epoch()
    text = str(failure(world.start()))
    assert text.startswith(
        f"Distributed server start failed, bind to the address {world.address} failed, "
    )


def test_a_local_servable_is_not_started_as_a_distributed_one(world: World) -> None:
    assert failure(world.start_as_it_is()) == (
        "Servable 'add' is not registered as distributed servable"
    )


def test_a_servable_without_a_model_is_not_started_as_a_distributed_one(world: World) -> None:
    world.place.config.write_text(
        "from mindspore_serving.server import register\n\n\n"
        "@register.register_method(output_names='x')\n"
        "def echo(x):\n    return x\n"
    )
    assert failure(world.start_as_it_is()) == (
        "Distributed servable 'add' has not been declared or has been declared more than once, "
        "declared number: 0"
    )


def test_a_distributed_servable_is_not_started_as_a_local_one(world: World) -> None:
    assert failure(world.start(group=None)) == (
        "Servable 'add' is declared as distributed servable, it is started by "
        "distributed.start_servable"
    )
