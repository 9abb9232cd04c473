"""The handler of MindSpore Serving's `Predict`: protobuf bytes in, protobuf bytes out.

The request travels unopened: only servable, method, version and the number of instances are read
from it, and the worker's reply passes through as it is. What the bus itself decides is put into
`PredictReply.error_msg`, as the gRPC status of an application's answer is always OK.
"""

from __future__ import annotations

from gateway.bus import Bus
from gateway.exchange import note_failure
from gateway.requests import failure_of_bus, joined, pack_request, text_for_client
from protocol import head as heads
from protocol import limits, ms_service
from protocol.errors import RequestError
from protocol.values import RequestSpec


class MsServiceHandler:
    """Answers `Predict` through a bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def predict(self, body: bytes, budget_ms: int | None = None) -> bytes:
        """Answer one PredictRequest with a PredictReply.

        budget_ms: the client's remaining time; None or 0 means that it named none.
        Raises: RequestError (malformed) if the body is no protobuf. Cancelling cancels the request.
        """
        spec, instance_count = ms_service.scan_request(body)
        budget_ms = min(budget_ms or 0, limits.BUDGET_MS_MAX)
        try:
            head, frames = pack_request(
                spec, heads.DIALECT_MS_SERVICE, instance_count, budget_ms, [body]
            )
        except RequestError as failure:
            return _failed(spec, failure)
        reply, parts = await self._bus.request(head, frames)
        failure_or_none = failure_of_bus(reply, parts)
        if failure_or_none is not None:
            return _failed(spec, failure_or_none)
        return joined(parts)


def _failed(spec: RequestSpec, failure: RequestError) -> bytes:
    note_failure(failure.reason)
    text = text_for_client(spec, failure)
    return joined(ms_service.encode_failure(spec, failure.reason, text))
