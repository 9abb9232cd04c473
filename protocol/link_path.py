"""Where the link of a broker is; apart, since the command line needs it and no more of the link."""

from __future__ import annotations

from protocol import limits

#: What the address of a broker for workers has behind it where workers of its host find the link.
SUFFIX = ".link"


def link_path(workers_address: str) -> str | None:
    """Where the link of a broker is that has this address for workers; None = there is none."""
    if not workers_address.startswith("ipc://"):
        return None
    path = workers_address.removeprefix("ipc://") + SUFFIX
    size = len(path.encode(errors="surrogateescape"))
    return path if size <= limits.UNIX_PATH_BYTES_MAX else None
