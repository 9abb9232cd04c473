"""Waiting for something that another process does, always with a deadline."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: The machine may be busy: what takes longer than this is stuck.
DEADLINE_S = 20.0

_PAUSE_S = 0.01


def wait_until(probe: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """Ask until the answer is true, and return it. Raises TimeoutError with the last answer."""
    until_s = time.monotonic() + deadline_s
    never = threading.Event()
    while not (answer := probe()):
        if time.monotonic() > until_s:
            raise TimeoutError(f"{answer!r} after {deadline_s} s")
        never.wait(_PAUSE_S)
    return answer


def wait_reader(fifo: Path) -> int:
    """Wait until somebody reads from a named pipe; a descriptor to write into it with."""

    def opened() -> int | None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None

    return wait_until(opened)


def wait_gone(pid: int, deadline_s: float = DEADLINE_S) -> None:
    """Wait until a process (of anybody) has ended. Raises TimeoutError."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([pidfd], [], [], deadline_s)[0]:
            raise TimeoutError(f"process {pid} still runs after {deadline_s} s")
    finally:
        os.close(pidfd)


def descendants(pid: int) -> set[int]:
    """Every process below this one, from /proc."""
    parents: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            # It ended meanwhile.
            continue
        if state != "Z":
            parents[int(path.name)] = int(parent)
    found: set[int] = set()
    border = {pid}
    while border:
        border = {child for child, parent in parents.items() if parent in border} - found
        found |= border
    return found
