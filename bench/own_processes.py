"""Which process of a MindBus server is what, as its own status says."""

from __future__ import annotations

import json
import subprocess
import sys

from bench import machine
from bench.mindbus_server import ROOT
from bench.processes import Running

STATUS_SECONDS_MAX = 20


def pids_by_kind(running: Running) -> dict[str, list[int]]:
    """Process ids of `gateway`, `broker`, `worker`; `server` is the process that was started.

    A server of one process has no other kinds.
    """
    kinds: dict[str, list[int]] = {"server": [running.pid]}
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "mindbus",
            "status",
            "--json",
            "--run-directory",
            str(running.run_directory),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=STATUS_SECONDS_MAX,
        check=False,
    )
    if ended.returncode:  # in-process: there is nobody to ask
        return kinds
    for slot in json.loads(ended.stdout)["slots"]:
        if slot.get("pid"):
            kinds.setdefault(slot["kind"], []).append(slot["pid"])
    return kinds


def cpu_by_kind(kinds: dict[str, list[int]]) -> dict[str, float]:
    """Microseconds that the processes of each kind have run so far."""
    return {kind: sum(map(machine.cpu_us, pids)) for kind, pids in kinds.items()}
