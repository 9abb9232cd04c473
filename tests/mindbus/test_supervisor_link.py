"""The gateway's way to the supervisor, which is played here."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mindbus.supervisor_link import (
    ServerReadiness,
    SupervisorControl,
    SupervisorError,
    SupervisorLink,
)
from protocol.errors import RequestError
from tests.gateway.oip_fakes import WorkerBus, server

WAIT_S = 10


class Supervisor:
    """Answers each line with what `answers` has for its command."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {
            "state": "serving",
            "slots": [{"servable": "add"}],
            "doors": {"rest": "x"},
            "roll": None,
        }
        self.answers: dict[str, Any] = {}

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = json.loads(await reader.readline())
        self.asked.append(command)
        answer = self.answers.get(command["command"], {"ok": True, "status": self.status})
        if answer is not None:
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()


Scene = Callable[[Supervisor, SupervisorLink], Awaitable[None]]


def play(scene: Scene) -> None:
    async def run(path: Path) -> None:
        supervisor = Supervisor()
        async with await asyncio.start_unix_server(supervisor.talk, path):
            await asyncio.wait_for(scene(supervisor, SupervisorLink(path)), WAIT_S)

    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        asyncio.run(run(Path(directory, "control")))


def test_many_who_ask_for_the_status_at_once_are_one_question() -> None:
    async def scene(supervisor: Supervisor, link: SupervisorLink) -> None:
        await asyncio.gather(*(link.status() for _ in range(20)))
        assert len(supervisor.asked) == 1

    play(scene)


def test_a_supervisor_that_hangs_up_or_is_not_there_is_an_error() -> None:
    async def scene(supervisor: Supervisor, link: SupervisorLink) -> None:
        supervisor.answers["status"] = None
        with pytest.raises(SupervisorError, match="does not answer: it closed the connection"):
            await link.status()
        with pytest.raises(SupervisorError, match="does not answer"):
            await SupervisorLink(Path("/tmp/nobody/control")).status()

    play(scene)


def test_a_server_is_ready_by_the_rules_of_mindbus_ready() -> None:
    async def scene(supervisor: Supervisor, link: SupervisorLink) -> None:
        bus = WorkerBus()
        readiness = ServerReadiness(link, server(bus).directory)
        assert await readiness.why_not_ready() is None

    play(scene)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"state": "stopping"}, "the server is stopping"),
        ({"slots": []}, "no servable is there"),
        ({"slots": [{"servable": "lost"}]}, "lost has no worker"),
        ({"doors": {}}, "no door is open"),
    ],
)
def test_what_the_supervisor_knows_makes_a_server_not_ready(
    status: dict[str, Any], why: str
) -> None:
    async def scene(supervisor: Supervisor, link: SupervisorLink) -> None:
        supervisor.status |= status
        readiness = ServerReadiness(link, server(WorkerBus()).directory)
        assert await readiness.why_not_ready() == why

    play(scene)


def test_without_a_broker_or_a_supervisor_a_server_is_not_ready() -> None:
    async def scene(supervisor: Supervisor, link: SupervisorLink) -> None:
        bus = WorkerBus()
        bus.refusal = RequestError("broker_lost", "gone")
        readiness = ServerReadiness(link, server(bus).directory)
        assert await readiness.why_not_ready() == "the broker does not answer"
        supervisor.answers["status"] = None
        link = SupervisorLink(Path("/tmp/nobody/control"))
        readiness = ServerReadiness(link, server(WorkerBus()).directory)
        assert "does not answer" in str(await readiness.why_not_ready())

    play(scene)


def test_a_load_is_a_reload_that_is_waited_for() -> None:
    async def scene(supervisor: Supervisor, link: SupervisorLink) -> None:
        supervisor.answers["reload"] = {"ok": True, "plan": []}
        supervisor.status["roll"] = {"is_over": False, "failure": None}
        loading = asyncio.create_task(SupervisorControl(link).load("add", 3))
        while len(supervisor.asked) < 3:
            await asyncio.sleep(0.01)
        assert not loading.done()
        supervisor.status["roll"] = {"is_over": True, "failure": None}
        await loading
        assert supervisor.asked[0] == {"command": "reload", "servable": "add", "version": 3}

    play(scene)


@pytest.mark.parametrize(
    ("answer", "failure", "reason"),
    [
        ({"ok": False, "error": "another roll is under way"}, None, "invalid_inputs"),
        (None, None, "broker_lost"),
        ({"ok": True, "plan": []}, "slot add/3 failed", "failed"),
    ],
)
def test_a_load_that_fails_says_why(answer: Any, failure: str | None, reason: str) -> None:
    async def scene(supervisor: Supervisor, link: SupervisorLink) -> None:
        supervisor.answers["reload"] = answer
        supervisor.status["roll"] = {"is_over": True, "failure": failure}
        with pytest.raises(RequestError, match="load of add: ") as raised:
            await SupervisorControl(link).load("add", 0)
        assert raised.value.reason == reason

    play(scene)


def test_a_version_that_runs_already_is_loaded() -> None:
    async def scene(supervisor: Supervisor, link: SupervisorLink) -> None:
        error = "version 3 of add runs already"
        supervisor.answers["reload"] = {"ok": False, "error": error}
        await SupervisorControl(link).load("add", 3)

    play(scene)
