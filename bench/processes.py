"""Servers under measurement: processes that are started, watched and ended as a whole group."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine
from bench.endpoint import Endpoint, wait_until_right

#: A server that was asked to end gets so long before it is killed.
END_SECONDS_MAX = 10.0
#: Once the process that was started has gone, those below it get so long.
LEAVE_SECONDS_MAX = 3.0


class StartError(Exception):
    """A server that did not come to answer; the text has the end of its log."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Running:
    """A server that answers. first_answer_s: from its command to its first right answer."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    endpoints: list[Endpoint] = field(default_factory=list)
    first_answer_s: float = 0.0
    directory: tempfile.TemporaryDirectory[str] | None = None
    #: Processes beside it, that end before it.
    companions: list[subprocess.Popen[bytes]] = field(default_factory=list)
    #: Of our own server: its run directory, for `status`.
    run_directory: Path | None = None

    @property
    def pid(self) -> int:
        """The process that was started; all others are below it."""
        return self.process.pid

    def is_alive(self) -> bool:
        """Whether the process that was started still runs."""
        return self.process.poll() is None

    def log_end(self, characters: int = 1500) -> str:
        """The last that it wrote."""
        return self.log.read_text(errors="replace")[-characters:]

    def end(self) -> None:
        """Ask it to end, wait, and kill what is left of it."""
        family = machine.family(self.pid)
        for companion in self.companions:
            companion.kill()
            companion.wait()
        if self.is_alive():
            self.process.terminate()
            try:
                self.process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.poll()
        _kill_the_rest(family[1:])
        if self.directory is not None:
            self.directory.cleanup()


def _kill_the_rest(family: Sequence[int]) -> None:
    """Let processes go by themselves, for some clear away what they share, and kill the others."""
    deadline = time.monotonic() + LEAVE_SECONDS_MAX
    while any(Path(f"/proc/{pid}").exists() for pid in family) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def start(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: tempfile.TemporaryDirectory[str] | None = None,
) -> Running:
    """Start a command in a session of its own, in `directory`, with its output in a file there."""
    directory = directory or tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp")
    log = Path(directory.name, "output.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=directory.name,
            start_new_session=True,
        )
    return Running(name, process, log, directory=directory)


def start_and_wait(
    name: str,
    command: Sequence[str],
    endpoints: Sequence[Endpoint],
    *,
    environment: Mapping[str, str] | None = None,
    directory: tempfile.TemporaryDirectory[str] | None = None,
    seconds: float = 120.0,
) -> Running:
    """Start a server and ask at each door until the answer is right. Raises StartError."""
    begin = time.monotonic()
    running = start(name, command, environment=environment, directory=directory)
    try:
        for endpoint in endpoints:
            wait_until_right(endpoint, running.is_alive, seconds)
            running.first_answer_s = running.first_answer_s or time.monotonic() - begin
    except (TimeoutError, RuntimeError) as error:
        text = f"{name}: {error}\n{running.log_end()}"
        running.end()
        raise StartError(text) from error
    except BaseException:
        running.end()
        raise
    running.endpoints = list(endpoints)
    return running
