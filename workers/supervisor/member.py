"""A slot together with the process that fills it, as the supervisor keeps them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workers.supervisor import slot as slots
from workers.supervisor.child import Child, ChildSpec
from workers.supervisor.exit_reason import exit_reason
from workers.supervisor.slot import Slot
from workers.supervisor.stop_policy import ChildPresence

NS_PER_S = 1_000_000_000

#: Deaths that the status tells of.
EXITS_REMEMBERED_MAX = 8


class Member:
    """One slot, its process if there is one, and what is known of the processes before."""

    def __init__(self, spec: ChildSpec, chance: random.Random, generation: int = 0) -> None:
        """generation: of the process before, which ran in another slot."""
        self.spec = spec
        self.slot = Slot(spec.slot, chance, generation=generation)
        #: The process; None exactly in VACANT, BACKOFF, FAILED and DEVICE_FAULT.
        self.child: Child | None = None
        #: Why we killed the process, if we did: it goes into how it ended.
        self.kill_reason: str | None = None
        #: We killed it by order or for a limit of ours, and not for what it was doing.
        self.is_blameless = False
        #: How the latest process ended, for the status.
        self.last_exit: str | None = None
        #: When and how the latest processes ended, oldest first.
        self.exits: deque[tuple[int, int, str]] = deque(maxlen=EXITS_REMEMBERED_MAX)
        #: What the latest process said was wrong.
        self.error: str | None = None
        #: A failed successor that a roll has given up: its slot goes with its process.
        self.is_dismissed = False
        #: What the process reported when it was READY.
        self.report: Mapping[str, Any] = {}
        #: The device that the process reported, which is the truth; the slot's is the wish.
        self.device: dict[str, Any] | None = None
        #: Addresses of the broker in this process for direct clients, ports resolved.
        self.producers: list[str] = []
        #: What a gateway has counted, if it tells.
        self.numbers: dict[str, Any] | None = None
        #: A gateway whose doors may hold requests in flight.
        self.is_serving = False
        #: Commands were ended, or SIGTERM was sent, because the server goes down.
        self.is_told_to_leave = False
        #: A gateway whose place another one has taken.
        self.leaves_when_drained = False

    @property
    def presence(self) -> ChildPresence:
        """What the stop policy sees. REQUIRES: a process is here."""
        return ChildPresence(self.spec.kind, self.is_serving, self.spec.needs_devices)

    def facts(self) -> dict[str, object]:
        """What a log line about the process says. REQUIRES: a process is here."""
        assert self.child is not None, self.slot.name
        facts: dict[str, object] = {"slot": self.slot.name}
        if self.spec.servable:
            facts["version"] = self.spec.version
        if self.device is not None:
            facts["device"] = f"{self.device['target']}:{self.device['id']}"
        return facts | {"pid": self.child.pid, "generation": self.slot.generation}

    def exit_reason(self, returncode: int) -> str:
        """How the process ended, in one word of `exit_reason.REASONS`."""
        slot = self.slot
        is_told = slot.state == slots.DRAINING
        is_killed = self.kill_reason is not None
        return exit_reason(
            returncode, is_killed, self.is_blameless, is_told, slot.has_device_trouble
        )

    def note_producers(self, report: Mapping[str, Any]) -> None:
        """A broker is bound to these addresses; its successor gets the same, ports resolved."""
        self.producers = list(report.get("producers") or [])
        if self.producers:
            document = {**self.spec.document, "producers_addresses": self.producers}
            self.spec = replace(self.spec, document=document)

    def forget_process(self) -> None:
        """The process is gone: what was true of it is not true of its successor."""
        self.child = None
        self.kill_reason = None
        self.is_blameless = False
        self.device = None
        self.producers = []
        self.numbers = None
        self.is_serving = False
        self.is_told_to_leave = False
        self.leaves_when_drained = False

    def status(self, now_ns: int) -> dict[str, Any]:
        """One line of the status: plain values."""
        slot = self.slot
        return {
            "slot": slot.name,
            "kind": self.spec.kind,
            "servable": self.spec.servable or None,
            "version": self.spec.version or None,
            "servable_directory": self.spec.document.get("servable_directory"),
            "device": self.device or self.spec.device,
            "state": slot.state,
            "pid": self.child.pid if self.child else None,
            "generation": slot.generation,
            "restarts": max(0, slot.generation - 1),
            "last_exit": self.last_exit,
            "exits": [
                {"generation": generation, "ago_s": _ago_s(at_ns, now_ns), "exit": text}
                for at_ns, generation, text in self.exits
            ],
            "error": self.error if slot.state in (slots.BACKOFF, *slots.GIVEN_UP) else None,
            "since_s": _ago_s(slot.since_ns, now_ns),
            "has_busy_device": slot.has_busy_device,
            "numbers": self.numbers,
        }


def _ago_s(then_ns: int, now_ns: int) -> float:
    return round((now_ns - then_ns) / NS_PER_S, 1)
