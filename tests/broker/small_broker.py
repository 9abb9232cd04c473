"""`python -m tests.broker.small_broker PRODUCERS WORKERS BYTES`: little room for unread replies."""

from __future__ import annotations

import sys

import zmq

from broker.core import Core, Settings
from broker.switch import Switch


def main() -> None:
    """Serve until killed."""
    producers, workers, unread_bytes_max = sys.argv[1:]
    switch = Switch(Core(Settings()), [producers], workers, int(unread_bytes_max))
    print("bound", flush=True)
    poller = zmq.Poller()
    for socket in switch.sockets:
        poller.register(socket, zmq.POLLIN)
    more = False
    while True:
        poller.poll(0 if more else switch.poll_timeout_ms())
        more = switch.turn()


if __name__ == "__main__":
    main()
