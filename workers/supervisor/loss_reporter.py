"""Tells the broker what the supervisor knows: deaths, services that get no more workers, shares."""

from __future__ import annotations

import zmq

from protocol.control import Control, Lost, Retire, Share, pack


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

    def report(
        self,
        worker_id: str,
        generation: int,
        reason: str,
        started: tuple[int, ...] | None,
        is_blameless: bool,
    ) -> bool:
        """Say that this generation of a worker is dead. Returns whether the socket took it.

        started: tickets that it had begun to compute, None if that is not known. is_blameless: it
        was killed by order.
        """
        return self._send(Lost(worker_id, generation, reason, started, is_blameless))

    def retire(self, service: str, reason: str) -> bool:
        """Say that nobody shall wait for workers of `servable/version`. Returns as `report`."""
        return self._send(Retire(service, reason))

    def share(
        self,
        servable: str,
        shares: tuple[tuple[int, int], ...],
        labels: tuple[tuple[str, int], ...],
    ) -> bool:
        """Split requests for version 0 and name versions, see `control.Share`. Returns as
        `report`.
        """
        return self._send(Share(servable, shares, labels))

    def _send(self, message: Control) -> bool:
        try:
            self._socket.send_multipart(pack(message), zmq.DONTWAIT)
        except zmq.Again:
            # The broker has been away for a thousand deaths; it learns of this one by silence.
            return False
        return True

    def close(self) -> None:
        """Close the socket; what was not sent is dropped."""
        self._socket.close()
        self._context.term()
