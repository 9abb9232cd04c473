"""No orphans: a child that outlives its parent would hold a device that nobody can restart."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import termios
from typing import Any

from workers.prctl import PR_SET_PDEATHSIG, keep_memory_private, prctl


def begin_as_child() -> dict[str, Any]:
    """What every process that a supervisor or a launcher starts does first. Returns its document,
    which comes on stdin; who finds a key in it leaves no core file."""
    document: dict[str, Any] = json.load(sys.stdin)
    if document.get("dec_key") is not None:
        keep_memory_private()
    die_with_parent(int(document["parent_pid"]))
    take_group_along()
    return document


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process (SIGKILL) when its parent is gone, even by kill -9.

    Call it first thing: a parent that died before the call is noticed by `getppid`.
    The kernel watches the parent's *thread* that started us (prctl(2)): start processes from a
    thread that lives as long as its process.
    parent_pid: the parent as it names itself; it must have started this process directly.
    Raises: OSError if the kernel refuses.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def take_group_along() -> None:
    """Have the kernel end this process's group (SIGHUP) when it is gone, even by kill -9.

    For what user code starts: PR_SET_PDEATHSIG is not inherited, and a supervisor that was killed
    itself kills no group. When a session's leader ends, the kernel hangs up its terminal, which
    ends the foreground group; so this process gets a terminal of its own that nobody writes to.
    Without effect for a process that leads no session, has a terminal, or can get none.
    """
    if os.getsid(0) != os.getpid():
        return
    with contextlib.suppress(OSError):
        # The first descriptor stays open for good: to close it would hang up at once.
        _, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        os.close(terminal)
