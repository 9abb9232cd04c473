"""Which doors are open at which gateway, and what to tell the gateways next. Pure.

Rules
1. A door is asked of one gateway first: that one finds out whether the address can be had, and
   which port a port 0 became. The others, and every successor, get the address it was bound to.
2. A door is settled when every gateway that is here has it open, or when the first asking failed.
3. A gateway is complete when every bound door is open there; one that cannot open a door that was
   settled before is broken, and its slot's restart policy takes over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GRPC = "grpc"
REST = "rest"

#: What each kind is called in MindSpore Serving's texts.
DOOR_NAMES = {GRPC: "gRPC", REST: "RESTful"}

#: MindSpore Serving's answer to a second door of a kind.
ALREADY_RUNNING_TEXTS = {
    GRPC: "Serving Error: Serving gRPC server is already running",
    REST: "Serving Error: RESTful server is already running",
}


@dataclass
class Door:
    """One address that clients come in by.

    bound: the address it has, None until a gateway could open it. open_at, asking: gateways that
    have it open, and that were asked and have not answered.
    """

    kind: str
    address: str
    max_msg_mb_size: int
    tls: Mapping[str, Any] | None
    bound: str | None = None
    is_settled: bool = False
    open_at: set[str] = field(default_factory=set)
    asking: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Settled:
    """The outcome of opening a door: an address, or an error text."""

    kind: str
    address: str | None
    error: str | None = None


class DoorTable:
    """The doors of one server, over all of its gateways. Empty what it appends to the lists."""

    def __init__(self) -> None:
        self._doors: dict[str, Door] = {}
        self._gateways: list[str] = []
        self._asked: dict[int, tuple[str, str]] = {}
        self._last_id = 0
        #: Commands to send: (gateway, command).
        self.outbox: list[tuple[str, dict[str, Any]]] = []
        #: Doors whose opening came to an end.
        self.settled: list[Settled] = []
        #: Gateways that could not open a door again: (gateway, error text).
        self.broken: list[tuple[str, str]] = []

    def __contains__(self, kind: str) -> bool:
        return kind in self._doors

    def addresses(self) -> dict[str, str]:
        """Kind and address of every door that is settled and open somewhere."""
        return {
            door.kind: door.bound
            for door in self._doors.values()
            if door.bound is not None and door.is_settled and door.open_at
        }

    def add(self, door: Door) -> None:
        """Open one more door. REQUIRES: none of its kind is there."""
        assert door.kind not in self._doors, door
        self._doors[door.kind] = door
        self._advance()

    def gateway_started(self, gateway: str) -> None:
        """A gateway takes commands now."""
        assert gateway not in self._gateways, gateway
        self._gateways.append(gateway)
        self._advance()

    def gateway_lost(self, gateway: str) -> None:
        """A gateway is gone, with every door that it had open; unknown ones are ignored."""
        if gateway not in self._gateways:
            return
        self._gateways.remove(gateway)
        self._asked = {key: asked for key, asked in self._asked.items() if asked[0] != gateway}
        for door in self._doors.values():
            door.open_at.discard(gateway)
            door.asking.discard(gateway)
        self._advance()

    def receive_reply(self, reply: Mapping[str, Any]) -> None:
        """A gateway answered; a reply to nothing that is being asked is ignored."""
        asked = self._asked.pop(reply.get("id", 0), None)
        door = self._doors.get(asked[1]) if asked else None
        if asked is None or door is None:
            return
        gateway = asked[0]
        door.asking.discard(gateway)
        if reply.get("ok"):
            door.open_at.add(gateway)
            if door.bound is None:
                door.bound = str(reply.get("address") or door.address)
        elif door.is_settled:
            self.broken.append((gateway, str(reply.get("error"))))
        else:
            del self._doors[door.kind]
            self.settled.append(Settled(door.kind, None, str(reply.get("error"))))
        self._advance()

    def kind_asked(self, reply: Mapping[str, Any]) -> str | None:
        """The kind of the door that a reply is about; None if nothing was asked."""
        asked = self._asked.get(reply.get("id", 0))
        return asked[1] if asked else None

    def is_complete(self, gateway: str) -> bool:
        """Whether a gateway is here and has every settled door open."""
        return gateway in self._gateways and all(
            gateway in door.open_at for door in self._doors.values() if door.is_settled
        )

    def _advance(self) -> None:
        for door in self._doors.values():
            if door.bound is None:
                if self._gateways and not door.asking:
                    self._ask(self._gateways[0], door)
                continue
            for gateway in self._gateways:
                if gateway not in door.open_at and gateway not in door.asking:
                    self._ask(gateway, door)
            if not door.is_settled and not door.asking and door.open_at:
                door.is_settled = True
                self.settled.append(Settled(door.kind, door.bound))

    def _ask(self, gateway: str, door: Door) -> None:
        self._last_id += 1
        self._asked[self._last_id] = (gateway, door.kind)
        door.asking.add(gateway)
        command = {
            "id": self._last_id,
            "command": f"open_{door.kind}",
            "address": door.bound or door.address,
            "max_msg_mb_size": door.max_msg_mb_size,
            "tls": door.tls,
        }
        self.outbox.append((gateway, command))
