"""What a load of some seconds gave, and medians of several. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Figures(NamedTuple):
    """One measurement. failed: replies that were errors, or had the wrong bytes."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int = 0

    @property
    def rate(self) -> float:
        """Requests per second that were answered rightly."""
        return (self.requests - self.failed) / self.seconds if self.seconds else 0.0

    def line(self) -> str:
        """req/s, p50 and p99 in ms."""
        failed = f"   {self.failed} FAILED" if self.failed else ""
        return (
            f"{self.rate:9.0f} req/s   p50 {self.p50_ms:7.2f}   p99 {self.p99_ms:7.2f} ms{failed}"
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the ordered ones do not exceed (nearest rank); NaN of none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def of_latencies(latencies_ms: Sequence[float], seconds: float, failed: int = 0) -> Figures:
    """Figures of a load that kept the latency of each request."""
    ordered = sorted(latencies_ms)
    return Figures(
        len(ordered), seconds, percentile(ordered, 0.5), percentile(ordered, 0.99), failed
    )


def middle(values: Sequence[float | None]) -> float | None:
    """The median of the rounds that gave a figure; None if none did."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return median(known) if known else None


def spread(values: Sequence[float | None]) -> float:
    """Highest less lowest, as a share of the median; 0 of less than two figures."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    centre = middle(known)
    return (max(known) - min(known)) / centre if centre and len(known) > 1 else 0.0
