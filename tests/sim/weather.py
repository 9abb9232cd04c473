"""What kind of world a seed deals: how much is asked for, which faults there are, which limits.

One kind of schedule for all seeds would hide what happens only where one thing is absent: a queue
that is never full, workers that are only frozen, a service that is given up before one comes back.
"""

from __future__ import annotations

import random

from broker.admission import Settings

CRASH = "crash"
FREEZE = "freeze"
CUT = "cut"
DRAIN = "drain"

#: What befalls workers, and how often against each other.
FATES = {CRASH: 8, FREEZE: 3, CUT: 3, DRAIN: 6}

#: How a broker ends.
KILL = "killed"
TERMINATE = "told to go"

#: How often and how the broker of a world is replaced.
RESTARTS = (
    *((),) * 5,
    (KILL,),
    (TERMINATE,),
    (TERMINATE,),
    (TERMINATE, KILL),
    (TERMINATE, TERMINATE),
)


class Weather:
    """The constants of one world."""

    def __init__(self, dice: random.Random) -> None:
        self.settings = Settings(
            requests_max=dice.choice((8, 40, 40)),
            heartbeat_interval_ms=100,
            heartbeat_liveness=3,
            service_grace_ms=dice.choice((300, 1_000, 3_000)),
            budget_ms_default=20_000,
        )
        #: The longest pause of a client between two deeds.
        self.pause_ms = dice.choice((20, 60, 150, 300))
        #: The longest time between two fates of a worker.
        self.fate_ms = dice.choice((300, 700, 700))
        #: How many of the requests kill whoever computes them.
        self.poison = dice.choice((0.0, 0.02, 0.02, 0.1))
        self.restarts = dice.choice(RESTARTS)
        #: How long a broker that was told to go may take.
        self.grace_ms = dice.choice((50, 10_000, 10_000, 10_000))
        kinds = list(FATES) if dice.random() < 0.6 else dice.sample(list(FATES), 2)
        self.fates = {kind: FATES[kind] for kind in kinds}

    def fate(self, dice: random.Random) -> str:
        """What happens to a worker now."""
        return dice.choices(list(self.fates), list(self.fates.values()))[0]
