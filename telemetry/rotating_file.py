"""A log file that rotates by size; rotated files are read-only, the active one is private."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: Rotated files may only be read, and only by their owner (MindSpore Serving's Python package).
ROTATED_MODE: Final = 0o400


class RotatingFile:
    """An append-only file; not thread-safe, its owner holds a lock.

    The file is opened by the first line, so that a process that logs nothing leaves nothing.
    Invariant: `path`, `path.1` (newest) … `path.<backup_count>` (oldest) are all there is.
    """

    def __init__(self, path: Path, bytes_max: int, backup_count: int, mode: int) -> None:
        """bytes_max or backup_count 0 means that the file grows without rotation."""
        self.path = path
        self._bytes_max = bytes_max
        self._backup_count = backup_count
        self._mode = mode
        self._descriptor: int | None = None
        self._size = 0

    def write(self, line: bytes) -> None:
        """Append one line, rotating first if it would not fit.

        Raises: OSError when the directory or the file cannot be written.
        """
        if self._descriptor is None:
            self._open()
        if self._is_full_for(line):
            self._rotate()
        assert self._descriptor is not None
        remaining = memoryview(line)
        while remaining:
            written = os.write(self._descriptor, remaining)
            self._size += written
            remaining = remaining[written:]

    def close(self) -> None:
        """Close the active file; the next line opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_full_for(self, line: bytes) -> bool:
        if not self._bytes_max or not self._backup_count or not self._size:
            return False
        return self._size + len(line) > self._bytes_max

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, self._mode)
        try:
            # A mode given to open() is cut by the umask, and a file left by an earlier process
            # of the same number keeps its old one.
            os.fchmod(descriptor, self._mode)
            self._size = os.fstat(descriptor).st_size
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _rotate(self) -> None:
        self.close()
        present = 0
        while present < self._backup_count - 1 and self._rotated(present + 1).exists():
            present += 1
        for number in range(present, 0, -1):
            self._rotated(number).replace(self._rotated(number + 1))
        self.path.chmod(ROTATED_MODE)
        self.path.replace(self._rotated(1))
        self._open()

    def _rotated(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
