"""Which device errors pass by themselves, and how a text of MindSpore is cut to size. Pure.

After a process was killed the driver may take seconds to release its device. What is told then
differs by the layer that notices; these marks are all that reports of such cases show:

    507033                  ACL_ERROR_RT_DEV_SETUP_ERROR, "device setup error": the device cannot be
                            opened, for whatever reason (Ascend/samples, issues 16 and 21)
    EL0005, Resource_Busy   "The resources are busy": occupied, or being reset; "wait for a while
                            and try again" (hw-native-sys/PTOAS, pull request 765)
    DRV_ERROR_BUSY          the same, from the driver; gone within 2 s (hw-native-sys/simpler, 1979)

No mark is 507018, ACL_ERROR_RT_AICPU_EXCEPTION: that is any fault of an AICPU kernel, and so of a
model, too. Where it came from a device (hw-native-sys/simpler, issue 2395) waiting did not help.

Not run on Ascend hardware: only the texts are known, not how long such a state lasts.
"""

from __future__ import annotations

import re

#: The device is held by somebody else, and may be free soon.
BUSY = "busy"
#: The device cannot be used, however often it is tried.
FAULT = "fault"

#: Where the first of MindSpore's sections begins.
_SECTION = "\n\n---"
#: What CANN has said, in a section of its own.
_ASCEND_LINE = re.compile(r"-{4,}\n- Ascend Error Message:\n-{4,}\s+([^\s-][^\n]*)")

_BUSY_MARKS = re.compile(
    r"\b(507033|EL0005)\b|resource[ _]?busy|DRV_ERROR_BUSY|device or resource busy",
    re.IGNORECASE,
)


def is_busy(text: str) -> bool:
    """Whether an error's text says that the device is held by somebody else."""
    return _BUSY_MARKS.search(text) is not None


def brief_text(text: str) -> str:
    """A text of MindSpore with the first line of what Ascend said, without its list of C++ frames.

    MindSpore itself says no more than "the details refer to 'Ascend Error Message'".
    """
    own = text.split(_SECTION, 1)[0].strip()
    ascend = _ASCEND_LINE.search(text)
    return own if ascend is None else f"{own} {ascend[1].strip()}".strip()
