"""W1, small: two float32[16] in, their sum out, through every door at 1, 8 and 64 in flight.

Beside the peers stands a broker of a few lines of Python, without which a share of it would compare
two moods of the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bench import ceilings, mindbus_server, models
from bench.plan import Contender, Plan, contenders_of_peers, measure_in_turns
from bench.processes import Running

NAME = "w1"
CONCURRENCIES = (1, 8, 64)
#: A producer on the bus holds more requests at once than a client of a door.
BUS_WINDOWS = (1, 8, 64, 256)


def own(plan: Plan, model: models.Model, modes: Sequence[str] | None = None) -> list[Contender]:
    """MindBus in each mode of the plan, or in those that are given."""

    def starter(mode: str) -> Callable[[], Running]:
        return lambda: mindbus_server.start(mode, model)

    return [
        Contender(f"MindBus {mode}", starter(mode))
        for mode in (plan.modes if modes is None else modes)
    ]


def run(plan: Plan) -> None:
    """Measure everybody in turn."""
    contenders = [
        *own(plan, models.W1),
        Contender("Python broker", partial(ceilings.own_echo, "zmq-python")),
        *contenders_of_peers(plan, NAME, models.W1),
    ]
    measure_in_turns(
        plan,
        NAME,
        contenders,
        lambda door: BUS_WINDOWS if door == "native bus" else CONCURRENCIES,
    )
