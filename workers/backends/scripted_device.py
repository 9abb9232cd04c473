"""Devices of the scripted backend that behave as badly as real ones, for tests without an NPU.

MINDBUS_SCRIPTED_DEVICES names a directory. `device<id>.json` in it says how that device behaves:

    {"release_ms": 3000}            busy for so long after its holder has died
    {"state": "wedged"}             busy for ever
    {"state": "broken"}             cannot be opened at all
    {"opens_as": ["CPU", 7]}        the process lands on another device than it asked for

Without the variable, or the file, every device opens. Servables share a device, so a holder that
lives does not make it busy; one that has died does, until it is released. `device<id>.holders` is
the state: the process ids, and since when each has been known to be dead. Times are monotonic.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from workers.backends.base import BackendError, DeviceReport

DIRECTORY = "MINDBUS_SCRIPTED_DEVICES"


def open_device(target: str, device_id: int) -> DeviceReport:
    """Hold a scripted device until this process dies. Raises BackendError as its script says."""
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        return DeviceReport(target, device_id)
    script = _read(Path(directory) / f"device{device_id}.json")
    name = f"device {target} {device_id}"
    if script.get("state") == "broken":
        raise BackendError(f"{name} cannot be opened: no such device")
    if script.get("state") == "wedged":
        raise BackendError(f"{name} cannot be opened: Resource_Busy (EL0005), it is wedged")
    _take(Path(directory) / f"device{device_id}.holders", script.get("release_ms", 0), name)
    found = DeviceReport(*script.get("opens_as", (target, device_id)))
    if found != (target, device_id):
        raise BackendError(f"{name} was asked for, but the process is on {found.target} {found.id}")
    return found


def _take(path: Path, release_ms: int, name: str) -> None:
    """Become a holder. Raises BackendError while one that has died is not released."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        now_ms = time.monotonic_ns() // 1_000_000
        dead_ms = {
            pid: None if _lives(pid) else (since_ms or now_ms)
            for pid, since_ms in json.loads(file.read() or "{}").items()
        }
        held = {
            pid: since_ms
            for pid, since_ms in dead_ms.items()
            if since_ms is None or now_ms < since_ms + release_ms
        }
        busy = [pid for pid, since_ms in held.items() if since_ms is not None]
        if not busy:
            held[str(os.getpid())] = None
        file.seek(0)
        file.truncate()
        file.write(json.dumps(held))
    if busy:
        raise BackendError(
            f"{name} cannot be opened: Resource_Busy (EL0005), held by process {', '.join(busy)}"
        )


def _lives(pid: str) -> bool:
    """Whether the process runs; one that waits to be reaped holds nothing any more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return not stat.rpartition(") ")[2].startswith("Z")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    script: dict[str, Any] = json.loads(path.read_text())
    return script
