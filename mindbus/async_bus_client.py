"""An asyncio client of the bus, for producers that want neither gRPC nor HTTP in between.

    import asyncio
    from mindbus.async_bus_client import AsyncBusClient

    async def main():
        async with AsyncBusClient("ipc:///run/mindbus/producers.ipc") as client:
            results = await client.infer("add", "add_common", [{"x1": x1, "x2": x2}])
            results[0]["y"]                               # numpy.ndarray

            calls = [client.infer("add", "add_common", {"x1": a, "x2": b}) for a, b in pairs]
            answers = await asyncio.gather(*calls)        # many requests in flight at once

            await client.send("add", "add_common", {"x1": x1, "x2": x2})  # without an answer

Values, results and failures are those of `mindbus.bus_client`; docs/clients.md has it all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from gateway.remote_bus import RemoteBus
from mindbus.bus_calls import (
    SETTINGS,
    TIMEOUT_DEFAULT,
    Instances,
    Options,
    decode_results,
    decode_sent,
    decode_stats,
    encode_call,
    encode_stats,
)
from mindbus.bus_errors import BusError
from mindbus.retry import Attempts, Retry
from protocol.native import Buffer


class AsyncBusClient:
    """A connection to a broker, made, used and closed on one running event loop.

    address: the broker's address for producers, `ipc://path` or `tcp://host:port`. The broker need
    not be there yet: a call then waits up to two seconds for it. After a break the client connects
    again by itself. Works under asyncio's own loop and under uvloop.
    timeout: seconds that a call may take where it does not say so itself, up to 24 hours.
    retry: make calls again that failed for a reason which may pass, within their timeout; None, as
    by default, for no call to be made twice.

    Not for use across `fork`. Raises: ValueError if the address is not one; RuntimeError where no
    event loop runs.
    """

    def __init__(
        self, address: str, *, timeout: float = TIMEOUT_DEFAULT, retry: Retry | None = None
    ) -> None:
        if not isinstance(address, str):
            raise TypeError(f"address must be a str, not {address!r}")
        encode_stats(timeout)  # an impossible timeout is an error now, not at the first call
        self.address = address
        self.timeout = timeout
        self.retry = retry
        self._dice = random.Random()  # noqa: S311 - for pauses
        self._bus = RemoteBus(address, SETTINGS)
        self._is_closed = False

    async def infer(
        self,
        servable: str,
        method: str,
        instances: Instances,
        version: int = 0,
        timeout: float | None = None,
        return_errors: bool = False,
        priority: str = "normal",
        key: str | bytes | None = None,
    ) -> list[dict[str, Any]]:
        """Compute a method over instances and wait for the results.

        instances: a dict from input name to value, or a list of such dicts; up to 512 MiB.
        version: of the servable; 0 stands for the latest. timeout: seconds.
        return_errors: put a BusError into the place of an instance that failed, instead of raising.
        priority: `high`, `normal` or `low`, among requests that wait. key: an idempotency key, 1 to
        64 bytes that no other call uses; who calls again with it gets the first call's answer.
        Returns: one dict from output name to value per instance, in the same order.
        Raises: BusError of a class that says what to do (see `mindbus.bus_errors`), its `results`
        holding the outcome of each instance if only some failed; TypeError or ValueError for
        arguments that cannot be sent; RuntimeError after `close`. Cancelling the awaiting task
        takes the request back from the server.
        """
        timeout = self.timeout if timeout is None else timeout
        options = Options(priority, key)
        head, frames = encode_call(servable, method, instances, version, timeout, options)
        return await self._call(head, frames, lambda h, f: decode_results(h, f, return_errors))

    async def send(
        self,
        servable: str,
        method: str,
        instances: Instances,
        version: int = 0,
        timeout: float | None = None,
        priority: str = "normal",
    ) -> None:
        """Send a request whose answer nobody waits for; the server computes it within the timeout.

        Returns once it is on its way. What becomes of it is not told: whether it was refused,
        failed or computed is in the server's counters only.
        Raises: Unavailable if there is no connection; what `infer` raises of its arguments.
        """
        timeout = self.timeout if timeout is None else timeout
        options = Options(priority, is_one_way=True)
        call = encode_call(servable, method, instances, version, timeout, options)
        await self._call(*call, decode_sent)

    async def stats(self, timeout: float | None = None) -> dict[str, Any]:
        """What the broker tells about its services, workers and counters.

        Raises: BusError if it cannot be asked; RuntimeError after `close`.
        """
        head = encode_stats(self.timeout if timeout is None else timeout)
        return decode_stats(*await self._request(head, []))

    async def close(self) -> None:
        """End the connection; calls that are still running fail with Unavailable. Idempotent."""
        self._is_closed = True
        await self._bus.close()

    async def _call(
        self, head: bytes, frames: list[Buffer], decode: Callable[[bytes, Sequence[Buffer]], Any]
    ) -> Any:
        """The result of a request, after as many attempts as it takes and may have."""
        if self.retry is None:
            return decode(*await self._request(head, frames))
        attempts = Attempts(self.retry, head, time.monotonic_ns(), self._dice)
        while True:
            try:
                return decode(*await self._request(attempts.head, frames))
            except BusError as error:
                pause_ns = attempts.pause_ns(error, time.monotonic_ns())
                if pause_ns is None or self._is_closed:
                    raise
            await asyncio.sleep(pause_ns / 1e9)
            attempts.begin_next(time.monotonic_ns())

    async def _request(self, head: bytes, frames: list[Buffer]) -> tuple[bytes, Sequence[Buffer]]:
        if self._is_closed:
            raise RuntimeError(f"the client of {self.address} is closed")
        return await self._bus.request(head, frames)

    async def __aenter__(self) -> AsyncBusClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
