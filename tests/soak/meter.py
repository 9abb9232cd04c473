"""Memory, descriptors and threads of a server's processes over time, and how fast they grow."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import NamedTuple

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

#: A process younger than this is still loading, and tells nothing.
SETTLED_S = 40.0


class Sample(NamedTuple):
    """One look at one process."""

    at_s: float
    rss_mb: float
    descriptors: int
    threads: int


class Meter:
    """Looks at processes by a name that they keep; a new pid under a name begins anew."""

    def __init__(self) -> None:
        #: name -> pid -> samples
        self.samples: dict[tuple[str, int], list[Sample]] = {}
        self.shared_memory = [shared_memory_count()]

    def look(self, processes: dict[str, int]) -> None:
        """Take one sample of each; who ended meanwhile is left out."""
        self.shared_memory.append(shared_memory_count())
        for name, pid in processes.items():
            process = Path(f"/proc/{pid}")
            try:
                rss = int((process / "statm").read_text().split()[1]) * PAGE_BYTES / 1e6
                descriptors = len(list((process / "fd").iterdir()))
                threads = len(list((process / "task").iterdir()))
            except OSError:
                continue
            if not rss:
                continue  # it has ended, and nobody has looked yet
            sample = Sample(time.monotonic(), rss, descriptors, threads)
            self.samples.setdefault((name, pid), []).append(sample)

    def growth(self, name: str, pid: int) -> Sample | None:
        """What the last third has more than the second; None if there is too little to tell."""
        samples = self.samples.get((name, pid), [])
        third = len(samples) // 3
        if third < 5 or samples[-1].at_s - samples[0].at_s < SETTLED_S:
            return None
        middle, last = samples[third : 2 * third], samples[-third:]
        at_s, *rest = (
            statistics.median(getattr(each, field) for each in last)
            - statistics.median(getattr(each, field) for each in middle)
            for field in Sample._fields
        )
        return Sample(at_s, rest[0], int(rest[1]), int(rest[2]))


def shared_memory_count() -> int:
    """Names below /dev/shm that are ours."""
    return sum("mindbus" in each.name for each in Path("/dev/shm").iterdir())
