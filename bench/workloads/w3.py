"""W3, large: one float32 tensor of 16 MiB in and back, at 1 and 4 in flight."""

from __future__ import annotations

from bench import models
from bench.plan import Plan, contenders_of_peers, measure_in_turns
from bench.workloads.w1 import own

NAME = "w3"
CONCURRENCIES = (1, 4)


def run(plan: Plan) -> None:
    """Measure everybody in turn."""
    contenders = [*own(plan, models.W3), *contenders_of_peers(plan, NAME, models.W3)]
    measure_in_turns(plan, NAME, contenders, lambda _: CONCURRENCIES)
