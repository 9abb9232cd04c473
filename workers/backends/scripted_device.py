"""Devices of the scripted backend that behave as badly as real ones, for tests without an NPU.

MINDBUS_SCRIPTED_DEVICES names a directory. `device<id>.json` in it says how that device behaves:

    {"release_ms": 3000}            busy for so long after its holder has died
    {"state": "wedged"}             busy for ever
    {"state": "broken"}             cannot be opened at all
    {"opens_as": ["CPU", 7]}        the process lands on another device than it asked for

Without the variable, or the file, every device opens. `device<id>.holder` is the state: who holds
it, and since when it has been known that the holder is dead. Times are monotonic.
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
    _take(Path(directory) / f"device{device_id}.holder", script.get("release_ms", 0), name)
    found = DeviceReport(*script.get("opens_as", (target, device_id)))
    if found != (target, device_id):
        raise BackendError(f"{name} was asked for, but the process is on {found.target} {found.id}")
    return found


def _take(path: Path, release_ms: int, name: str) -> None:
    """Become the holder. Raises BackendError while another one lives or has just died."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        state = json.loads(file.read() or "{}")
        pid, now_ms = state.get("pid"), time.monotonic_ns() // 1_000_000
        if pid is not None and pid != os.getpid():
            is_alive = Path(f"/proc/{pid}").exists()
            dead_ms = None if is_alive else state.get("dead_ms", now_ms)
            if dead_ms is None or now_ms < dead_ms + release_ms:
                _write(file, {"pid": pid} if is_alive else {"pid": pid, "dead_ms": dead_ms})
                raise BackendError(
                    f"{name} cannot be opened: Resource_Busy (EL0005), held by process {pid}"
                )
        _write(file, {"pid": os.getpid()})


def _write(file: Any, state: dict[str, Any]) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(state))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    script: dict[str, Any] = json.loads(path.read_text())
    return script
