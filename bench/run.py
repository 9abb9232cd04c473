"""`python -m bench.run`: measures the workloads and writes docs/performance/.

    python -m bench.run --workloads w1,w2 --rounds 5 --seconds 2 --peers triton,mosec

Results go to docs/performance/results.json: a run of some workloads leaves the figures of the
others as they are. `python -m bench.report` makes tables and plots of them again.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import ceilings, loads_c, machine, mindbus_server, report
from bench.peers import registry
from bench.peers.peer import directory_of, version_of
from bench.plan import Plan
from bench.records import Run
from bench.workloads import w1, w2, w3, w4, w5, w6, w7

RESULTS = Path("docs/performance/results.json")

WORKLOADS: dict[str, Callable[[Plan], None]] = {
    "ceilings": ceilings.run,
    "w1": w1.run,
    "w2": w2.run,
    "w3": w3.run,
    "w4": w4.run,
    "w5": w5.run,
    "w6": w6.run,
    "w7": w7.run,
}


def main() -> int:
    """Entry of `python -m bench.run`."""
    flags = parser().parse_args()
    packages = loads_c.missing_packages()
    if packages:
        print(
            f"make bench: no load generator here; run: sudo apt-get install {' '.join(packages)}",
            file=sys.stderr,
        )
        return 1
    # So that servers are ended, too, when somebody ends the run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    plan = Plan(flags.rounds, flags.seconds, flags.peers, flags.modes)
    plan.run = before(flags.results, flags.workloads)
    plan.run.machine = machine.describe()
    plan.run.versions |= versions(flags.peers)
    begin = time.monotonic()
    for name in flags.workloads:
        minutes = (time.monotonic() - begin) / 60
        print(f"--- {name}, after {minutes:.1f} minutes", flush=True)
        plan.run.settings[name] = {
            "rounds": flags.rounds,
            "seconds": flags.seconds,
            "load_before": round(machine.load_average(), 2),
            "at": time.strftime("%Y-%m-%d %H:%M"),
        }
        WORKLOADS[name](plan)
        flags.results.parent.mkdir(parents=True, exist_ok=True)
        flags.results.write_text(plan.run.to_json())
    print(f"--- done in {(time.monotonic() - begin) / 60:.1f} minutes", flush=True)
    report.write(flags.results)
    return 0


def parser() -> argparse.ArgumentParser:
    """Flags of a run."""
    made = argparse.ArgumentParser(prog="bench.run", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--workloads", type=_names(WORKLOADS), default=list(WORKLOADS))
    made.add_argument("--rounds", type=int, default=5, help="medians are taken over (default: 5)")
    made.add_argument("--seconds", type=float, default=2.0, help="of each load (default: 2)")
    made.add_argument(
        "--peers",
        type=_names(registry.ENVIRONMENTS),
        default=list(registry.ENVIRONMENTS),
        help="names with commas, or none (default: all that are installed)",
    )
    made.add_argument(
        "--modes", type=_names(mindbus_server.MODES), default=list(mindbus_server.MODES)
    )
    made.add_argument("--results", type=Path, default=RESULTS)
    return made


def _names(known: Sequence[str] | dict[str, Callable[[Plan], None]]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = [name for name in text.split(",") if name and name != "none"]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read


def before(results: Path, workloads: Sequence[str]) -> Run:
    """What an earlier run has left of other workloads."""
    if not results.is_file():
        return Run()
    run = Run.from_json(results.read_text())
    run.records = [record for record in run.records if record.workload not in workloads]
    run.missing = [miss for miss in run.missing if miss["workload"] not in workloads]
    return run


def versions(peers: Sequence[str]) -> dict[str, str]:
    """Of the load generators and of the peers that are installed."""
    found = dict(loads_c.versions())
    for name in peers:
        if (directory_of(name) / ".installed").exists():
            package = registry.PACKAGES.get(name, name)
            found[package] = version_of(name, package)
    return found


if __name__ == "__main__":
    sys.exit(main())
