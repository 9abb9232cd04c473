"""W5, start: from the command to the first right answer, and the memory of the process tree.

One worker, on the scripted backend, and once more with MindSpore, whose import alone takes seconds.
"""

from __future__ import annotations

import time

from bench import machine, models, own_processes
from bench.mindbus_server import EMBEDDED
from bench.plan import Contender, Plan, contenders_of_peers, try_start
from bench.processes import Running
from bench.workloads import w6
from bench.workloads.w1 import own

NAME = "w5"
#: Memory is looked at so long after the first answer, and what the idle processes used by then.
SETTLE_SECONDS = 1.0


def run(plan: Plan) -> None:
    """Start everybody once per round, one at a time."""
    contenders = [*own(plan, models.W1), *contenders_of_peers(plan, NAME, models.W1)]
    digits = w6.servables(plan, NAME, ("digits",))
    if digits is not None:
        contenders.append(
            Contender("MindBus with MindSpore", lambda: w6.start(EMBEDDED, w6.DIGITS_ONE, digits))
        )
    for round_number in range(plan.rounds):
        for contender in contenders:
            load_before = machine.load_average()
            running = try_start(plan, NAME, contender)
            if running is None:
                continue
            try:
                values = _values(running)
            finally:
                running.end()
            plan.add(NAME, contender.name, "first door", 1, round_number, values, load_before)


def _values(running: Running) -> dict[str, float]:
    pids = machine.family(running.pid)
    before = sum(map(machine.cpu_us, pids))
    time.sleep(SETTLE_SECONDS)
    values = {
        "first_answer_s": running.first_answer_s,
        "pss_mib": machine.pss_mib(pids),
        "idle_cores": (sum(map(machine.cpu_us, pids)) - before) / SETTLE_SECONDS / 1e6,
    }
    workers = []
    if running.run_directory is not None:
        workers = own_processes.pids_by_kind(running).get("worker", [])
    if workers:
        values["pss_above_worker_mib"] = values["pss_mib"] - machine.pss_mib(workers)
    return values
