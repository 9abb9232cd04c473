"""What a gateway answers `GET /metrics` with: the whole server, whichever gateway is asked.

    broker      its answer to STATS: requests, queues, and what workers count
    supervisor  its status over the control socket: slots, restarts, rolls, and what the other
                gateways have told it
    gateway     its own numbers

A scrape waits `ASK_S` for the two at most. A part that does not answer in time is shown as it was
last, and `mindbus_up` says so; what was asked is not asked again before it has been answered.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.off_loop import off_loop
from mindbus.npu_smi import NpuSampler
from mindbus.readiness import why_servables_not_ready
from protocol.errors import RemoteProtocolError, RequestError
from telemetry.metrics import Snapshot, render
from workers.supervisor.json_lines import encode_line

#: How long a scrape waits for broker and supervisor: with what is left of 100 ms the text is made.
ASK_S = 0.05

#: The longest status that is read.
STATUS_BYTES_MAX = 8 * 1024 * 1024

#: A question that stays open for so long is given up, so that a new one can be asked.
ANSWER_S = 5.0

Answer = dict[str, Any]


class Source:
    """A part of the server that is asked, and its last answer."""

    def __init__(self, ask: Callable[[], Awaitable[Answer]]) -> None:
        self._ask = ask
        self._asking: asyncio.Task[None] | None = None
        self._asked_s = 0.0
        #: None before the first answer
        self.answer: Answer | None = None
        self._answered_s = time.monotonic()

    def begin(self) -> asyncio.Task[None] | None:
        """Ask, unless an earlier question is open yet: that one is what is waited for."""
        if self._asking is None or self._asking.done():
            self._asked_s = time.monotonic()
            self._asking = asyncio.create_task(self._run())
        return self._asking

    def age_s(self) -> float:
        """How old the answer is; 0 if it belongs to the latest question."""
        if self._answered_s >= self._asked_s and self.answer is not None:
            return 0.0
        return time.monotonic() - self._answered_s

    async def _run(self) -> None:
        try:
            self.answer = await asyncio.wait_for(self._ask(), ANSWER_S)
        except (OSError, TimeoutError, ValueError, KeyError, RequestError, RemoteProtocolError):
            return  # what there was is shown, and how old it is
        self._answered_s = time.monotonic()


class Scraper:
    """Answers the scrapes of one gateway.

    name: of the gateway's slot. read_stats: asks the broker. own_numbers: what this gateway counts.
    control_path: of the supervisor's socket; None = nobody supervises. npu_smi: a program that is
    asked for the usage of Ascend devices, beside the scrapes; None = nobody is.
    """

    def __init__(
        self,
        name: str,
        read_stats: Callable[[], Awaitable[Answer]],
        own_numbers: Callable[[], Mapping[str, Any]],
        control_path: str | None,
        npu_smi: str | None = None,
    ) -> None:
        self._npus: NpuSampler | None = None
        if npu_smi and control_path is not None:
            self._npus = NpuSampler(npu_smi, lambda: read_status(control_path))
        self._name = name
        self._own_numbers = own_numbers
        self._sources = {"broker": Source(read_stats)}
        if control_path is not None:
            self._sources["supervisor"] = Source(lambda: read_status(control_path))

    async def scrape(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and text. accept: the header of that name."""
        asking = [task for source in self._sources.values() if (task := source.begin())]
        await asyncio.wait(asking, timeout=ASK_S)
        broker = self._sources["broker"].answer
        supervisor = self._sources["supervisor"].answer if "supervisor" in self._sources else None
        gateways = {}
        not_ready: Mapping[str, str | None] = {}
        if supervisor is not None:
            gateways = _told_numbers(supervisor)
            supervisor = {**supervisor, "slots": [*map(_with_memory, supervisor["slots"])]}
            not_ready = why_servables_not_ready(supervisor, broker)
        gateways[self._name] = self._own_numbers()
        ages_s = {name: source.age_s() for name, source in self._sources.items()}
        devices = {} if self._npus is None else self._npus.describe()
        snapshot = Snapshot(broker, supervisor, gateways, ages_s, not_ready, devices)
        # A large server has thousands of lines: requests go on while they are written.
        return await off_loop(render, snapshot, accept)

    def close(self) -> None:
        """Measure no more."""
        if self._npus is not None:
            self._npus.close()


async def read_status(control_path: str) -> Answer:
    """The supervisor's status. Raises: OSError, ValueError or KeyError if there is none."""
    reader, writer = await asyncio.open_unix_connection(control_path, limit=STATUS_BYTES_MAX)
    try:
        writer.write(encode_line({"command": "status"}))
        status = json.loads(await reader.readline())["status"]
    finally:
        writer.close()
    if not isinstance(status, dict):
        raise ValueError("the supervisor's status is not a map")
    return status


def _told_numbers(supervisor: Answer) -> dict[str, Any]:
    """What the gateways have told the supervisor, by name."""
    return {slot["slot"]: slot["numbers"] for slot in supervisor["slots"] if slot.get("numbers")}


def _with_memory(slot: dict[str, Any]) -> dict[str, Any]:
    """A slot of the status with the resident bytes of its process, None if it is gone."""
    return {**slot, "resident_bytes": resident_bytes(slot["pid"])}


def resident_bytes(pid: int | None) -> int | None:
    """Resident memory of a process; None if there is none (or no /proc)."""
    if pid is None:
        return None
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None
