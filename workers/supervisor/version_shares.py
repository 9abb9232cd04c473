"""Which versions of a servable get the requests that name none: told to the broker, and shown.

While two versions of a servable run, because one takes the place of the other, the old one is
`stable` and the new one `canary`. Version 0 is shared between them

    by the workers that each has, while they are replaced one by one
    by percent, while a canary stands: from before its first worker is ready, so that this one never
                gets everything
    not at all, while the canary is rolled back: the stable version has everything
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from protocol.head import CANARY, STABLE
from workers.supervisor import slot as slots
from workers.supervisor.crew import Crew
from workers.supervisor.loss_reporter import LossReporter
from workers.supervisor.stop_policy import WORKER

Shares = tuple[tuple[int, int], ...]
Labels = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A servable on its way from one version to another.

    percent: of version 0 that the new version gets; None = by the workers of each.
    """

    old: int
    new: int
    percent: int | None = None

    @property
    def labels(self) -> Labels:
        """(label, version), as SHARE has it."""
        return ((STABLE, self.old), (CANARY, self.new))


class VersionShares:
    """The changes that are under way, or stopped half-way. From the supervisor's thread only."""

    def __init__(self, crew: Crew, losses: LossReporter) -> None:
        self.changes: dict[str, Change] = {}
        self._crew = crew
        self._losses = losses
        #: What the broker was told last.
        self._told: dict[str, tuple[Shares, Change | None]] = {}
        #: Servables whose new version is on its way out.
        self._withdrawn: set[str] = set()

    def of(self, servable: str) -> Change | None:
        """The change of a servable; None if there is none, or what was new is on its way out."""
        return None if servable in self._withdrawn else self.changes.get(servable)

    def begin(self, servable: str, change: Change) -> None:
        """A servable goes to another version."""
        self._withdrawn.discard(servable)
        self.changes[servable] = change

    def set_percent(self, servable: str, percent: int | None) -> None:
        """Let the new version have so much of version 0; see `Change`."""
        self.changes[servable] = replace(self.changes[servable], percent=percent)

    def end(self, servable: str) -> None:
        """One of the two versions is left."""
        self.changes.pop(servable, None)

    def end_when_gone(self, servable: str) -> None:
        """The new version is withdrawn: it gets nothing more of version 0, and is over when its
        last process is gone.
        """
        self.set_percent(servable, 0)
        self._withdrawn.add(servable)

    def follow(self) -> None:
        """Tell the broker what has changed since the last call."""
        for servable in list(self._withdrawn):
            change = self.changes.get(servable)
            if change is None or not self._is_there(servable, change.new):
                self._withdrawn.discard(servable)
                self.end(servable)
        for servable in {*self.changes, *self._told}:
            change = self.changes.get(servable)
            shares = () if change is None else self._shares(servable, change)
            if (shares, change) != self._told.get(servable, ((), None)):
                self._told[servable] = (shares, change)
                self._tell(servable)
            if change is None:
                self._told.pop(servable, None)

    def tell_again(self) -> None:
        """A new broker knows nothing of it."""
        for servable in self._told:
            self._tell(servable)

    def status(self) -> list[dict[str, Any]]:
        """Plain values, for each servable of which two versions take turns."""
        return [
            {
                "servable": servable,
                "stable": change.old,
                "canary": change.new,
                "percent": change.percent,
                "shares": [list(share) for share in self._shares(servable, change)],
            }
            for servable, change in self.changes.items()
        ]

    def _is_there(self, servable: str, version: int) -> bool:
        return any(
            (member.spec.servable, member.spec.version) == (servable, version)
            for member in self._crew.of_kind(WORKER)
        )

    def _tell(self, servable: str) -> None:
        shares, change = self._told[servable]
        self._losses.share(servable, shares, () if change is None else change.labels)

    def _shares(self, servable: str, change: Change) -> Shares:
        if change.percent is not None:
            return ((change.old, 100 - change.percent), (change.new, change.percent))
        ready: dict[int, int] = {}
        for member in self._crew.of_kind(WORKER):
            spec = member.spec
            is_between = spec.version in (change.old, change.new)
            if spec.servable == servable and is_between and not spec.needs_devices:
                is_ready = member.slot.state == slots.READY
                ready[spec.version] = ready.get(spec.version, 0) + is_ready
        counts = tuple(sorted(item for item in ready.items() if item[1]))
        return counts if len(counts) > 1 else ()
