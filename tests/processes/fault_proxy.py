"""A network between two processes that can be made bad: cut, slow, jittery, narrow, in crumbs.

with FaultProxy("ipc:///tmp/x/near", "ipc:///tmp/x/far") as network:
    network.cut()           # connections stay, nothing moves; what was sent meanwhile comes later
    network.heal()
    network.weather = Weather(delay_ms=20, jitter_ms=10, slice_bytes=7)
    network.reset()         # connections end at once

Addresses are those of ZeroMQ, `ipc://path` or `tcp://host:port`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from dataclasses import dataclass
from types import TracebackType

READ_BYTES = 1 << 16
START_DEADLINE_S = 20.0

#: The two directions: from who connects, and back to it.
FORTH, BACK = "forth", "back"


@dataclass(frozen=True)
class Weather:
    """What every piece of a stream suffers. slice_bytes and bytes_per_s: 0 is no limit."""

    delay_ms: float = 0
    jitter_ms: float = 0
    slice_bytes: int = 0
    bytes_per_s: int = 0


class FaultProxy:
    """Forwards each connection to `listen` to a connection of its own to `target`."""

    def __init__(self, listen: str, target: str, seed: int = 1) -> None:
        """Listens when it returns. seed: of the jitter."""
        self.weather = Weather()
        #: connections that came so far, and bytes that passed in each direction
        self.connections = 0
        self.passed_bytes = {FORTH: 0, BACK: 0}
        self.address, self._target = listen, target
        self._random = random.Random(seed)
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(START_DEADLINE_S), "the proxy did not start"

    # ------------------------------------------------------------ faults

    def cut(self, *directions: str) -> None:
        """Let nothing pass (in these directions; default both). Connections are kept."""
        self._call(lambda: [self._open[each].clear() for each in directions or (FORTH, BACK)])

    def heal(self) -> None:
        """Let everything pass again; what was held back passes now."""
        self._call(lambda: [gate.set() for gate in self._open.values()])

    def reset(self) -> None:
        """End every connection at once; new ones are served."""
        self._call(lambda: [writer.transport.abort() for writer in self._writers])

    # ------------------------------------------------------------ the thread

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every connection and listen no more."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _call(self, change: object) -> None:
        done = threading.Event()

        def run() -> None:
            change()  # type: ignore[operator]
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(START_DEADLINE_S), "the proxy does not answer"

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._open = {FORTH: asyncio.Event(), BACK: asyncio.Event()}
        for gate in self._open.values():
            gate.set()
        kind, place = self.address.split("://")
        if kind == "ipc":
            server = await asyncio.start_unix_server(self._accept, place)
        else:
            host, port = place.rsplit(":", 1)
            server = await asyncio.start_server(self._accept, host, int(port))
        self._started.set()
        await self._stop.wait()
        server.close()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        self.connections += 1
        kind, place = self._target.split("://")
        try:
            if kind == "ipc":
                far, to_far = await asyncio.open_unix_connection(place)
            else:
                host, port = place.rsplit(":", 1)
                far, to_far = await asyncio.open_connection(host, int(port))
        except OSError:
            to_near.transport.abort()
            return
        for pump in (self._pump(near, to_far, FORTH), self._pump(far, to_near, BACK)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: str
    ) -> None:
        self._writers.add(sink)
        try:
            with contextlib.suppress(OSError):
                while piece := await source.read(self.weather.slice_bytes or READ_BYTES):
                    await self._suffer(len(piece), direction)
                    sink.write(piece)
                    await sink.drain()
                    self.passed_bytes[direction] += len(piece)
        finally:
            self._writers.discard(sink)
            sink.transport.abort()

    async def _suffer(self, size: int, direction: str) -> None:
        weather = self.weather
        pause_s = (weather.delay_ms + self._random.uniform(0, weather.jitter_ms)) / 1_000
        if weather.bytes_per_s:
            pause_s += size / weather.bytes_per_s
        if pause_s:
            await asyncio.sleep(pause_s)
        await self._open[direction].wait()
