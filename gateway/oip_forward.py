"""Inference requests of the Open Inference Protocol over gRPC on their way through the bus. Pure.

A ModelInferRequest travels unopened: name, version, count and parameters are scanned, and the
worker's response passes through.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.bus import Bus
from gateway.model_directory import ModelDirectory
from gateway.requests import body_of, budget_of, failure_of_reply, pack_request
from protocol import head as heads
from protocol import oip
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.oip_scans import Scans
from protocol.values import RequestSpec


class OipForward:
    """A `gateway.forward.Forwarder` of ModelInferRequests."""

    def __init__(self, bus: Bus, directory: ModelDirectory) -> None:
        self.bus = bus
        self.scans = Scans()
        self._directory = directory

    def look(self, body: Buffer) -> tuple[oip.Scan, RequestSpec] | None:
        """Whom a ModelInferRequest is for, if no more has to be known (see `gateway.forward`)."""
        try:
            scan = self.scans.scan(body)
        except RequestError:
            return None
        spec = self._directory.kept(scan.model, scan.version)
        return None if spec is None else (scan, spec)

    def ask(
        self, body: Buffer, plan: tuple[oip.Scan, RequestSpec], budget_ms: int | None
    ) -> tuple[bytes, list[Buffer]]:
        """What the bus is asked for. Raises RequestError."""
        scan, spec = plan
        flag = scan.parameters.priority_flag
        budget = budget_of(scan.parameters, budget_ms)
        return pack_request(spec, heads.DIALECT_OIP, scan.instance_count, budget, [body], flag)

    def told(self, head: bytes, frames: Sequence[Buffer]) -> Buffer:
        """The response, from a reply of the bus. Raises RequestError."""
        failure = failure_of_reply(head, frames)
        if failure is not None:
            raise failure
        return body_of(frames)

    def failed(self, _plan: object, error: RequestError) -> RequestError:
        """The door makes a status of it."""
        return error
