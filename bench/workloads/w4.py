"""W4, spread: 16 workers of 10 ms each, no batching, 64 requests in flight.

A second part has 256 workers without processes of their own, behind the standalone broker, which
shows how well it spreads what far more devices could compute.
"""

from __future__ import annotations

from bench import fake_server, models
from bench.mindbus_server import IN_PROCESS
from bench.plan import Contender, Plan, contenders_of_peers, measure_in_turns
from bench.workloads.w1 import own

NAME = "w4"
CONCURRENCY = 64

MANY = 256
#: Of each of the many; 100 ms, for two cores cannot make the requests that 10 ms would allow.
MANY_DELAY_MS = 100.0
MANY_CONCURRENCY = 1024
MANY_NAME = f"MindBus, {MANY} workers"
MANY_IDEAL_PER_S = MANY * 1000 / MANY_DELAY_MS


def run(plan: Plan) -> None:
    """Measure everybody in turn, then the many."""
    modes = [mode for mode in plan.modes if mode != IN_PROCESS]  # which has one worker
    contenders = own(plan, models.W4, modes)
    contenders += contenders_of_peers(plan, NAME, models.W4)
    measure_in_turns(plan, NAME, contenders, lambda _: (CONCURRENCY,))
    many = fake_server.Fakes(workers=MANY, delay_ms=MANY_DELAY_MS)
    measure_in_turns(
        plan,
        NAME,
        [Contender(MANY_NAME, lambda: fake_server.start(many), doors=("gRPC",))],
        lambda _: (MANY_CONCURRENCY,),
    )
