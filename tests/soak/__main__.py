"""`make soak MINUTES=…`: a real server, clients on every door, and random faults, for a long time.

    python -m tests.soak [--minutes 5] [--seed N] [--mode embedded|standalone|both]

Every answer is checked by its value; at the end the broker's books must balance, nothing may have
grown, and no process may be left. Prints what happened, with the seed. The exit code is 1 if
anything was wrong. The seed gives the same faults; the machine decides what they meet.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes.probe import SERVABLES
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until
from tests.soak.clients import EXCUSED, RIGHT, TAKEN_BACK, Crowd
from tests.soak.faults import VERSIONS, Faults
from tests.soak.meter import Meter

#: What the longest-lived processes may grow by, from the middle of a run to its end.
RSS_GROWTH_MB_MAX = 15.0
DESCRIPTORS_GROWTH_MAX = 10
THREADS_GROWTH_MAX = 4

RECOVERY_S = 60.0

#: Faults so long before the slowest request are shown.
SHOWN_S = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m tests.soak`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--mode", choices=["embedded", "standalone", "both"], default="both")
    flags = parser.parse_args(arguments)
    modes = ["embedded", "standalone"] if flags.mode == "both" else [flags.mode]
    wrong = []
    for mode in modes:
        wrong += soak(mode, flags.seed, 60 * flags.minutes / len(modes))
    print(f"soak: seed {flags.seed}: {'FAILED' if wrong else 'ok'}", flush=True)
    return 1 if wrong else 0


def soak(mode: str, seed: int, seconds: float) -> list[str]:
    """One server in one mode. Prints a summary; returns what was wrong."""
    flags = ("--servable", "probe", "--backend", "numpy", "--device-ids", "0,1", "--mode", mode)
    with versions_of_probe() as directory, ServerProcess(directory, *flags) as server:
        crowd, faults, meter = Crowd(server, seed), Faults(server, seed), Meter()
        dice = random.Random(seed + 1)
        end_s = time.monotonic() + seconds
        look_s = max(seconds / 200, 0.2)
        wrong: list[str] = []
        while (now_s := time.monotonic()) < end_s and server.process.poll() is None:
            pause_s = min(dice.uniform(0.2, 3), end_s - now_s)
            while pause_s > 0 and not threading.Event().wait(min(look_s, pause_s)):
                meter.look(processes(server))
                pause_s -= look_s
            faults.deal()
        if server.process.poll() is None:
            wrong += recover(server, faults, crowd, meter)
        crowd.stop()
        if server.process.poll() is None:
            wrong += settle(server)
        wrong += crowd.history.wrong + grown(meter)
        code = server.stop()
        if code:
            wrong.append(f"exit code {code}: {server.stderr[-20:]}")
    tell(mode, seed, crowd, faults, meter, wrong)
    return wrong


@contextmanager
def versions_of_probe() -> Iterator[Path]:
    """A directory with the servable `probe` in two versions that answer alike."""
    with tempfile.TemporaryDirectory() as root:
        probe = Path(root, "probe")
        shutil.copytree(SERVABLES / "probe", probe)
        for version in VERSIONS[1:]:
            shutil.copytree(probe / str(VERSIONS[0]), probe / str(version))
        yield Path(root)


def processes(server: ServerProcess) -> dict[str, int]:
    """The processes by the names that they keep."""
    named = {slot["slot"]: slot["pid"] for slot in server.status()["slots"] if slot["pid"]}
    return {"supervisor": server.process.pid} | named


def recover(server: ServerProcess, faults: Faults, crowd: Crowd, meter: Meter) -> list[str]:
    """The faults are over: every slot must be READY again, and every answer right."""

    def is_well() -> bool:
        faults.reset_failed()
        meter.look(processes(server))
        return all(slot["state"] == "READY" for slot in server.status()["slots"])

    try:
        wait_until(is_well, RECOVERY_S)
        before = crowd.history.count(RIGHT)
        wait_until(lambda: crowd.history.count(RIGHT) >= before + 100, RECOVERY_S)
    except TimeoutError as error:
        return [f"not well {RECOVERY_S:g} s after the last fault: {error} {server.status()}"]
    return []


def settle(server: ServerProcess) -> list[str]:
    """Nobody asks any more: nothing may be held, and what was accepted must have ended."""
    try:
        server.check_books()
    except AssertionError as error:
        return [str(error)]
    return []


def grown(meter: Meter) -> list[str]:
    """Processes that grew by more than they may, and shared memory that was left."""
    wrong = []
    for name, pid in meter.samples:
        growth = meter.growth(name, pid)
        if growth is not None and (
            growth.rss_mb > RSS_GROWTH_MB_MAX
            or growth.descriptors > DESCRIPTORS_GROWTH_MAX
            or growth.threads > THREADS_GROWTH_MAX
        ):
            wrong.append(f"{name} ({pid}) grew: {growth}")
    if meter.shared_memory[-1] > meter.shared_memory[0]:
        wrong.append(f"/dev/shm: {meter.shared_memory[0]} names became {meter.shared_memory[-1]}")
    return wrong


def tell(
    mode: str, seed: int, crowd: Crowd, faults: Faults, meter: Meter, wrong: list[str]
) -> None:
    """Print what happened."""
    history = crowd.history
    print(f"soak {mode}, seed {seed}")
    print("  faults: " + ", ".join(f"{name} {n}" for name, n in sorted(faults.counts.items())))
    for outcome in (RIGHT, EXCUSED, TAKEN_BACK):
        print(f"  {outcome}: {history.count(outcome)}")
    took_s, ended_s, what = history.slowest
    around = [
        f"{kind} {at_s - ended_s + took_s:+.1f} s"
        for at_s, kind in faults.log
        if ended_s - took_s - SHOWN_S < at_s < ended_s
    ]
    print(f"  slowest: {took_s:.1f} s: {what}; faults around its begin: {', '.join(around)}")
    for story, count in history.excuses.most_common(12):
        print(f"    {count} x {story}")
    for name, pid in meter.samples:
        growth = meter.growth(name, pid)
        if growth is not None:
            last = meter.samples[name, pid][-1]
            print(
                f"  {name} ({pid}): {last.rss_mb:.0f} MB {growth.rss_mb:+.1f}, "
                f"descriptors {last.descriptors} {growth.descriptors:+d}, "
                f"threads {last.threads} {growth.threads:+d}"
            )
    for text in wrong:
        print(f"  WRONG {text}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
