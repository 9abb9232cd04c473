"""Copies of listening sockets that a supervisor keeps."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from workers.supervisor.listeners import Listeners


def test_the_first_of_a_kind_is_kept_and_all_are_closed_in_the_end() -> None:
    listeners = Listeners()
    first, second, third = (socket.socket().detach() for _ in range(3))
    listeners.keep("rest", first)
    listeners.keep("rest", second)
    listeners.keep(None, third)
    assert listeners.of_command("open_rest") == first
    assert listeners.of_command("open_grpc") is None
    listeners.close()
    for fd in (first, second, third):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_the_file_of_a_unix_socket_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    door.listen()
    for _ in range(2):  # the second time it has gone already
        listeners = Listeners()
        listeners.keep("grpc", os.dup(door.fileno()))
        listeners.close()
        assert not path.exists()
    door.close()
