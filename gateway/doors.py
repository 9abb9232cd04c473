"""What both doors have in common: how they fail to open."""

from __future__ import annotations


class DoorError(Exception):
    """A door that cannot be opened; the text is the one that MindSpore Serving users know.

    Its Python layer prefixes `Raise failed: `; that is left to the face that imitates it.
    """
