"""Copies of the sockets that doors listen with, for gateways that come later.

While a copy is here nobody is refused: who connects meanwhile waits for the next gateway.
"""

from __future__ import annotations

import os


class Listeners:
    """One descriptor per kind of door."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def keep(self, kind: str | None, fd: int) -> None:
        """Keep a descriptor, ours from now on; one more of a kind, or of none, is closed."""
        if kind is None or kind in self._fds:
            os.close(fd)
        else:
            self._fds[kind] = fd

    def of_command(self, command: str) -> int | None:
        """What goes with a command `open_<kind>`."""
        return self._fds.get(command.removeprefix("open_"))

    def close(self) -> None:
        """Listen no more ourselves; what gateways have is theirs."""
        while self._fds:
            os.close(self._fds.popitem()[1])
