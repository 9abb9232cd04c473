"""The supervisor's own door: JSON lines over a unix socket, for the CLI on the same machine."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workers.supervisor.json_lines import LineError, LineReader, encode_line

#: Connections at once; a further one is closed without a word.
CONNECTIONS_MAX = 32

#: A status must be taken within this time, or the connection is closed.
SEND_TIMEOUT_S = 0.2

RECEIVE_BYTES = 65_536


class ControlConnection:
    """One CLI that is connected."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.lines = LineReader()

    def send(self, content: Mapping[str, Any]) -> None:
        """Answer with one line. Raises OSError if the other end is gone or does not read."""
        self.socket.settimeout(SEND_TIMEOUT_S)
        try:
            self.socket.sendall(encode_line(content))
        finally:
            self.socket.setblocking(False)


Answer = Callable[[dict[str, Any]], Mapping[str, Any]]


class ControlListener:
    """Accepts connections and answers each of their lines. Lives on the selector's thread.

    answer: from a command to its reply; called for each line in turn.
    """

    def __init__(self, path: Path, selector: selectors.BaseSelector, answer: Answer) -> None:
        self._selector = selector
        self._answer = answer
        self._connections: set[ControlConnection] = set()
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen(CONNECTIONS_MAX)
        self._listening.setblocking(False)
        selector.register(self._listening, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        try:
            connected, _ = self._listening.accept()
        except OSError:
            # It went away again, or descriptors ran out: the next one may be luckier.
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            connected.close()
            return
        connected.setblocking(False)
        connection = ControlConnection(connected)
        self._connections.add(connection)
        self._selector.register(connected, selectors.EVENT_READ, lambda: self._receive(connection))

    def _receive(self, connection: ControlConnection) -> None:
        if connection not in self._connections:
            return
        try:
            chunk = connection.socket.recv(RECEIVE_BYTES)
            if not chunk:
                self._close(connection)
                return
            for command in connection.lines.receive(chunk):
                connection.send(self._answer(command))
        except BlockingIOError:
            return
        except LineError as error:
            self._say_last(connection, {"ok": False, "error": str(error)})
        except OSError:
            self._close(connection)

    def _say_last(self, connection: ControlConnection, content: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more: closing is all that is left
            connection.send(content)
        self._close(connection)

    def _close(self, connection: ControlConnection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def close(self, last_words: Mapping[str, Any]) -> None:
        """Say the last line to everybody who is connected, then close everything."""
        self._selector.unregister(self._listening)
        self._listening.close()
        for connection in list(self._connections):
            self._say_last(connection, last_words)
