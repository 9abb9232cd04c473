"""The gateway's way to the supervisor: readiness of the whole server, and rolls for clients.

It asks over the control socket in the run directory, as `mindbus ready` and `mindbus reload` do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.bus import Bus
from gateway.model_directory import FRESH_S, ModelDirectory
from gateway.oip_server import OipServer
from gateway.oip_settings import SettingsControl
from gateway.readiness import BrokerReadiness, Readiness
from mindbus.own_version import version
from mindbus.readiness import why_not_ready
from protocol.errors import RequestError
from telemetry.wall_clock import wall_ms
from workers.supervisor.json_lines import LINE_BYTES_MAX, LineError, LineReader, encode_line

#: A supervisor answers within milliseconds; one that does not is stopped or ill.
ANSWER_S = 2.0

#: A roll on behalf of a client is looked after so often.
FOLLOW_S = 0.1


class SupervisorError(Exception):
    """The supervisor does not answer, or refuses; the text says which. is_refusal: it refuses."""

    def __init__(self, text: str, *, is_refusal: bool = False) -> None:
        super().__init__(text)
        self.is_refusal = is_refusal


class SupervisorLink:
    """Asks the supervisor, one connection per question. path: of its control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._status: dict[str, Any] = {}
        self._asked_s = float("-inf")
        self._lock = asyncio.Lock()

    async def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one command. Raises SupervisorError."""
        try:
            answer = await asyncio.wait_for(self._ask(command), ANSWER_S)
        except (OSError, TimeoutError, LineError) as error:
            raise SupervisorError(f"the supervisor does not answer: {error or 'in time'}") from None
        if not answer.get("ok"):
            raise SupervisorError(str(answer.get("error")), is_refusal=True)
        return answer

    async def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE_BYTES_MAX)
        try:
            writer.write(encode_line(command))
            lines = LineReader()
            while chunk := await reader.read(65_536):
                answers = lines.receive(chunk)
                if answers:
                    return answers[0]
            raise ConnectionError("it closed the connection")
        finally:
            writer.close()

    async def status(self) -> dict[str, Any]:
        """What the supervisor knows, at most `FRESH_S` old. Raises SupervisorError."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            if loop.time() - self._asked_s >= FRESH_S:
                asked_s = loop.time()
                self._status = (await self.ask({"command": "status"}))["status"]
                self._asked_s = asked_s
            return self._status


class ServerReadiness:
    """`gateway.readiness.Readiness` of a whole server, with the rules of `mindbus ready`."""

    def __init__(self, link: SupervisorLink, directory: ModelDirectory) -> None:
        self._link = link
        self._directory = directory

    async def why_not_ready(self) -> str | None:
        """None if the server is ready."""
        try:
            status = await self._link.status()
        except SupervisorError as error:
            return str(error)
        try:
            stats: Mapping[str, Any] | None = await self._directory.stats()
        except RequestError:
            stats = None
        return why_not_ready(status, stats)


class SupervisorControl:
    """`gateway.oip_server.ModelControl`: a load is a reload of the supervisor's."""

    def __init__(self, link: SupervisorLink) -> None:
        self._link = link

    async def load(self, servable: str, version: int) -> None:
        """Take a servable to a version, 0 = the latest; back when it is. Raises RequestError."""
        try:
            await self._link.ask({"command": "reload", "servable": servable, "version": version})
        except SupervisorError as error:
            if error.is_refusal and "runs already" in str(error):
                return  # that is what was asked for
            reason = "invalid_inputs" if error.is_refusal else "broker_lost"
            raise RequestError(reason, f"load of {servable}: {error}") from None
        try:
            failure = await self._follow()
        except SupervisorError as error:
            raise RequestError("broker_lost", f"load of {servable}: {error}") from None
        if failure is not None:
            raise RequestError("failed", f"load of {servable}: {failure}")

    async def _follow(self) -> str | None:
        """Wait for the end of the roll; why it failed, None if it did not."""
        while True:
            roll = (await self._link.ask({"command": "status"}))["status"]["roll"]
            if roll["is_over"]:
                failure: str | None = roll["failure"]
                return failure
            await asyncio.sleep(FOLLOW_S)


def make_oip_server(
    bus: Bus,
    link: SupervisorLink | None,
    settings: SettingsControl,
    document: Mapping[str, Any],
) -> OipServer:
    """What the doors say of this server in the Open Inference Protocol."""
    directory = ModelDirectory(bus)
    readiness: Readiness = BrokerReadiness(directory)
    control = None
    if link is not None:
        readiness = ServerReadiness(link, directory)
        control = SupervisorControl(link) if document.get("model_control") else None
    return OipServer(directory, readiness, version(), wall_ms, settings, control)
