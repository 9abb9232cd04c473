"""`make sim`: many seeds of the simulator on all cores, `python -m tests.sim [SEEDS] [FIRST]`.

Prints how far it is, each seed that fails with its reason, and the faults that the worlds met. The
exit code is 1 if one failed. A seed that fails is replayed by `python -m tests.sim 1 SEED`.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter

from tests.sim.seeds import CHUNK, run_chunk

SEEDS_DEFAULT = 10_000


def main() -> int:
    """Entry of `python -m tests.sim`. Returns the exit code."""
    numbers = [int(argument) for argument in sys.argv[1:]]
    seeds, first = (numbers + [SEEDS_DEFAULT, 0][len(numbers) :])[:2]
    begin = time.monotonic()
    size = max(1, min(CHUNK, seeds // (4 * multiprocessing.cpu_count())))
    chunks = [
        (start, min(size, first + seeds - start)) for start in range(first, first + seeds, size)
    ]
    failures: list[str] = []
    totals: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool() as pool:
        outcomes = [pool.apply_async(run_chunk, chunk) for chunk in chunks]
        for done, outcome in enumerate(outcomes, start=1):
            failed, counted = outcome.get()
            for text in failed:
                print(f"FAILED {text}", flush=True)
            failures += failed
            totals.update(counted)
            print(f"\r{done * 100 // len(chunks)} %", end="", flush=True)
    met = ", ".join(f"{name} {count}" for name, count in sorted(totals.items()))
    print(f"\r{seeds} seeds in {time.monotonic() - begin:.0f} s, {len(failures)} failed; {met}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
