"""Copies of the sockets that doors listen with, for gateways that come later.

While a copy is here nobody is refused: who connects meanwhile waits for the next gateway.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path


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
        """Listen no more ourselves; what gateways have is theirs. A unix socket's file goes."""
        while self._fds:
            with socket.socket(fileno=self._fds.popitem()[1]) as listener:
                if listener.family == socket.AF_UNIX:
                    with contextlib.suppress(OSError):  # gone, or not ours to remove
                        Path(os.fsdecode(listener.getsockname())).unlink()
