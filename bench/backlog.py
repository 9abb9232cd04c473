"""Requests that wait in a broker until their client goes away."""

from __future__ import annotations

import time

import zmq

from bench.endpoint import Endpoint
from protocol import head as heads

#: A broker has taken what was sent to it so long ago.
SETTLE_SECONDS = 1.0


class Backlog:
    """Sends requests to a service whose worker never answers."""

    def __init__(self, endpoint: Endpoint, count: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        socket.connect(endpoint.address)
        head, *frames = endpoint.parts
        for number in range(count):
            stamped = head[:8] + heads.REQUEST_ID.pack(number + 1) + head[16:]
            socket.send_multipart([stamped, *frames])
        time.sleep(SETTLE_SECONDS + count / 25_000)
        refused = 0
        while socket.poll(0):
            parts = socket.recv_multipart()
            refused += parts[0][3] == heads.REPLY
        if refused:
            self.close()
        assert not refused, f"{refused} of {count} requests did not stay in the backlog"

    def close(self) -> None:
        """Go away; the broker forgets the requests."""
        self._context.destroy(linger=0)
