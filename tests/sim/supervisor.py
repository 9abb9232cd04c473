"""The simulated supervisor: it tells the broker of deaths and shares, and replaces the broker.

Its DEALER queues what it reports while the broker is away; a new broker is told the shares again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import control
from tests.sim.links import Connection
from tests.sim.weather import KILL

if TYPE_CHECKING:
    from tests.sim.world import World


class SimSupervisor:
    """What the world needs of `LossReporter`, `VersionShares` and `Crew`."""

    def __init__(self, world: World, services: list[str]) -> None:
        self._world = world
        self._services = services
        self._unsent: list[list[bytes]] = []
        self._share: control.Share | None = None
        self._is_replacing = False
        self._connection = Connection(world, "supervisor", True, lambda _: None, self._flush)

    @property
    def is_quiet(self) -> bool:
        """It does nothing to the broker, and has told it everything."""
        return not self._is_replacing and not self._unsent

    def report_lost(self, worker_id: str, generation: int, started: tuple[int, ...] | None) -> None:
        """The process sentinel saw a worker die. started: tickets that it had begun to compute."""
        is_blameless = self._world.random.random() < 0.3
        self._report(control.Lost(worker_id, generation, "killed", started, is_blameless))

    def share_version_0(self) -> None:
        """A roll, or its end: version 0 is split between the versions, or not any more."""
        dice = self._world.random
        weights = dice.choice(((), ((1, 1), (2, 2)), ((1, 3),)))
        labels = dice.choice(((), (("stable", 1), ("canary", 2)), (("stable", 2),)))
        self._share = control.Share("s", weights, labels)
        self._report(self._share)

    def retire_a_version(self) -> None:
        """A version gets no more workers, as far as the supervisor knows now."""
        self._report(control.Retire(self._world.random.choice(("s/1", "s/2")), "rolled"))

    def _report(self, message: control.Control) -> None:
        self._unsent.append(control.pack(message))
        self._flush()

    def _flush(self) -> None:
        while self._unsent and self._connection.send(self._unsent[0]):
            del self._unsent[0]

    # ------------------------------------------------------------ the broker

    def replace_broker(self, kind: str) -> None:
        """The broker is killed by somebody, or told to go; another one is started then."""
        world = self._world
        if self._is_replacing:
            return
        self._is_replacing = True
        world.met[f"broker {kind}"] += 1
        if kind == KILL:
            world.broker.kill()
            world.after_ms(10, world.random.choice((300, 3_500)), self._start_broker)
        else:
            world.broker.terminate(world.weather.grace_ms, self._note_broker_gone)

    def _note_broker_gone(self) -> None:
        # A client that was not refused anything waits for 2 s only.
        self._world.after_ms(10, 1_500, self._start_broker)

    def _start_broker(self) -> None:
        self._is_replacing = False
        self._world.broker.start(self._services)
        if self._share is not None:
            self._report(self._share)
