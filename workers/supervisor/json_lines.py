"""JSON lines as they arrive: bytes in, whole objects out. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: One line; a child that sends a longer one is broken (a status of 1000 slots fits).
LINE_BYTES_MAX = 1 << 20


class LineError(Exception):
    """A line that is not a JSON object, or too long; the text says which."""


class LineReader:
    """Collects bytes of a stream and gives its lines, each once it is complete."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, chunk: bytes) -> list[dict[str, Any]]:
        """Take the next bytes of the stream; return the objects that are complete now.

        Raises: LineError; the stream is of no further use then.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            raise LineError(f"line of {len(self._rest)} B exceeds line_bytes_max {LINE_BYTES_MAX}")
        return [_decode(line) for line in lines if line.strip()]


def _decode(line: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(line)
    except ValueError as error:
        raise LineError(f"line {line[:80]!r} is not JSON: {error}") from None
    if not isinstance(decoded, dict):
        raise LineError(f"line {line[:80]!r} is not a JSON object")
    return decoded


def encode_line(content: Mapping[str, Any]) -> bytes:
    """One object as a line."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"
