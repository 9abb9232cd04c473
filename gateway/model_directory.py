"""Keeps what the broker knows of servables at hand, so that a request need not ask for it."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.bus import Bus
from gateway.models import Models
from gateway.requests import failure_of_bus
from protocol import head as heads
from protocol import native
from protocol.errors import RemoteProtocolError, RequestError
from protocol.values import RequestSpec

#: Answers about readiness, metadata and statistics are at most so old: probes of any number ask
#: the broker ten times a second.
FRESH_S = 0.1

#: Names of models are looked up in what is at most so old, and asked for again beside that when it
#: is older than `RENEW_S`; a name that is not there is looked for in what is fresh.
NAMES_S = 10.0
RENEW_S = 1.0

#: Names and versions that are kept, with what they mean.
KEPT_MAX = 1024

#: Workers register with a new broker within this time, if there are any.
WORKERS_S = 10.0

_ASK = heads.pack(heads.Head(heads.STATS))


class ModelDirectory:
    """The broker's view of servables. Belongs to one event loop."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._models = Models({})
        self._stats: dict[str, Any] = {}
        self._specs: dict[tuple[str, str], RequestSpec] = {}
        self._asked_s = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    def kept(self, model: str, version: str) -> RequestSpec | None:
        """What `spec` would answer without asking anybody, None if it would ask."""
        kept = self._specs.get((model, version))
        if kept is None or self._loop.time() - self._asked_s >= RENEW_S:
            return None
        return kept

    async def spec(self, model: str, version: str, budget_ms: int = 0) -> tuple[RequestSpec, int]:
        """What to ask the bus for, and what is left of a budget (0 = there is none).

        A servable whose workers have not come back since this gateway began is waited for a while:
        nobody knows yet which method is its default one. Raises: RequestError.
        """
        begin_s = self._loop.time()
        wait_s = min(WORKERS_S, budget_ms / 1_000) if budget_ms else WORKERS_S
        while True:
            try:
                spec = await self._spec(model, version)
            except RequestError as error:
                waited_s = self._loop.time() - begin_s
                if error.reason != "no_worker" or waited_s >= WORKERS_S:
                    raise
                if waited_s >= wait_s:
                    text = f"the budget of {budget_ms} ms ran out: {error.message}"
                    raise RequestError("deadline_exceeded", text) from None
                await asyncio.sleep(FRESH_S)
                continue
            if budget_ms:
                budget_ms = max(1, budget_ms - int((self._loop.time() - begin_s) * 1_000))
            return spec, budget_ms

    async def _spec(self, model: str, version: str) -> RequestSpec:
        age_s = self._loop.time() - self._asked_s
        kept = self._specs.get((model, version))
        if kept is not None and age_s < NAMES_S:
            if age_s >= RENEW_S and self._asking is None:
                self._asking = self._loop.create_task(self._ask())
                self._asking.add_done_callback(_look_away)
            return kept
        try:
            models = await self.models()
        except RequestError:
            if kept is None:
                raise
            return kept  # a broker that is away comes back, and the request waits for it
        spec = models.spec(model, version)
        if len(self._specs) < KEPT_MAX:
            self._specs[model, version] = spec
        return spec

    async def models(self) -> Models:
        """Servables, versions, methods. Raises RequestError if the broker does not say."""
        await self._refresh()
        return self._models

    async def stats(self) -> dict[str, Any]:
        """The broker's answer to STATS. Raises RequestError if it does not say."""
        await self._refresh()
        return self._stats

    async def _refresh(self) -> None:
        if self._loop.time() - self._asked_s < FRESH_S:
            return
        if self._asking is None:
            self._asking = self._loop.create_task(self._ask())
        # Who is cancelled here must not take the answer away from the others.
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        asked_s = self._loop.time()
        try:
            reply, frames = await self._bus.request(_ASK, [])
            failure = failure_of_bus(reply, frames)
            if failure is not None:
                raise failure
            stats = native.unpack_meta(frames[0] if frames else b"")
            self._models = Models.of_stats(stats, self._models)
            self._stats = stats
            self._specs.clear()
            self._asked_s = asked_s
        except (RemoteProtocolError, KeyError, TypeError, ValueError) as error:
            raise RequestError("broker_lost", f"the broker's STATS are unclear: {error}") from None
        finally:
            self._asking = None


def _look_away(asking: asyncio.Task[None]) -> None:
    """Nobody waits for it: if it failed, the next one who asks will be told."""
    if not asking.cancelled():
        asking.exception()
