"""HTTP requests and answers, as the REST door and its handlers know them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import orjson

if TYPE_CHECKING:
    from gateway.forward import Forwarder

Header = tuple[bytes, bytes]

JSON_TYPE = b"application/json"

METHOD_NOT_ALLOWED = 405


class KnownHead:
    """A head that comes again and again, and what was made of it.

    for_door, for_handler: what these have read in it; theirs alone.
    """

    __slots__ = ("body_bytes", "for_door", "for_handler", "headers", "target", "verb")

    def __init__(
        self, verb: str, target: bytes, headers: Sequence[Header], body_bytes: int
    ) -> None:
        self.verb = verb
        self.target = target
        self.headers = headers
        self.body_bytes = body_bytes
        self.for_door: object = None
        self.for_handler: object = None


class HttpRequest(NamedTuple):
    """One request. target: as it came, without any decoding. headers: names in lower case.

    body: None if it is larger than the handler's `body_bytes_max`. reading_ms: how long ago the
    head was complete. known: if its head was known.
    """

    verb: str
    target: bytes
    headers: Sequence[Header] = ()
    body: bytes | None = b""
    reading_ms: int = 0
    known: KnownHead | None = None

    def header(self, name: bytes) -> bytes | None:
        """The value of a header; if it comes again, both are one value. None if it is not there."""
        found = None
        for each, value in self.headers:
            if each == name:
                found = value if found is None else found + b", " + value
        return found


class HttpAnswer(NamedTuple):
    """One answer. headers: more than the content's type and length."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = ()
    content_type: bytes = JSON_TYPE


def wrong_verb(verb: str, right: str) -> HttpAnswer:
    """The answer to a target that exists, but not with this verb."""
    body = orjson.dumps({"error": f"verb {verb} is not {right}"})
    return HttpAnswer(METHOD_NOT_ALLOWED, body, ((b"allow", right.encode()),))


class HttpHandler(Protocol):
    """What the REST door asks of a handler."""

    #: the largest body that the handler wants to see
    body_bytes_max: int

    @property
    def forwarder(self) -> Forwarder | None:
        """What forwards requests that need no more than that; None = there are none."""

    def handle(self, request: HttpRequest) -> Awaitable[HttpAnswer]:
        """Answer one request. Cancelling cancels it."""
