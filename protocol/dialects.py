"""Which module speaks which dialect, by the number in the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from protocol import head, ms_service, native, oip, oip_json, restful
from protocol.native import Buffer
from protocol.values import Instance, MethodSignature, RequestSpec, Result


class Dialect(Protocol):
    """What a worker needs of a dialect. The modules themselves have this type."""

    def decode_request(self, frames: Sequence[Buffer], method: MethodSignature) -> list[Instance]:
        """The instances of a request. Raises RequestError: the request fails as a whole.

        `EchoedInstances` bring along what the reply needs to know of it.
        """

    def encode_reply(
        self, spec: RequestSpec, method: MethodSignature, results: Sequence[Result]
    ) -> list[Buffer]:
        """Body frames of a reply with one result per instance.

        Raises RequestError where the dialect has one error for all instances.
        """

    def encode_failure(self, spec: RequestSpec | None, reason: str, message: str) -> list[Buffer]:
        """Body frames of a reply to a request that failed as a whole."""


#: The dialect of each `head.DIALECT_…` number; a number that is missing here is `unsupported`.
DIALECTS: dict[int, Dialect] = {
    head.DIALECT_NATIVE: native,
    head.DIALECT_MS_SERVICE: ms_service,
    head.DIALECT_RESTFUL: restful,
    head.DIALECT_OIP: oip,
    head.DIALECT_OIP_JSON: oip_json,
}
