"""The sessions of agents and launchers, driven through their doors with a clock of the test."""

from __future__ import annotations

import numpy as np
import pytest

from protocol import group as wire
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
from workers.distributed.agent_session import AgentSession
from workers.distributed.launcher_session import (
    CHOOSE,
    CLAIMING,
    ENDED,
    JOINING,
    KILL,
    RUNNING,
    SPAWN,
    UNAVAILABLE_TEXT,
    LauncherSession,
)

S = 1_000_000_000

GRAPHS = (Graph((TensorForm("x", np.dtype("int8"), (1,)),), ()),)
PLACES = (Place("127.0.0.1", 0), Place("127.0.0.1", 1))


def said(session: AgentSession | LauncherSession) -> list[wire.Message]:
    """What the session said since the last call."""
    messages = [wire.unpack(message) for message in session.outbox]
    session.outbox.clear()
    return messages


# ---------------------------------------------------------------- agents


@pytest.fixture
def agent() -> AgentSession:
    return AgentSession("e1", 1, GRAPHS, "10.0.0.1:6200", 0)


def hear(session: AgentSession | LauncherSession, message: wire.Message, now_ns: int = 0) -> None:
    session.receive(wire.pack(message), now_ns)


def test_an_agent_registers_every_second_until_the_worker_beats(agent: AgentSession) -> None:
    for now_s in range(3):
        assert agent.next_timer_ns() == now_s * S
        agent.handle_timer(now_s * S)
    assert said(agent) == [Register("e1", 1, GRAPHS)] * 3
    hear(agent, Heartbeat("e1"), 3 * S)
    agent.handle_timer(4 * S)
    assert agent.is_member
    assert said(agent) == [Heartbeat("e1")]


def test_an_agent_takes_batches_in_order_and_answers(agent: AgentSession) -> None:
    hear(agent, Heartbeat("e1"))
    for number in (1, 2):
        hear(agent, Predict("e1", number, 0, True, ()))
    assert [batch.number for batch in agent.arrivals] == [1, 2]
    said(agent)
    agent.complete(Outcome("e1", 1, "", ()))
    assert said(agent) == [Outcome("e1", 1, "", ())]


def test_an_agent_ends_when_the_worker_is_silent_for_20_s(agent: AgentSession) -> None:
    hear(agent, Heartbeat("e1"), 5 * S)
    agent.handle_timer(24 * S)
    assert agent.end_reason == ""
    agent.handle_timer(25 * S)
    assert agent.end_reason == "Recv Ping Time Out from 10.0.0.1:6200"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Exit("e1", "the worker has ended"), "the worker has ended"),
        (Exit("", "epoch e1 is over"), "epoch e1 is over"),
        (Heartbeat("e2"), "unexpected Heartbeat of epoch e2"),
        (Predict("e1", 1, 0, True, ()), "unexpected Predict of epoch e1"),
    ],
)
def test_an_agent_ends_when_it_is_told_or_its_group_is_over(
    agent: AgentSession, message: wire.Message, reason: str
) -> None:
    hear(agent, message)
    assert agent.end_reason == reason


def test_an_agent_ends_at_nonsense(agent: AgentSession) -> None:
    agent.receive([b"nonsense"], 0)
    assert agent.end_reason.startswith("the worker broke the protocol: ")


# ---------------------------------------------------------------- launchers


def plan(epoch: str = "e1", is_complete: bool = False) -> Plan:
    return Plan(epoch, is_complete, "127.0.0.1:7000", "{}", PLACES)


def orders(session: LauncherSession) -> list[str]:
    """What the shell was told to do since the last call."""
    given, session.orders = session.orders, []
    return given


def running(epoch: str = "e1") -> LauncherSession:
    """A launcher whose agents run."""
    session = LauncherSession(0)
    join(session, epoch, 0)
    return session


def join(session: LauncherSession, epoch: str, now_ns: int) -> None:
    """From JOINING to RUNNING."""
    hear(session, plan(epoch), now_ns)
    assert orders(session)[-1] == CHOOSE
    session.claim((0, 1), "127.0.0.1:7000", now_ns)
    hear(session, plan(epoch, is_complete=True), now_ns)
    assert orders(session) == [SPAWN]
    assert session.state == RUNNING
    said(session)


def test_a_launcher_asks_once_a_second_and_claims_what_it_chose() -> None:
    session = LauncherSession(0)
    session.handle_timer(0)
    session.handle_timer(S)
    assert said(session) == [Claim("", (), "")] * 2
    hear(session, plan(), S)
    assert orders(session) == [CHOOSE]
    assert session.plan.places == PLACES
    session.claim((0, 1), "127.0.0.1:7000", S)
    session.handle_timer(S)
    assert said(session) == [Claim("e1", (0, 1), "127.0.0.1:7000")]
    hear(session, plan(), 2 * S)
    assert (session.state, orders(session)) == (CLAIMING, [])
    hear(session, plan(is_complete=True), 2 * S)
    assert (session.state, orders(session)) == (RUNNING, [SPAWN])
    assert session.scheduler == "127.0.0.1:7000"


def test_a_worker_that_does_not_answer_for_a_minute_is_not_available() -> None:
    session = LauncherSession(0)
    for now_s in range(60):
        session.handle_timer(now_s * S)
    assert session.state == JOINING
    assert len(said(session)) == 60
    session.handle_timer(60 * S)
    assert (session.state, session.end_reason) == (ENDED, UNAVAILABLE_TEXT)
    assert UNAVAILABLE_TEXT == (
        "Failed to get Agents configs from Worker, worker is not available."
    )


def test_a_refusal_is_the_reason_if_it_lasts() -> None:
    session = LauncherSession(0)
    hear(session, Exit("", "ranks [0] are claimed already"))
    session.handle_timer(60 * S)
    assert session.end_reason == "ranks [0] are claimed already"


def test_a_death_of_an_agent_ends_all_and_the_next_group_is_joined() -> None:
    session = running()
    session.agent_ended(1, "killed by SIGKILL", S)
    assert said(session) == [RankLost("e1", 1, "killed by SIGKILL")]
    assert orders(session) == [KILL]
    hear(session, plan("e1", is_complete=True), S)
    assert (session.state, orders(session)) == (JOINING, []), "this group is over"
    join(session, "e2", 2 * S)


def test_another_epoch_ends_all_and_its_group_is_joined() -> None:
    session = running()
    hear(session, plan("e2"), S)
    assert orders(session) == [KILL, CHOOSE]
    assert session.plan.epoch == "e2"


def test_a_silent_worker_ends_all_and_is_waited_for_longer() -> None:
    session = running()
    session.handle_timer(20 * S)
    assert (session.state, orders(session)) == (JOINING, [KILL])
    session.handle_timer(319 * S)
    assert session.state == JOINING
    session.handle_timer(320 * S)
    assert session.end_reason == UNAVAILABLE_TEXT


def test_a_worker_that_leaves_ends_the_launcher() -> None:
    session = running()
    hear(session, Exit("e1", "the worker has ended"))
    assert (session.state, session.end_reason) == (ENDED, "the worker has ended")
    assert orders(session) == [KILL]


def test_a_goodbye_that_comes_after_the_agents_ended_still_counts() -> None:
    session = running()
    session.agent_ended(0, "exit code 0", S)
    hear(session, Exit("e1", "the worker has ended"), S)
    assert session.state == ENDED


def test_nonsense_of_a_worker_is_the_reason_if_it_lasts() -> None:
    session = LauncherSession(0)
    session.receive([b"nonsense"], 0)
    hear(session, Heartbeat("e1"))
    session.handle_timer(60 * S)
    assert session.end_reason == "unexpected Heartbeat from the worker"
