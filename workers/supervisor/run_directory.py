"""The run directory: what one server keeps in the file system while it runs.

    lock            flock'ed by the server's process; holds its pid as text
    control.sock    the supervisor's JSON lines (status, stop)
    producers.ipc   the broker's sockets
    workers.ipc, workers.ipc.link
    server.json     pid and addresses, for people and programs that look for them

The directory is the user's own (0700): who cannot enter it cannot connect. Sockets left by a
server that was killed are removed once the lock is held, never before.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protocol import limits
from protocol.link_path import SUFFIX

LOCK = "lock"
CONTROL = "control.sock"
PRODUCERS = "producers.ipc"
WORKERS = "workers.ipc"
SERVER = "server.json"


class RunDirectoryError(Exception):
    """The run directory cannot be used; the text names it and says why."""


def default_run_directory(environment: Mapping[str, str], user_id: int) -> Path:
    """`$XDG_RUNTIME_DIR/mindbus`, or `/tmp/mindbus-<uid>` where no runtime directory is set."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "mindbus"
    # A name that others can guess: `open` refuses it if it is not ours alone.
    return Path(f"/tmp/mindbus-{user_id}")  # noqa: S108


def ipc_address(directory: Path, name: str) -> str:
    """The ZeroMQ address of a socket in a run directory. name: PRODUCERS or WORKERS."""
    return f"ipc://{directory / name}"


def check_ipc_path(path: Path) -> None:
    """Raises RunDirectoryError if a unix socket cannot have this path."""
    size = len(os.fsencode(path))
    if size > limits.UNIX_PATH_BYTES_MAX:
        raise RunDirectoryError(
            f"socket path {path} of {size} B exceeds ipc_path_bytes_max "
            f"{limits.UNIX_PATH_BYTES_MAX}: "
            "choose a shorter run directory (--run-directory)"
        )


class RunDirectory:
    """A run directory that this process holds alone, from `open` to `close`."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Create the directory if need be, take its lock, and clear what a dead server left.

        Raises: RunDirectoryError; it names the pid of the server that holds the lock.
        """
        path = path.absolute()
        for name in (CONTROL, PRODUCERS, WORKERS):
            check_ipc_path(path / name)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(path)
            lock_fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RunDirectoryError(f"run directory {path}: {error.strerror}") from None
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock_fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock_fd)
            raise RunDirectoryError(
                f"a MindBus server with pid {holder} already runs with run directory {path}"
            ) from None
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        directory = cls(path, lock_fd)
        directory.clear()
        return directory

    @property
    def control_path(self) -> Path:
        """Where the supervisor listens for the CLI."""
        return self.path / CONTROL

    @property
    def producers_address(self) -> str:
        """Where direct clients connect."""
        return ipc_address(self.path, PRODUCERS)

    @property
    def workers_address(self) -> str:
        """Where workers connect."""
        return ipc_address(self.path, WORKERS)

    def write_server(self, content: Mapping[str, Any]) -> None:
        """Replace `server.json` at one stroke, so that a reader never sees half of it."""
        fresh = self.path / (SERVER + ".new")
        fresh.write_text(json.dumps(content, indent=1) + "\n")
        fresh.replace(self.path / SERVER)

    def clear(self) -> None:
        """Remove every file but the lock."""
        for name in (CONTROL, PRODUCERS, WORKERS, WORKERS + SUFFIX, SERVER, SERVER + ".new"):
            (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Clear the directory and give the lock back.

        The lock file itself stays: were it removed, a server that has it open and one that makes
        a new one could both believe to be alone.
        """
        self.clear()
        os.ftruncate(self._lock_fd, 0)
        os.close(self._lock_fd)


def _check_owner(path: Path) -> None:
    """A directory that somebody else made in /tmp is a trap, and one that others may enter leaks.

    Raises: RunDirectoryError.
    """
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise RunDirectoryError(f"run directory {path} is not a directory")
    if status.st_uid != os.getuid():
        raise RunDirectoryError(
            f"run directory {path} belongs to user {status.st_uid}, not to {os.getuid()}"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        # Not changed silently: the path may be a directory that others need, such as /tmp.
        raise RunDirectoryError(
            f"run directory {path} may be entered by other users "
            f"(mode {stat.S_IMODE(status.st_mode):04o}): chmod 700 it, or choose another one"
        )
