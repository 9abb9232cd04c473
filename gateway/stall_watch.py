"""Finds out that a client takes nothing of what is written for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class StallWatch:
    """Looks at the transport of one connection now and then, while it is told to.

    stall_s: how long the client may take nothing. give_up: is called then.
    """

    def __init__(self, stall_s: float, give_up: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stall_s = stall_s
        self._give_up = give_up
        self._unsent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """Watch, if that is not done already."""
        if self._timer is None:
            self._unsent_bytes = transport.get_write_buffer_size()
            self._timer = self._loop.call_later(self._stall_s, self._check, transport)

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, transport: asyncio.Transport) -> None:
        self._timer = None
        if transport.get_write_buffer_size() == self._unsent_bytes:
            self._give_up()
        else:
            self.begin(transport)
