"""Tells the broker which worker processes died, as soon as the supervisor sees it."""

from __future__ import annotations

import zmq

from protocol.control import Lost, pack


class LossReporter:
    """A DEALER to the broker's workers address. Not thread-safe.

    While the broker is away the reports wait in the socket; a broker that gets one about a worker
    that it does not know ignores it.
    """

    def __init__(self, workers_address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(workers_address)

    def report(self, worker_id: str, generation: int, reason: str) -> bool:
        """Say that this generation of a worker is dead. Returns whether the socket took it."""
        try:
            self._socket.send_multipart(pack(Lost(worker_id, generation, reason)), zmq.DONTWAIT)
        except zmq.Again:
            # The broker has been away for a thousand deaths; it learns of this one by silence.
            return False
        return True

    def close(self) -> None:
        """Close the socket; what was not sent is dropped."""
        self._socket.close()
        self._context.term()
