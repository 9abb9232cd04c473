"""`python -m mindbus serve` as a process under test: own run directory, free ports, no leftovers.

with ServerProcess(servables, "--backend", "numpy") as server:
    server.grpc_address, server.rest_address, server.producers_address
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mindbus.runtime_client import RuntimeClient
from tests.processes.books import check_books
from tests.processes.waiting import DEADLINE_S, descendants, wait_gone

CHECKOUT = Path(__file__).resolve().parents[2]

READY_TEXT = "MindBus: ready"


class ServerProcess:
    """A server in a process of its own. The `with` block begins when it is ready.

    At its end, if nothing failed and the server still runs, the broker's books must balance and its
    tables be empty. Then it is stopped, and every process that it ever showed as its own must be
    gone, with every socket file and all shared memory.
    """

    def __init__(
        self,
        servable_directory: Path,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """flags: more of `mindbus serve`'s. Spawns at once; `wait_ready` waits."""
        self._root = tempfile.mkdtemp(dir="/tmp", prefix="mb-")
        self.run_directory = Path(self._root, "run")
        self._deadline_s = deadline_s
        self._lines: list[str] = []
        self._errors: list[str] = []
        self._news = threading.Condition()
        self._seen: set[int] = set()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mindbus", "serve"),
                *("--servable-directory", str(servable_directory)),
                *("--run-directory", str(self.run_directory)),
                *("--grpc-port", "0", "--rest-port", "0"),
                *flags,
            ],
            cwd=CHECKOUT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in (
                (self.process.stdout, self._lines),
                (self.process.stderr, self._errors),
            )
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._news:
                lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def __enter__(self) -> ServerProcess:
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None or self.process.poll() is not None:
            self.close()
            return
        try:
            self.check_books()
            code = self.stop()
            assert (code, self.left_behind()) == (0, []), "an orderly stop leaves nothing"
        finally:
            self.close()

    # ------------------------------------------------------------ what it says

    @property
    def stdout(self) -> list[str]:
        """The lines so far."""
        with self._news:
            return list(self._lines)

    @property
    def stderr(self) -> list[str]:
        """The lines so far, log and error texts."""
        with self._news:
            return list(self._errors)

    def wait_line(self, is_it: Callable[[str], bool]) -> str:
        """Wait for a line on stdout. Raises AssertionError with what came instead."""

        def found() -> str | None:
            return next((line for line in self._lines if is_it(line)), None)

        with self._news:
            self._news.wait_for(
                lambda: found() or not self._readers[0].is_alive(), self._deadline_s
            )
            line = found()
        if line is None:
            raise AssertionError("\n".join(["the line did not come", *self.stdout, *self.stderr]))
        return line

    def wait_ready(self) -> str:
        """Wait until every worker is READY; returns the line that says so."""
        line = self.wait_line(lambda line: line.startswith(READY_TEXT))
        self.remember_processes()
        return line

    # ------------------------------------------------------------ where it is

    def addresses(self) -> dict[str, Any]:
        """`server.json`: pid, doors, producers, workers, control."""
        content: dict[str, Any] = json.loads((self.run_directory / "server.json").read_text())
        return content

    @property
    def grpc_address(self) -> str:
        """`host:port` of the gRPC door."""
        return str(self.addresses()["doors"]["grpc"])

    @property
    def rest_address(self) -> str:
        """`host:port` of the REST door."""
        return str(self.addresses()["doors"]["rest"])

    @property
    def producers_address(self) -> str:
        """Where a direct client connects."""
        return str(self.addresses()["producers"][0])

    def status(self) -> dict[str, Any]:
        """The supervisor's status; see `Server.status`."""
        with RuntimeClient(self.run_directory) as client:
            return client.status()

    def slot(self, name: str) -> dict[str, Any]:
        """The status of one slot."""
        return next(slot for slot in self.status()["slots"] if slot["slot"] == name)

    def remember_processes(self) -> set[int]:
        """Every process below the server now; `close` will ask for them."""
        now = descendants(self.process.pid)
        self._seen |= now
        return now

    def check_books(self) -> None:
        """Its clients have stopped: every request must end, and the broker's books balance."""
        check_books(self.producers_address)

    def left_behind(self) -> list[str]:
        """Socket files and names of shared memory of a server that has ended."""
        sockets = [path for path in self.run_directory.rglob("*") if path.is_socket()]
        shared = Path("/dev/shm").glob("*mindbus*")
        return [str(path) for path in (*sockets, *shared)]

    # ------------------------------------------------------------ its end

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end. Returns the exit code; nobody may be left."""
        self.remember_processes()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end. Returns the exit code; nobody may be left."""
        code = self.process.wait(self._deadline_s)
        for pid in self._seen:
            wait_gone(pid, deadline_s=5)
        for reader in self._readers:
            reader.join(self._deadline_s)
        return code

    def close(self) -> None:
        """Stop it if it runs, by force if need be, and remove its run directory."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()
            raise
        finally:
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()
            shutil.rmtree(self._root, ignore_errors=True)
