"""How a process ended, in one word: the label of metrics. Pure."""

from __future__ import annotations

PLANNED = "planned"
HUNG = "hung"
KILLED = "killed"
DEVICE = "device"
SIGNAL = "signal"
BOOT_FAILED = "boot_failed"
GROUP_LOST = "group_lost"
EXIT = "exit"

#: What each of them means, for the documentation.
REASONS = {
    PLANNED: "it was told to go: a roll, a drain, a stop",
    HUNG: "it made no progress, and was killed",
    KILLED: "it was killed by order, or took too long to start or to drain",
    DEVICE: "its device was busy, or could not be used",
    SIGNAL: "it died of a signal that we did not send: a crash, or no memory left",
    BOOT_FAILED: "it could not load what it serves",
    GROUP_LOST: "the group of ranks of its distributed servable was lost",
    EXIT: "it ended by itself in another way",
}

_EXIT_BOOT_FAILED = 3
_EXIT_GROUP_LOST = 4


def exit_reason(
    returncode: int, is_killed: bool, is_blameless: bool, is_told: bool, has_device_trouble: bool
) -> str:
    """One of `REASONS`.

    returncode: as of `subprocess`. is_killed: by us, is_blameless: not for what it was doing.
    is_told: it drained.
    """
    if is_killed:
        return KILLED if is_blameless else HUNG
    if is_told and returncode == 0:
        return PLANNED
    if has_device_trouble:
        return DEVICE
    if returncode < 0:
        return SIGNAL
    return {_EXIT_BOOT_FAILED: BOOT_FAILED, _EXIT_GROUP_LOST: GROUP_LOST}.get(returncode, EXIT)
