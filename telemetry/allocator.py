"""What a process does with large blocks of memory that it has freed: it keeps some.

The C library maps a block above 128 KiB by itself and gives it back as soon as it is free, so a
tensor of 16 MiB cost 4,096 page faults and as many zeroed pages in every buffer on its way. Kept,
its memory is there for the next one (mallopt(3)).
"""

from __future__ import annotations

import ctypes

#: Parameters of mallopt, from <malloc.h>.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3

#: Blocks up to this size come from memory that is kept; glibc takes no larger number.
KEPT_BLOCK_BYTES_MAX = 32 * 1024 * 1024

#: How much that is free a process keeps, beyond what lies between blocks in use.
KEPT_BYTES_MAX = 128 * 1024 * 1024


def keep_blocks() -> bool:
    """Keep freed memory from now on. Returns whether the C library knows how; musl's does not."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    is_set = mallopt(_MMAP_THRESHOLD, KEPT_BLOCK_BYTES_MAX)
    return bool(is_set and mallopt(_TRIM_THRESHOLD, KEPT_BYTES_MAX))
