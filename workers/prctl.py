"""What this process asks of the kernel for itself (prctl(2))."""

from __future__ import annotations

import ctypes
import os

#: <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4


def prctl(option: int, argument: int) -> None:
    """Set one attribute of this process. Raises: OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {argument}): {os.strerror(number)}")


def keep_memory_private() -> None:
    """Have the kernel write no core file of this process, and let nobody but root read its memory.

    For a process that holds a key. It lasts until the process executes another program, so
    children that do so begin without it. Where /proc/sys/kernel/core_pattern names a program, that
    gets no core either.
    Raises: OSError if the kernel refuses.
    """
    prctl(PR_SET_DUMPABLE, 0)
