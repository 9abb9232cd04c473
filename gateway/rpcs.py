"""RPCs as the gRPC door carries them: messages are bytes, failures are raised."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from gateway.forward import Forwarder
from protocol.native import Buffer

#: Answers one message; gets the milliseconds that are left of the call's deadline, None = it has
#: none. Raises RequestError.
Unary = Callable[[bytes, int | None], Awaitable[Buffer]]

#: Answers one message with a stream, which may last as long as the call.
ServerStream = Callable[[bytes], AsyncIterator[bytes]]

#: Answers a stream with a stream.
BothStreams = Callable[[AsyncIterator[bytes], int | None], AsyncIterator[bytes]]


class Rpcs(NamedTuple):
    """RPCs by their full names, such as `/grpc.health.v1.Health/Check`.

    forwarders: of those among the unary ones whose calls may need no more than that.
    """

    unary: Mapping[str, Unary]
    server_streams: Mapping[str, ServerStream]
    both_streams: Mapping[str, BothStreams]
    forwarders: Mapping[str, Forwarder] = MappingProxyType({})

    def __or__(self, other: Rpcs) -> Rpcs:
        """All of both."""
        return Rpcs(
            {**self.unary, **other.unary},
            {**self.server_streams, **other.server_streams},
            {**self.both_streams, **other.both_streams},
            {**self.forwarders, **other.forwarders},
        )


NO_RPCS = Rpcs({}, {}, {})
