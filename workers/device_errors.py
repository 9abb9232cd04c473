"""Which errors of a device pass by themselves: another process still holds it, or did. Pure.

After a process was killed the driver may take seconds to release its device. What is told then
differs by the layer that notices; these marks are all that reports of such cases show:

    507033                      open device failed (Ascend/samples, issues 16 and 21)
    507018                      the previous tenant left it in a bad state
    EL0005, Resource_Busy       the resource is busy
    DRV_ERROR_BUSY              the same, from the driver; gone after about two seconds

Not run on Ascend hardware: only the texts are known, not how long such a state lasts.
"""

from __future__ import annotations

import re

#: The device is held by somebody else, and may be free soon.
BUSY = "busy"
#: The device cannot be used, however often it is tried.
FAULT = "fault"

_BUSY_MARKS = re.compile(
    r"\b(507033|507018|EL0005)\b|resource[ _]?busy|DRV_ERROR_BUSY|device or resource busy",
    re.IGNORECASE,
)


def is_busy(text: str) -> bool:
    """Whether an error's text says that the device is held by somebody else."""
    return _BUSY_MARKS.search(text) is not None
