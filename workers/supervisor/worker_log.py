"""Files that take the standard output and error of workers: their names, and how they are opened.

Whoever starts a server names a directory or none (then workers write to the server's own terminal).
A directory that cannot be written must not keep a server from serving: one warning says so, and
the workers write to the terminal.
"""

from __future__ import annotations

import os
from pathlib import Path

from telemetry.log import get_logger

log = get_logger("SERVING")

#: Only the user who runs the server may read what his workers say, as with the log files of ours.
FILE_MODE = 0o600


def log_file_name(servable: str, process: str, version: int | None = None) -> str:
    """The name that MindSpore Serving gives the file of one worker.

    process: `device<id>`, `extra<i>` or `distributed`; the last has no version in its name.
    """
    ending = "" if version is None else f"_version{version}"
    return f"log_{servable}_{process}{ending}.log"


class WorkerLogs:
    """Opens the files of one server's workers, and warns once if that is not possible."""

    def __init__(self) -> None:
        self._has_warned = False

    def open(self, path: Path | None, is_first: bool) -> int | None:
        """A descriptor for a child's standard output and error; the caller closes it.

        path: None is the terminal. is_first: a slot's first process begins the file anew, one that
        takes its place goes on in it. Returns: None if the child shall inherit ours.
        """
        if path is None:
            return None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if is_first:
            flags |= os.O_TRUNC
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, flags, FILE_MODE)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                log.warning(
                    "worker log cannot be written, workers write to the terminal",
                    path=str(path),
                    error=error.strerror,
                )
            return None
