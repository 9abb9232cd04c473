"""What ends an HTTP/2 connection."""

from __future__ import annotations


class Http2Error(Exception):
    """The client broke the protocol: its connection ends. code: of GOAWAY (`h2_frames`)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
