"""An HTTP request that is not complete, or waits for the one before it. Pure."""

from __future__ import annotations

from gateway.http_messages import Header, HttpRequest, KnownHead

#: Headers with which a client offers another protocol.
UPGRADE_HEADERS = (b"upgrade", b"http2-settings")

#: Pieces of a body that are kept as they came; further ones are small.
PIECES_MAX = 256


class ArrivingRequest:
    """What has come of it. begin_s: when its head was complete. known: its head was known."""

    __slots__ = (
        "_body",
        "begin_s",
        "body_bytes",
        "headers",
        "is_kept_alive",
        "known",
        "target",
        "verb",
    )

    def __init__(self, known: KnownHead | None = None, begin_s: float = 0.0) -> None:
        self.begin_s = begin_s
        self.known = known
        self.verb = "" if known is None else known.verb
        self.target = b"" if known is None else known.target
        self.headers: list[Header] = []
        self.is_kept_alive = True
        self._body: list[bytes | bytearray] = []
        self.body_bytes = 0

    def add_body(self, piece: bytes, bytes_max: int) -> None:
        """A piece of the body; of more than so many bytes nothing is kept."""
        self.body_bytes += len(piece)
        if self.body_bytes > bytes_max:
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
        if self.body_bytes <= bytes_max:
            only = pieces[0] if len(pieces) == 1 else None
            body = only if isinstance(only, bytes) else b"".join(pieces)
        reading_ms = int((now_s - self.begin_s) * 1_000)
        known = self.known
        headers = self.headers if known is None else known.headers
        return HttpRequest(self.verb, self.target, headers, body, reading_ms, known)

    def declined(self, method: bytes, version: str, rest: bytes) -> bytes:
        """The request and all behind it as if its client had not offered another protocol.

        method, version: as in its first line.
        """
        lines = [method, b" ", self.target, b" HTTP/", version.encode(), b"\r\n"]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip().lower() for option in value.split(b",")]
                kept = [option for option in options if option not in UPGRADE_HEADERS]
                lines += [name, b": ", b",".join(kept), b"\r\n"]
            elif name not in UPGRADE_HEADERS:
                lines += [name, b": ", value, b"\r\n"]
        return b"".join([*lines, b"\r\n", rest])
