"""How many bytes of replies were sent to each client and have not left this process yet.

What is handed to ZeroMQ stays in memory until the client's connection takes it, and a connection
takes nothing while its client does not read. ZeroMQ tells how much that is for no peer; it only
tells of a single message that its memory is free again (`Departure`). So each message that is large
enough to matter is watched from its sending on; smaller ones are bounded by their number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Protocol


class Departure(Protocol):
    """Tells of one message; `zmq.MessageTracker` is one."""

    @property
    def done(self) -> bool:
        """Whether the message has left, or was dropped with its connection."""


class UnreadReplies:
    """The watched messages of every client, in the order in which they were sent.

    bytes_max: of one client. A single message may be larger: it is sent if nothing else is unread.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        #: Clients without unread messages are not in these tables.
        self._messages: dict[Hashable, deque[tuple[Departure, int]]] = {}
        self._bytes: dict[Hashable, int] = {}

    def bytes_of(self, client: Hashable) -> int:
        """Bytes of the client's messages that have not left, as of the last look."""
        return self._bytes.get(client, 0)

    def has_room(self, client: Hashable, size: int) -> bool:
        """Whether a message of so many bytes may be sent now."""
        self._settle(client)
        unread = self._bytes.get(client, 0)
        return not unread or unread + size <= self._bytes_max

    def add(self, client: Hashable, size: int, departure: Departure) -> None:
        """A message of so many bytes was sent."""
        self._messages.setdefault(client, deque()).append((departure, size))
        self._bytes[client] = self._bytes.get(client, 0) + size

    def settle(self) -> None:
        """Forget every message that has left."""
        for client in list(self._messages):
            self._settle(client)

    def _settle(self, client: Hashable) -> None:
        messages = self._messages.get(client)
        if messages is None:
            return
        while messages and messages[0][0].done:
            self._bytes[client] -= messages.popleft()[1]
        if not messages:
            del self._messages[client], self._bytes[client]

    def __len__(self) -> int:
        """Clients with unread messages."""
        return len(self._messages)
