"""What the machine is, how busy it is, and what processes use: read from /proc."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

#: Fields of /proc/<pid>/stat, counted from the one behind the name.
PARENT, SESSION = 1, 3

NS_PER_US = 1_000
KIB_PER_MIB = 1_024


class CpuTimes(NamedTuple):
    """Ticks of all cores since the machine started. stolen: taken by the host for others."""

    total: int
    idle: int
    stolen: int


class Usage(NamedTuple):
    """How the cores were used between two looks, as shares of their time."""

    busy: float
    stolen: float


def read_cpu_times() -> CpuTimes:
    """The first line of /proc/stat."""
    return parse_cpu_times(Path("/proc/stat").read_text())


def parse_cpu_times(text: str) -> CpuTimes:
    """Columns: user nice system idle iowait irq softirq steal. Pure."""
    ticks = [int(word) for word in text.split("\n", 1)[0].split()[1:9]]
    return CpuTimes(sum(ticks), ticks[3] + ticks[4], ticks[7])


def usage_between(before: CpuTimes, after: CpuTimes) -> Usage:
    """Shares of the time between two looks. Pure."""
    total = max(1, after.total - before.total)
    stolen = after.stolen - before.stolen
    return Usage((total - (after.idle - before.idle) - stolen) / total, stolen / total)


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def describe() -> dict[str, str]:
    """Processor, memory, kernel and Python of this machine; no name of it."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in info.splitlines() if "model name" in line]
    kib = int(Path("/proc/meminfo").read_text().split(None, 2)[1])
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{kib / KIB_PER_MIB / KIB_PER_MIB:.0f} GiB",
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
    }


# ---------------------------------------------------------------- processes


def cpu_us(pid: int) -> float:
    """Microseconds that all threads of a process have run; 0 if it is gone."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split(None, 1)[0])
        except (OSError, IndexError):
            continue  # the thread has ended
    return total / NS_PER_US


def family(root: int) -> list[int]:
    """A process, all that are below it, and those of its session whose parent is gone."""
    below: dict[int, list[int]] = {}
    found = [root]
    for pid, fields in _stats():
        below.setdefault(int(fields[PARENT]), []).append(pid)
        if int(fields[SESSION]) == root and pid != root:
            found.append(pid)
    for pid in found:  # which grows meanwhile
        found += [child for child in below.get(pid, ()) if child not in found]
    return found


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Process ids, and the fields of their `stat` behind the name in brackets."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it has ended
            yield int(entry.name), stat.rpartition(") ")[2].split()


def pss_mib(pids: Iterable[int]) -> float:
    """Memory of processes, with what they share counted once, in MiB."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / KIB_PER_MIB
