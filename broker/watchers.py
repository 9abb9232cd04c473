"""Clients that want to hear when the broker drains, so that none of their requests is lost with it.

A request that is on its way when the broker goes is neither answered nor refused, and nobody knows
whether it ran. Who is told beforehand, and sends nothing more, has none on its way by then. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable

from broker.outbox import Outbox
from protocol import head as heads
from protocol import limits


class Watchers:
    """Who asked to be told. Those who are gone stay until they are told, or too many."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        #: in the order in which they asked
        self._clients: dict[Hashable, None] = {}

    def add(self, client: Hashable, is_draining: bool) -> None:
        """A client asked; the answer tells it whether to send requests to this broker at all."""
        self._clients.pop(client, None)
        self._clients[client] = None
        while len(self._clients) > limits.WATCHERS_MAX:
            del self._clients[next(iter(self._clients))]
        self._tell(client, heads.DRAIN if is_draining else heads.HEARTBEAT)

    def tell(self) -> None:
        """The broker drains from now on."""
        for client in self._clients:
            self._tell(client, heads.DRAIN)

    def forget(self, client: Hashable) -> None:
        """The client is gone. Harmless if it never asked."""
        self._clients.pop(client, None)

    def _tell(self, client: Hashable, command: int) -> None:
        self._outbox.to_clients.append((client, [heads.pack(heads.Head(command))]))

    def __len__(self) -> int:
        return len(self._clients)
