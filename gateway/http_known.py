"""Heads of HTTP requests that are known: what a client says again is not parsed again. Pure.

A head that is byte for byte one that the parser has read says the same. Known are only heads whose
body has a length, or none, and whose connection goes on; all others are the parser's.
"""

from __future__ import annotations

from gateway.http_arriving import ArrivingRequest
from gateway.http_messages import KnownHead

#: Heads that are known, and how long one may be for that.
HEADS_MAX = 512
HEAD_BYTES_MAX = 2048

#: What is learned in vain before it has to be earned: clients that put something new into each head
#: are not worth it.
LEARNED_MIN = 256
HITS_PER_LEARNED = 4

_END = b"\r\n\r\n"

#: With one of these, more than the head decides what becomes of the request.
_UNKNOWABLE = frozenset((b"transfer-encoding", b"expect", b"upgrade"))


class KnownHeads:
    """Those of all connections of a door."""

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}
        self._learned = 0
        self._hits = 0

    def find(self, data: bytes, bytes_max: int, now_s: float) -> ArrivingRequest | None:
        """The request that bytes are which have a known head, its body, and no more.

        bytes_max: of the body, as in `ArrivingRequest.add_body`.
        """
        end = data.find(_END, 0, HEAD_BYTES_MAX) + len(_END)
        known = self._heads.get(data[:end])
        if known is None or len(data) - end != known.body_bytes:
            return None
        self._hits += 1
        request = ArrivingRequest(known, now_s)
        request.add_body(data[end:], bytes_max)
        return request

    def learn(self, data: bytes, request: ArrivingRequest) -> None:
        """The parser has read a request, which began with these bytes."""
        headers, body_bytes = request.headers, request.body_bytes
        end = data.find(_END, 0, HEAD_BYTES_MAX) + len(_END)
        if end < len(_END) or len(data) - end != body_bytes or not request.is_kept_alive:
            return
        # The parser also takes empty lines before a request.
        if not data.startswith(b"%s %s " % (request.verb.encode("ascii"), request.target)):
            return
        if self._learned - LEARNED_MIN >= self._hits // HITS_PER_LEARNED:
            return
        lengths = [value for name, value in headers if name == b"content-length"]
        for name, value in headers:
            if name in _UNKNOWABLE or (name == b"connection" and value.lower() != b"keep-alive"):
                return
        if lengths != ([b"%d" % body_bytes] if lengths or body_bytes else []):
            return
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        self._learned += 1
        self._heads[data[:end]] = KnownHead(
            request.verb, request.target, tuple(headers), body_bytes
        )
