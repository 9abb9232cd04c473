"""Connections that stay open and ask nothing: `python -m bench.idle_clients ADDRESS COUNT`.

Each has made one request, so that it is known at the door; prints `ready` when all are there.
"""

from __future__ import annotations

import resource
import socket
import sys
import time

#: Descriptors of this process beside the connections.
SPARE = 64
REQUEST = b"GET /v2/health/live HTTP/1.1\r\nHost: bench\r\n\r\n"


def main() -> None:
    """Connect, say so, and stay."""
    host, port = sys.argv[1].split(":")
    count = int(sys.argv[2])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + SPARE), hard))
    connections = []
    for _ in range(count):
        connection = socket.create_connection((host, int(port)))
        connection.sendall(REQUEST)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200"), "the door does not answer"
        connections.append(connection)
    print("ready", flush=True)
    while True:
        time.sleep(60)
        # Doors end what asks nothing for long; each asks again in time.
        for connection in connections:
            connection.sendall(REQUEST)
            connection.recv(4096)


if __name__ == "__main__":
    main()
