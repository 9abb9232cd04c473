"""An HTTP request that is not complete, or waits for the one before it. Pure."""

from __future__ import annotations

from gateway.http_messages import Header, HttpRequest

#: Pieces of a body that are kept as they came; further ones are small.
PIECES_MAX = 256


class ArrivingRequest:
    """What has come of it. begin_s: when its head was complete."""

    __slots__ = ("_body", "_body_bytes", "begin_s", "headers", "is_kept_alive", "target", "verb")

    def __init__(self) -> None:
        self.begin_s = 0.0
        self.verb = ""
        self.target = b""
        self.headers: list[Header] = []
        self.is_kept_alive = True
        self._body: list[bytes | bytearray] = []
        self._body_bytes = 0

    def add_body(self, piece: bytes, bytes_max: int) -> None:
        """A piece of the body; of more than so many bytes nothing is kept."""
        self._body_bytes += len(piece)
        if self._body_bytes > bytes_max:
            self._body.clear()
        elif len(self._body) < PIECES_MAX:
            self._body.append(piece)
        else:
            last = self._body[-1]
            if not isinstance(last, bytearray):
                last = self._body[-1] = bytearray(last)
            last += piece

    def complete(self, bytes_max: int, now_s: float) -> HttpRequest:
        """The request as handlers know it; its body is not kept here any longer."""
        pieces, self._body = self._body, []
        body: bytes | None = None
        if self._body_bytes <= bytes_max:
            only = pieces[0] if len(pieces) == 1 else None
            body = only if isinstance(only, bytes) else b"".join(pieces)
        reading_ms = int((now_s - self.begin_s) * 1_000)
        return HttpRequest(self.verb, self.target, self.headers, body, reading_ms)
