"""The group machine, driven through its doors with a clock of the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from protocol import group as wire
from protocol import limits
from protocol.group import (
    Claim,
    Exit,
    Graph,
    Heartbeat,
    Outcome,
    Place,
    Plan,
    Predict,
    RankLost,
    Register,
    TensorForm,
)
from workers.distributed.group import ENDED, FORMING, READY, Group
from workers.distributed.members import GroupSettings

S = 1_000_000_000

X = TensorForm("x", np.dtype("float32"), (2,))
GRAPH = Graph((X,), (X,))
ONES = np.ones(2, np.float32)


class World:
    """A group and its clock. Everybody goes by a short name: `l` launches, `a0`, `a1` are ranks."""

    def __init__(self, ranks: int = 2, stage_size: int = 1, wait_s: int | None = None) -> None:
        self.now_ns = 0
        places = tuple(Place("10.0.0.1", number) for number in range(ranks))
        wait_ns = None if wait_s is None else wait_s * S
        self.group = Group(GroupSettings("e1", places, "{}", stage_size, None, wait_ns), 0)

    def hear(self, name: str, message: wire.Message) -> None:
        self.group.receive(name.encode(), wire.pack(message), self.now_ns)

    def sent(self) -> list[tuple[str, wire.Message]]:
        """What was said since the last call, heartbeats left out."""
        messages = [(bytes(m[0]).decode(), wire.unpack(m[1:])) for m in self.group.outbox]
        self.group.outbox.clear()
        return [item for item in messages if not isinstance(item[1], Heartbeat)]

    def pass_time(self, seconds: float, *living: str) -> None:
        """Let time pass, in steps; those who live give a sign every second."""
        end_ns = self.now_ns + round(seconds * S)
        while self.now_ns < end_ns and self.group.state != ENDED:
            self.now_ns = min(end_ns, self.now_ns + S)
            for name in living:
                self.hear(name, Claim("e1", (0, 1), "") if name == "l" else Heartbeat("e1"))
            self.group.handle_timer(self.now_ns)

    def form(self, *graphs: Graph) -> World:
        """Bring the group to READY."""
        ranks = self.group.rank_size
        self.hear("l", Claim("e1", tuple(range(ranks)), "10.0.0.1:7000"))
        for rank in range(ranks):
            self.hear(f"a{rank}", Register("e1", rank, (graphs[rank] if graphs else GRAPH,)))
        assert self.group.state == READY
        self.sent()
        return self

    def predict(self, number: int, wait_s: float = 10) -> None:
        self.group.predict(number, 0, (ONES * number,), self.now_ns, round(wait_s * S))

    def answer(self, rank: int, number: int, error: str = "", *arrays: Any) -> None:
        self.hear(f"a{rank}", Outcome("e1", number, error, arrays))

    def finished(self) -> list[tuple[int, list[Any], str]]:
        """Batches that are over since the last call."""
        done = self.group.finished
        self.group.finished = []
        return [(p.number, [array.tolist() for array in p.arrays], p.error) for p in done]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.group.check_invariants()


# ---------------------------------------------------------------- forming


def test_a_launcher_without_a_group_is_told_the_plan(world: World) -> None:
    world.hear("l", Claim("", (), ""))
    places = (Place("10.0.0.1", 0), Place("10.0.0.1", 1))
    assert world.sent() == [("l", Plan("e1", False, "", "{}", places))]


def test_agents_may_start_when_every_rank_is_claimed(world: World) -> None:
    world.hear("l", Claim("e1", (1,), ""))
    assert world.sent() == [("l", Plan("e1", False, "", "", ()))]
    world.hear("m", Claim("e1", (0,), "10.0.0.1:7000"))
    assert world.sent() == [("m", Plan("e1", True, "10.0.0.1:7000", "", ()))]
    world.hear("l", Claim("e1", (1,), ""))
    assert world.sent() == [("l", Plan("e1", True, "10.0.0.1:7000", "", ()))]


def test_a_claimed_rank_is_refused_while_its_launcher_lives_and_given_when_it_is_silent(
    world: World,
) -> None:
    world.hear("l", Claim("e1", (0, 1), ""))
    world.sent()
    world.hear("m", Claim("e1", (1,), ""))
    assert world.sent() == [("m", Exit("", "ranks [1] are claimed already"))]
    world.pass_time(3)
    world.hear("m", Claim("e1", (1,), ""))
    assert world.sent() == [("m", Plan("e1", False, "", "", ()))]


def test_a_rank_that_is_none_of_the_group_is_refused(world: World) -> None:
    world.hear("l", Claim("e1", (2,), ""))
    world.hear("a2", Register("e1", 2, (GRAPH,)))
    text = "Invalid rank id 2, rank size 2"
    assert world.sent() == [("l", Exit("", text)), ("a2", Exit("", text))]


def test_the_group_is_ready_when_every_rank_has_registered(world: World) -> None:
    world.hear("a1", Register("e1", 1, (GRAPH,)))
    assert world.group.state == FORMING
    world.hear("a1", Register("e1", 1, (GRAPH,)))
    assert world.group.agents_count == 1, "said twice, counted once"
    world.hear("a0", Register("e1", 0, (GRAPH,)))
    assert world.group.state == READY
    assert world.group.signature == (GRAPH,)


def test_a_rank_registers_once(world: World) -> None:
    world.hear("a0", Register("e1", 0, (GRAPH,)))
    world.hear("b0", Register("e1", 0, (GRAPH,)))
    assert world.sent() == [("b0", Exit("", "rank 0 is registered already"))]
    assert world.group.state == FORMING


def test_ranks_that_do_not_fit_end_the_group(world: World) -> None:
    world.hear("a0", Register("e1", 0, (GRAPH,)))
    world.hear("a1", Register("e1", 1, (GRAPH, GRAPH)))
    assert world.group.failure == "The number of graph not match in different agent"


def test_missing_agents_end_the_group_in_the_words_of_the_original() -> None:
    world = World(wait_s=5)
    world.hear("a1", Register("e1", 1, (GRAPH,)))
    world.pass_time(4.9, "a1")
    assert world.group.state == FORMING
    world.pass_time(0.1, "a1")
    assert world.group.failure == (
        "Failed to wait for ready of all agents, current agents count: 1, rank size: 2"
    )


def test_without_a_limit_agents_are_waited_for(world: World) -> None:
    world.pass_time(3600)
    assert world.group.state == FORMING


def test_an_agent_that_fails_while_the_group_forms_ends_it_with_its_error(world: World) -> None:
    world.hear("l", Claim("e1", (0, 1), ""))
    world.hear("l", RankLost("e1", 1, "model file 'x' cannot be read"))
    assert world.group.failure == (
        "Failed to starting all agents, maybe some error reported, rank 1: model file 'x' cannot "
        "be read"
    )


# ---------------------------------------------------------------- batches


def test_every_rank_computes_a_batch_and_the_last_one_gives_the_result(world: World) -> None:
    world.form().predict(1)
    sent = world.sent()
    assert [(name, m.number, m.has_result) for name, m in sent if isinstance(m, Predict)] == [
        ("a0", 1, False),
        ("a1", 1, True),
    ]
    assert all(m.arrays[0].tolist() == [1, 1] for _, m in sent if isinstance(m, Predict))
    world.answer(1, 1, "", ONES * 5)
    assert world.finished() == []
    world.answer(0, 1)
    assert world.finished() == [(1, [[5, 5]], "")]


def test_a_rank_without_inputs_is_sent_none() -> None:
    world = World(stage_size=2).form(GRAPH, Graph((), (X,)))
    world.predict(1)
    assert [len(m.arrays) for _, m in world.sent() if isinstance(m, Predict)] == [1, 0]


def test_batches_overlap_and_reach_every_rank_in_one_order(world: World) -> None:
    world.form()
    for number in (1, 2, 3):
        world.predict(number)
    sent = [(name, m.number) for name, m in world.sent() if isinstance(m, Predict)]
    assert [number for name, number in sent if name == "a0"] == [1, 2, 3]
    assert [number for name, number in sent if name == "a1"] == [1, 2, 3]
    world.answer(0, 1)
    world.answer(0, 2)
    world.answer(1, 1, "", ONES)
    assert world.finished() == [(1, [[1, 1]], "")]


def test_a_batch_that_fails_on_a_rank_fails_alone(world: World) -> None:
    world.form().predict(1)
    world.answer(1, 1, "no memory")
    assert world.finished() == [], "the other rank may still be computing"
    world.answer(0, 1)
    assert world.finished() == [(1, [], "Error happened on get result of rank 1: no memory")]
    assert world.group.state == READY


def test_a_rank_that_keeps_a_batch_too_long_fails_it_and_ends_the_group(world: World) -> None:
    world.form().predict(1)
    world.answer(0, 1)
    world.pass_time(9.9, "l", "a0", "a1")
    assert world.group.state == READY
    world.pass_time(0.1, "l", "a0", "a1")
    assert world.finished() == [(1, [], "Failed to wait for result of rank 1")]
    assert world.group.failure == "Failed to wait for result of rank 1"


def test_time_runs_for_the_oldest_batch_only(world: World) -> None:
    world.form()
    world.predict(1)
    world.predict(2)
    world.pass_time(9, "l", "a0", "a1")
    for rank in (0, 1):
        world.answer(rank, 1, "", ONES)
    world.pass_time(9.5, "l", "a0", "a1")
    assert world.group.state == READY
    world.pass_time(1, "l", "a0", "a1")
    assert [number for number, *_ in world.finished()] == [1, 2]
    assert world.group.state == ENDED


def test_a_batch_in_hand_when_a_rank_dies_is_not_answered(world: World) -> None:
    world.form().predict(1)
    world.hear("l", RankLost("e1", 1, "killed by SIGKILL"))
    assert world.group.failure == "rank 1 is lost: killed by SIGKILL"
    assert world.finished() == []
    world.predict(2)
    world.answer(0, 1)
    assert world.finished() == []


# ---------------------------------------------------------------- losses


def test_a_silent_agent_ends_the_group_after_20_s(world: World) -> None:
    world.form()
    world.pass_time(19, "l", "a0")
    assert world.group.state == READY
    world.pass_time(2, "l", "a0")
    assert world.group.failure == "rank 1 has been silent for 20 s"
    assert ("Recv Pong Time Out from rank 1", True) in world.group.notes


def test_a_rank_that_compiles_may_be_silent(world: World) -> None:
    world.form().predict(1, wait_s=600)
    world.pass_time(100, "l")
    assert world.group.state == READY
    for rank in (0, 1):
        world.answer(rank, 1, "", ONES)
    world.pass_time(19, "l")
    assert world.group.state == READY
    world.pass_time(2, "l")
    assert world.group.failure == "rank 0 has been silent for 20 s"


def test_a_silent_launcher_ends_a_group_that_runs(world: World) -> None:
    world.form()
    world.pass_time(21, "a0", "a1")
    assert world.group.failure == "the launcher of ranks [0, 1] has been silent for 20 s"


def test_a_silent_launcher_without_agents_is_forgotten(world: World) -> None:
    world.hear("l", Claim("e1", (0, 1), ""))
    world.pass_time(21)
    assert world.group.state == FORMING
    world.sent()
    world.hear("m", Claim("e1", (1,), ""))
    assert world.sent() == [("m", Plan("e1", False, "", "", ()))]


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("a1", "rank 1 has disconnected"),
        ("l", "the launcher of ranks [0, 1] has disconnected"),
        ("stranger", ""),
    ],
)
def test_a_member_that_cannot_be_reached_ends_the_group(
    world: World, name: str, failure: str
) -> None:
    world.form()
    world.group.lose(name.encode())
    assert world.group.failure == failure


def test_a_launcher_that_was_started_anew_ends_the_group_of_its_predecessor(world: World) -> None:
    world.form()
    world.pass_time(3, "a0", "a1")
    world.hear("m", Claim("e1", (0, 1), ""))
    assert world.group.failure == "agents of ranks [0, 1] were started anew"


def test_who_belongs_to_another_group_is_told(world: World) -> None:
    world.form()
    world.hear("m", Claim("e0", (0,), ""))
    ((name, plan),) = world.sent()
    assert (name, plan.epoch, len(plan.places)) == ("m", "e1", 2)  # type: ignore[union-attr]
    world.hear("b", Heartbeat("e0"))
    assert world.sent() == [("b", Exit("", "epoch e0 is over"))]
    world.hear("m", RankLost("e0", 0, "killed"))
    assert world.sent() == []
    assert world.group.state == READY


def test_a_stranger_does_no_harm(world: World) -> None:
    world.form()
    world.group.receive(b"x", [b"\xff" * 10, b"", b""], 0)
    world.hear("x", Outcome("e1", 1, "", ()))
    world.hear("x", RankLost("e1", 0, "I say so"))
    world.hear("x", Exit("e1", "go"))
    assert world.group.state == READY
    assert [name for name, message in world.sent() if isinstance(message, Exit)] == ["x"] * 3


def test_a_member_that_speaks_nonsense_ends_the_group(world: World) -> None:
    world.form()
    world.group.receive(b"a0", [b"nonsense", b""], 0)
    assert world.group.failure.startswith("a member of the group broke its protocol: ")


def test_an_answer_to_nothing_is_ignored(world: World) -> None:
    world.form().predict(1)
    world.answer(0, 1)
    world.answer(0, 1, "again")
    world.answer(0, 99)
    world.answer(1, 1, "", ONES)
    assert world.finished() == [(1, [[1, 1]], "")]


def test_who_leaves_tells_everybody(world: World) -> None:
    world.form()
    world.group.leave("the worker has ended")
    gone = Exit("e1", "the worker has ended")
    assert world.sent() == [("l", gone), ("a0", gone), ("a1", gone)]
    assert world.group.state == ENDED


def test_living_ranks_are_beaten_once_a_second(world: World) -> None:
    world.form()
    world.group.outbox.clear()
    world.pass_time(3, "l", "a0", "a1")
    beats = [m for m in world.group.outbox if isinstance(wire.unpack(m[1:]), Heartbeat)]
    assert len(beats) == 3 * 2
    assert world.group.next_timer_ns() == 4 * S
    assert limits.GROUP_HEARTBEAT_INTERVAL_MS == 1000
