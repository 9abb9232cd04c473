"""W2, batching: a model that sleeps 5 ms and 0.05 ms per item, up to 32 together, one worker.

128 requests are in flight. MindBus runs it twice: as it is, and with real Python of 1.5 ms per
batch before and after the model, which has to overlap with it.
"""

from __future__ import annotations

from dataclasses import replace

from bench import mindbus_server, models
from bench.plan import Contender, Plan, contenders_of_peers, measure_in_turns
from bench.workloads.w1 import own

NAME = "w2"
CONCURRENCY = 128
#: Milliseconds of Python before the model, and as many after it.
STAGE_MS = 1.5


def run(plan: Plan) -> None:
    """Measure everybody in turn."""
    staged = replace(models.W2, stage_ms=STAGE_MS)
    contenders = [
        *own(plan, models.W2),
        Contender(
            "MindBus, 3 ms of Python",
            lambda: mindbus_server.start(mindbus_server.EMBEDDED, staged),
        ),
        *contenders_of_peers(plan, NAME, models.W2),
    ]
    measure_in_turns(plan, NAME, contenders, lambda _: (CONCURRENCY,))
