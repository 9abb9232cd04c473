"""Listening sockets of the doors."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from pathlib import Path

from gateway.addresses import TcpAddress

#: Connections that wait to be accepted.
BACKLOG = 2048

#: How long another server may take to show that it listens at a unix socket.
PROBE_S = 2.0


async def listen_tcp(where: TcpAddress) -> socket.socket:
    """A listening socket; its address is free to be taken again right after a restart.

    Raises: OSError, UnicodeError.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, name = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(name)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def listen_unix(path: str) -> socket.socket:
    """A listening unix socket; the file of one that nobody listens at any more is replaced.

    Raises: OSError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_if_dead(path)
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _remove_if_dead(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        with contextlib.suppress(FileNotFoundError):
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                if stat.S_ISSOCK(Path(path).stat().st_mode):
                    Path(path).unlink()
