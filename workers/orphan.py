"""No orphans: a child that outlives its parent would hold a device that nobody can restart."""

from __future__ import annotations

import ctypes
import os
import signal

#: <linux/prctl.h>
PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process (SIGKILL) when its parent is gone, even by kill -9.

    Call it first thing: a parent that died before the call is noticed by `getppid`.
    The kernel watches the parent's *thread* that started us (prctl(2)): start processes from a
    thread that lives as long as its process.
    parent_pid: the parent as it names itself; it must have started this process directly.
    Raises: OSError if the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != parent_pid:
        os._exit(0)
