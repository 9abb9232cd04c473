"""How often a process looks for garbage that refers to itself.

Nearly everything that a request leaves is freed at once; what a search looks through is what is
under way. With CPython's own threshold (700 objects) a gateway searched after every few requests,
which was 4 % of its time (perf, 64 REST requests in flight).
"""

from __future__ import annotations

import gc

#: Objects that are new, searches of them, and searches of those that survived, before each search.
THRESHOLDS = (25_000, 20, 20)


def collect_seldom() -> None:
    """Search seldom, and never through what is there now: modules live as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
