"""Connections of the simulated world: delayed, never reordered, and broken at any moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.sim.world import World

MS = 1_000_000

#: The longest time that a message is on its way, and that a broken connection may still deliver.
DELAY_MS_MAX = 3

#: A DEALER whose broker is not there tries again after about so long.
RECONNECT_MS = (20, 100)


class Link:
    """One direction of a connection: FIFO, delayed, and dead from its end on."""

    def __init__(self, world: World, deliver: Callable[[list[Any]], None]) -> None:
        self._world = world
        self._deliver = deliver
        self._held: list[list[Any]] | None = None
        self._end_ns: int | None = None
        #: when the last message so far arrives
        self.last_ns = 0

    def send(self, parts: list[Any]) -> None:
        """Let a message arrive after all before it, unless the link ends earlier."""
        delay_ns = int(self._world.random.uniform(0.01, DELAY_MS_MAX) * MS)
        self.last_ns = max(self.last_ns + 1, self._world.now_ns + delay_ns)
        self._world.at(self.last_ns, lambda: self._arrive(parts))

    def hold(self) -> None:
        """Let nothing arrive until `release`, as a network that is down."""
        self._held = []

    def release(self) -> None:
        """What was held arrives, in its order, and everything from now on."""
        held, self._held = self._held or [], None
        for parts in held:
            self._arrive(parts)

    def end(self, when_ns: int) -> None:
        """What would arrive later is lost."""
        self._end_ns = when_ns if self._end_ns is None else min(when_ns, self._end_ns)

    def _arrive(self, parts: list[Any]) -> None:
        if self._held is not None:
            self._held.append(parts)
        elif self._end_ns is None or self._world.now_ns <= self._end_ns:
            self._deliver(parts)


class Connection:
    """A DEALER: it finds whichever broker is there, and again when that one is gone.

    name: what the broker's ROUTER calls it, followed by the number of the connection: a ROUTER
    gives each connection another routing id. deliver, on_up, on_down: what its owner is told.
    """

    def __init__(
        self,
        world: World,
        name: str,
        is_worker: bool,
        deliver: Callable[[list[Any]], None],
        on_up: Callable[[], None] = lambda: None,
        on_down: Callable[[], None] = lambda: None,
    ) -> None:
        self._world = world
        self._name = name
        self._is_worker = is_worker
        self._deliver = deliver
        self._on_up = on_up
        self._on_down = on_down
        self._number = 0
        self._is_closed = False
        #: which directions of its network are down: to the broker, from it
        self._silent = (False, False)
        self.routing_id = b""
        self.up: Link | None = None
        self.down: Link | None = None
        world.after_ms(0.05, 2, self._connect)

    def _connect(self) -> None:
        if self._is_closed:
            return
        world, broker = self._world, self._world.broker
        if not broker.is_bound:
            world.after_ms(*RECONNECT_MS, self._connect)
            return
        self._number += 1
        self.routing_id = routing_id = f"{self._name}.{self._number}".encode()
        receive = broker.receive_from_worker if self._is_worker else broker.receive_from_client
        life = broker.life
        self.up = Link(world, lambda parts: receive(life, routing_id, parts))
        self.down = Link(world, self._receive)
        for link, is_silent in zip((self.up, self.down), self._silent, strict=True):
            if is_silent:
                link.hold()
        broker.accept(self)
        self._on_up()

    def _receive(self, parts: list[Any]) -> None:
        if not self._is_closed:
            self._deliver(parts)

    def send(self, parts: list[Any]) -> bool:
        """Send a message. Returns False if nobody is there: it has to wait for who comes next."""
        if self.up is None:
            return False
        self.up.send(parts)
        return True

    def silence(self, up: bool, down: bool) -> None:
        """The network is down from now on in these directions, or not any more."""
        before, self._silent = self._silent, (up, down)
        for link, was, is_silent in zip((self.up, self.down), before, self._silent, strict=True):
            if link is not None and was and not is_silent:
                link.release()
            elif link is not None and is_silent and not was:
                link.hold()

    def broken_at(self, when_ns: int) -> None:
        """The broker ends: what it sent arrives until then; after that, the next one is looked for.

        What is on the way to the broker is lost.
        """
        assert self.up is not None
        assert self.down is not None
        self.up.end(self._world.now_ns - 1)
        self.down.end(when_ns)
        self._world.at(when_ns, self._break)

    def _break(self) -> None:
        if self._is_closed:
            return
        self.up = self.down = None
        self._on_down()
        self._world.after_ms(*RECONNECT_MS, self._connect)

    def close(self, is_killed: bool = True) -> None:
        """The socket's owner ends it, or ends itself. What was sent last may still arrive.

        is_killed: not all of it.
        """
        self._is_closed = True
        if self.up is None or self.down is None:
            return
        world = self._world
        if self._silent[0] and world.random.random() < 0.5:
            # The kernel goes on sending what it has when the network is up again.
            world.after_ms(10, 1_500, self.up.release)
        elif is_killed:
            self.up.end(world.now_ns + int(world.random.uniform(-1, DELAY_MS_MAX) * MS))
        self.down.end(world.now_ns - 1)
        world.broker.forget(self)
