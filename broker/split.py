"""Version 0 shared between versions: smooth weighted round robin, as nginx does it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from broker.service import Service


class Split:
    """The shares of a servable's versions in the requests for version 0.

    Each pick gives every version its weight in credit and takes the sum from the one that is
    picked, which is the one with the most; so the picks are spread evenly.
    """

    __slots__ = ("_credit", "weights")

    def __init__(self, weights: dict[int, int]) -> None:
        assert weights, "a split has shares"
        self.weights = weights
        self._credit = dict.fromkeys(weights, 0)

    def pick(self, services: Iterable[Service]) -> Service | None:
        """The version that is next among those that take work; None if none of them has a share."""
        takers = [
            service
            for service in services
            if self.weights.get(service.version) and service.takes_work
        ]
        if not takers:
            return None
        credit = self._credit
        for service in takers:
            credit[service.version] += self.weights[service.version]
        picked = max(takers, key=lambda service: credit[service.version])
        credit[picked.version] -= sum(self.weights[service.version] for service in takers)
        return picked
