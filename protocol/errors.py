"""Errors of the wire: what a peer did wrong, and what a request is answered with."""


class RemoteProtocolError(Exception):
    """A peer sent bytes that break the protocol; the text says which rule.

    Raised only inside `protocol/` and the pure machines; a shell counts it, answers with
    DISCONNECT or INVALID_ARGUMENT where an answer is possible, and goes on.
    """


class RequestError(Exception):
    """A request that fails as a whole, with the reason a client can act on.

    reason: a name of `status.REASONS`; it decides gRPC, HTTP and MindSpore Serving codes.
    message: names the thing, the value and the limit; safe to show to a client.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
