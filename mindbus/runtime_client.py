"""Talks to a running server over the control socket in its run directory."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from workers.supervisor.json_lines import LineError, LineReader, encode_line
from workers.supervisor.run_directory import CONTROL, RunDirectoryError, check_ipc_path

#: A supervisor answers within milliseconds; one that does not is stopped or ill.
ANSWER_TIMEOUT_S = 5.0

RECEIVE_BYTES = 65_536


class NotRunningError(Exception):
    """No server can be reached with this run directory; the text names it."""


class RefusedError(Exception):
    """The server will not do what it was asked for; the text says why."""


class RuntimeClient:
    """A connection to the supervisor of one run directory. Use it in a `with` block."""

    def __init__(self, run_directory: Path, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Connect. timeout_s: of each answer. Raises: NotRunningError."""
        self._run_directory = run_directory
        self._lines = LineReader()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        path = run_directory / CONTROL
        try:
            check_ipc_path(path)
            self._socket.connect(str(path))
        except RunDirectoryError as error:
            self._socket.close()
            raise NotRunningError(str(error)) from None
        except (FileNotFoundError, ConnectionRefusedError):
            # No socket, or the one of a server that was killed.
            self._socket.close()
            raise NotRunningError(
                f"no MindBus server runs with run directory {run_directory}"
            ) from None
        except OSError as error:
            self._socket.close()
            raise NotRunningError(f"control socket {path}: {error.strerror}") from None

    def __enter__(self) -> RuntimeClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def status(self) -> dict[str, Any]:
        """What the supervisor knows; see `Server.status`. Raises: NotRunningError."""
        status = self._ask({"command": "status"})["status"]
        assert isinstance(status, dict)
        return status

    def stop(self, grace_ms: int) -> int:
        """Stop the server and wait until every process is gone. Returns its exit code.

        Raises: NotRunningError.
        """
        self._ask({"command": "stop", "grace_ms": grace_ms})
        # What is killed at the end of the grace needs a moment more.
        self._socket.settimeout(grace_ms / 1_000 + ANSWER_TIMEOUT_S)
        return int(self._next_line()["exit_code"])

    def roll(self, command: str, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Begin a roll; returns the plan, a map per worker. `status` tells the rest.

        command: "restart", "reload", "promote" or "rollback". request: see
        `workers.supervisor.roll_plan.RollRequest`.
        Raises: RefusedError; NotRunningError.
        """
        plan = self._ask({**request, "command": command})["plan"]
        assert isinstance(plan, list)
        return plan

    def cancel_roll(self) -> None:
        """Begin no further step of the roll. Raises: RefusedError; NotRunningError."""
        self._ask({"command": "cancel"})

    def slot_command(self, command: str, slot: str) -> None:
        """Drain, kill or reset a slot. Raises: RefusedError; NotRunningError."""
        self._ask({"command": command, "slot": slot})

    def change_settings(self, wishes: Mapping[str, Any]) -> None:
        """Change log and trace settings, by the names of `telemetry.live_settings`.

        Raises: RefusedError; NotRunningError.
        """
        self._ask({**wishes, "command": "settings"})

    def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._socket.sendall(encode_line(command))
        except OSError as error:
            raise self._gone(error) from None
        answer = self._next_line()
        if not answer.get("ok"):
            raise RefusedError(f"the server refused: {answer.get('error')}")
        return answer

    def _next_line(self) -> dict[str, Any]:
        while True:
            try:
                chunk = self._socket.recv(RECEIVE_BYTES)
                lines = self._lines.receive(chunk)
            except (OSError, LineError) as error:
                raise self._gone(error) from None
            if lines:
                # One question is open at a time, so one line is all that can come.
                return lines[0]
            if not chunk:
                raise self._gone(ConnectionError("it closed the connection"))

    def _gone(self, error: Exception) -> NotRunningError:
        return NotRunningError(
            f"the MindBus server of run directory {self._run_directory} does not answer: {error}"
        )
