"""One child process: spawned by exec, spoken to over a channel of JSON lines, killed as a group.

A child is the leader of its own session and process group, so that whatever it started dies with
it. Its settings come as one JSON document on stdin, so that keys appear neither in the process
table nor in an environment. Its end of the channel is named by MINDBUS_REPORT_FD (it only
reports) or MINDBUS_CONTROL_FD (it also takes commands).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.progress_page import PROGRESS_FD, ProgressPage
from workers.supervisor.json_lines import LineReader, encode_line

REPORT_FD = "MINDBUS_REPORT_FD"
CONTROL_FD = "MINDBUS_CONTROL_FD"

#: A pipe takes this much without a reader (pipe(7)); so writing the document never blocks.
DOCUMENT_BYTES_MAX = 65_536

#: Bytes taken from a channel at once.
RECEIVE_BYTES = 65_536

#: Descriptors that come with them, at most.
FDS_MAX = 4

#: The directory that holds our packages: a checkout, or site-packages.
CODE_ROOT = Path(__file__).resolve().parents[2]


class ChannelError(Exception):
    """A child takes no more commands: it is gone, or has not read for long."""


@dataclass(frozen=True)
class ChildSpec:
    """What to run in a slot.

    document: settings for stdin, without what differs from one process to the next.
    channel: REPORT_FD or CONTROL_FD. servable, version, device: for workers, shown in the status.
    extra: number of an extra worker, which has no device. needs_devices: its models are on the
    device workers of its service. has_page: it tells its progress (`workers.progress_page`).
    is_distributed: the worker of a group of ranks, which has no device of its own.
    log_file: takes standard output and error; None = those of this process. The document may hold a
    key, so `repr` does not show it.
    """

    slot: str
    kind: str
    command: tuple[str, ...]
    document: Mapping[str, Any] = field(repr=False)
    channel: str = REPORT_FD
    environment: Mapping[str, str] = field(default_factory=dict)
    servable: str = ""
    version: int = 0
    device: int | None = None
    extra: int | None = None
    needs_devices: bool = False
    has_page: bool = False
    log_file: Path | None = None
    is_distributed: bool = False


def python_command(*arguments: str) -> tuple[str, ...]:
    """A command line for our own interpreter.

    -P: a directory named like one of our packages, in whatever directory the server was started
    from, must not take the package's place.
    """
    return (sys.executable, "-P", *arguments)


class Child:
    """A process of one slot. Everything happens on the thread that spawned it.

    That thread must outlive the child: PR_SET_PDEATHSIG follows the thread, not the process.
    """

    def __init__(self, spec: ChildSpec, generation: int, output_fd: int | None = None) -> None:
        """Spawn the process. Raises OSError if the system refuses.

        output_fd: for its standard output and error, stays the caller's; None = our own.
        """
        self.spec = spec
        self.generation = generation
        own = {"slot": spec.slot, "generation": generation, "parent_pid": os.getpid()}
        document = {**spec.document, **own}
        encoded = encode_line(document)
        if len(encoded) > DOCUMENT_BYTES_MAX:
            text = f"document of {len(encoded)} B exceeds document_bytes_max {DOCUMENT_BYTES_MAX}"
            raise OSError(errno.E2BIG, text)
        ours, theirs = socket.socketpair()
        #: Where the process says what it is doing, if it does.
        self.page: ProgressPage | None = None
        page_fd = None
        try:
            page_fd = ProgressPage.make_fd() if spec.has_page else None
            self.page = None if page_fd is None else ProgressPage(page_fd)
            self._process = subprocess.Popen(
                spec.command,
                stdin=subprocess.PIPE,
                stdout=output_fd,
                stderr=output_fd,
                start_new_session=True,
                pass_fds=[theirs.fileno(), *([] if page_fd is None else [page_fd])],
                env=_environment(spec, theirs.fileno(), page_fd),
            )
        except OSError:
            ours.close()
            self._close_page()
            raise
        finally:
            theirs.close()
            if page_fd is not None:
                os.close(page_fd)
        ours.setblocking(False)
        self._channel = ours
        self._lines = LineReader()
        #: Descriptors that came, oldest first.
        self._fds: deque[int] = deque()
        self.pid = self._process.pid
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            self.kill()
            self._process.wait()
            ours.close()
            self._close_page()
            raise
        self._write_document(encoded)

    def _write_document(self, encoded: bytes) -> None:
        assert self._process.stdin is not None
        # Broken: it died before it read a word; its exit will tell.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(encoded)

    @property
    def channel_fd(self) -> int:
        """Our end of the channel, readable when the child said something or closed its end."""
        return self._channel.fileno()

    def receive(self) -> list[dict[str, Any]] | None:
        """What the child said since the last call; None when it closed its end.

        A line that came with a descriptor has it as `fd`, which is the caller's from now on.

        Raises: LineError.
        """
        try:
            chunk, fds, _, _ = socket.recv_fds(self._channel, RECEIVE_BYTES, FDS_MAX)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        for fd in fds:
            os.set_inheritable(fd, False)  # it comes without the flag
        self._fds.extend(fds)
        if not chunk:
            return None
        lines = self._lines.receive(chunk)
        for line in lines:
            if line.get("fds") and self._fds:
                line["fd"] = self._fds.popleft()
        return lines

    def receive_last(self) -> list[dict[str, Any]]:
        """Everything that a dead child still had to say. Raises LineError."""
        said: list[dict[str, Any]] = []
        while lines := self.receive():
            said += lines
        return said

    def send(self, command: Mapping[str, Any], fd: int | None = None) -> None:
        """Give a command, perhaps with a copy of a descriptor.

        Raises ChannelError; a command is small and never sent in part.
        """
        line = encode_line(command if fd is None else {**command, "fds": 1})
        try:
            sent = socket.send_fds(self._channel, [line], [] if fd is None else [fd])
        except OSError as error:
            raise ChannelError(f"{self.spec.slot}: {error}") from None
        if sent != len(line):
            raise ChannelError(f"{self.spec.slot}: {sent} of {len(line)} B sent")

    def leave(self) -> None:
        """Tell a child with a control channel to go: it reads the end of its commands."""
        with contextlib.suppress(OSError):  # its end is closed already: it is going
            self._channel.shutdown(socket.SHUT_WR)

    def terminate(self) -> None:
        """Send SIGTERM to the process, which drains; its group is its own matter."""
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the whole process group."""
        self._signal(os.killpg, signal.SIGKILL)

    def _signal(self, send: Any, number: signal.Signals) -> None:
        # Gone is well, too. Only we reap it, so the number is not somebody else's yet.
        with contextlib.suppress(ProcessLookupError):
            send(self.pid, number)

    def reap(self) -> int:
        """Collect the exit of a process whose pidfd is readable; its group is killed first.

        As long as it is not reaped its number cannot be taken, so the group is surely its own.
        Returns: exit code, or minus the signal's number.
        """
        self.kill()
        returncode = self._process.wait()
        os.close(self.pidfd)
        self._channel.close()
        while self._fds:
            os.close(self._fds.popleft())
        self._close_page()
        return returncode

    def _close_page(self) -> None:
        if self.page is not None:
            self.page.close()
            self.page = None


def _environment(spec: ChildSpec, channel_fd: int, page_fd: int | None) -> dict[str, str]:
    environment = dict(os.environ)
    for name in (REPORT_FD, CONTROL_FD, PROGRESS_FD):
        environment.pop(name, None)
    paths = [str(CODE_ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment[spec.channel] = str(channel_fd)
    if page_fd is not None:
        environment[PROGRESS_FD] = str(page_fd)
    environment.update(spec.environment)
    return environment
