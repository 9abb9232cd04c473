"""The handler of MindSpore Serving's `Predict`: protobuf bytes in, protobuf bytes out.

The request travels unopened: only servable, method, version and the number of instances are read
from it, and the worker's reply passes through as it is. What the bus itself decides is put into
`PredictReply.error_msg`, as the gRPC status of an application's answer is always OK.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.bus import Bus
from gateway.exchange import note_failure
from gateway.requests import body_of, failure_of_bus, joined, pack_request, text_for_client
from protocol import head as heads
from protocol import limits, ms_service
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.values import RequestSpec

#: Whom a request is for, and its number of instances.
Plan = tuple[RequestSpec, int]


class MsServiceHandler:
    """Answers `Predict` through a bus."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    @property
    def forwarder(self) -> MsServiceHandler:
        """Every request can be forwarded (see `gateway.forward`)."""
        return self

    async def predict(self, body: bytes, budget_ms: int | None = None) -> Buffer:
        """Answer one PredictRequest with a PredictReply.

        budget_ms: the client's remaining time; None or 0 means that it named none.
        Raises: RequestError (malformed) if the body is no protobuf. Cancelling cancels the request.
        """
        plan = ms_service.scan_request(body)
        try:
            head, frames = self.ask(body, plan, budget_ms)
            return self.told(*await self.bus.request(head, frames))
        except RequestError as failure:
            return self.failed(plan, failure)

    def look(self, body: Buffer) -> Plan | None:
        """What is read of a PredictRequest."""
        try:
            return ms_service.scan_request(body)
        except RequestError:
            return None

    def ask(self, body: Buffer, plan: Plan, budget_ms: int | None) -> tuple[bytes, list[Buffer]]:
        """What the bus is asked for. Raises RequestError."""
        spec, instance_count = plan
        budget_ms = min(budget_ms or 0, limits.BUDGET_MS_MAX)
        return pack_request(spec, heads.DIALECT_MS_SERVICE, instance_count, budget_ms, [body])

    def told(self, head: bytes, frames: Sequence[Buffer]) -> Buffer:
        """The PredictReply, from a reply of the bus. Raises RequestError."""
        failure = failure_of_bus(head, frames)
        if failure is not None:
            raise failure
        return body_of(frames)

    def failed(self, plan: Plan, failure: RequestError) -> bytes:
        """The PredictReply to a request that failed."""
        note_failure(failure.reason)
        text = text_for_client(plan[0], failure)
        return joined(ms_service.encode_failure(plan[0], failure.reason, text))
