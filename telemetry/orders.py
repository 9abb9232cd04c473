"""What a supervisor wants of the log of a process that takes no other commands.

Such a process (a worker, a broker of its own) has a channel for its reports. Orders come the other
way on it, JSON lines: {"command": "settings", "log_level": n, …}.
"""

from __future__ import annotations

import json
import os
import threading

from telemetry.live_settings import LiveSettingError, LiveSettings
from telemetry.log import set_level


def follow_orders(channel_fd: int) -> None:
    """Follow them, in a thread that ends with the channel. The descriptor stays the caller's."""
    threading.Thread(target=_follow, args=(channel_fd,), name="orders", daemon=True).start()


def _follow(channel_fd: int) -> None:
    try:
        with os.fdopen(channel_fd, "rb", closefd=False) as channel:
            for line in channel:
                _obey(line)
    except OSError:  # the other end is gone, and so is whoever could order anything
        return


def _obey(line: bytes) -> None:
    try:
        order = json.loads(line)
        wishes = {name: order[name] for name in LiveSettings._fields if name in order}
        settings = LiveSettings().changed(wishes)
    except (ValueError, TypeError, LiveSettingError):
        return  # a supervisor that says more than this process knows
    if "log_level" in wishes:
        set_level(settings.log_level)
