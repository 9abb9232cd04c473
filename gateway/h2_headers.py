"""Header blocks of gRPC calls: what a client's say, and how ours are written. Pure.

Clients repeat themselves: after its first call a connection's blocks are mostly a few references
into a table (RFC 7541), the same bytes each time. A block that changed nothing of the table means
the same until something does, so it is read once. Our own blocks use no table of the client's.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from hpack import Decoder, HPACKError

#: Bytes of all headers of a call, as RFC 9113 counts them (32 more for each): grpcio's limit.
HEADERS_BYTES_MAX = 16 * 1024

#: Bytes of a `grpc-message`: clients take headers of 8 KiB, and frames of 16 KiB.
MESSAGE_BYTES_MAX = 4 * 1024

#: Blocks of one connection that are remembered.
BLOCKS_MAX = 64

CONTENT_TYPE = "application/grpc"

#: Trailing metadata of a call that failed: the name of its reason (`protocol.status.REASONS`).
REASON_KEY = "mindbus-reason"

#: RFC 7541, appendix A: `:status 200` is 8, the name `content-type` 31. A literal that is not
#: indexed has four zero bits in front of its name's number.
_STATUS_200 = b"\x88"
_CONTENT_TYPE_NAME = b"\x0f\x10"

#: What is read here of the headers of a call.
_NAMES = frozenset((":method", ":path", "content-type", "grpc-timeout", "grpc-encoding"))

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_NS_OF_UNIT = {
    "H": 3_600_000_000_000,
    "M": 60_000_000_000,
    "S": 1_000_000_000,
    "m": 1_000_000,
    "u": 1_000,
    "n": 1,
}


class HeaderError(Exception):
    """A block that cannot be read: the connection's table is of no further use."""


class CallHead(NamedTuple):
    """What the headers of a call say.

    timeout_ns: from its arrival; None = no deadline. encoding: of compressed messages. wrong: why
    this is no call of gRPC (a field and its value), None if it is one; http_status says so then.
    """

    path: str
    timeout_ns: int | None
    encoding: str
    metadata: Mapping[str, str]
    wrong: str | None = None
    http_status: int = 200


class HeaderReader:
    """Reads the blocks of one connection, in the order in which they came.

    names: of the headers that are kept in `CallHead.metadata`.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._decoder = Decoder(HEADERS_BYTES_MAX)
        self._known: dict[bytes, CallHead] = {}

    def read(self, block: bytes) -> CallHead:
        """What a block says. Raises HeaderError."""
        known = self._known.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table
        # Compared by identity below: mypyc makes new tuples of those whose type it knows.
        entries: deque[Any] = table.dynamic_entries
        before = (entries[0] if entries else None, len(entries), table.maxsize)
        try:
            fields = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            raise HeaderError(f"header block cannot be read: {error}") from None
        head = _head(fields, self._names)
        first = entries[0] if entries else None
        if first is not before[0] or (len(entries), table.maxsize) != before[1:]:
            self._known.clear()
        elif len(self._known) < BLOCKS_MAX:
            self._known[block] = head
        return head


def _head(fields: Iterable[tuple[bytes, bytes]], names: frozenset[str]) -> CallHead:
    metadata: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name = raw_name.decode("latin-1")
        if name in _NAMES or name in names:
            value = raw_value.decode("latin-1")
            # One that comes again is one value with the first (RFC 9110, 5.3).
            metadata[name] = f"{metadata[name]}, {value}" if name in metadata else value
    path = metadata.pop(":path", "")
    wrong, http_status = _wrong(metadata, path)
    timeout_ns = None
    timeout = metadata.get("grpc-timeout")
    if timeout is not None and wrong is None:
        found = _TIMEOUT.fullmatch(timeout)
        if found is None:
            wrong = f"grpc-timeout {timeout!r:.40} is not 1 to 8 digits and one of H, M, S, m, u, n"
            http_status = 400
        else:
            timeout_ns = int(found[1]) * _NS_OF_UNIT[found[2]]
    encoding = metadata.get("grpc-encoding", "identity")
    return CallHead(path, timeout_ns, encoding, metadata, wrong, http_status)


def _wrong(metadata: Mapping[str, str], path: str) -> tuple[str | None, int]:
    method, content_type = metadata.get(":method", ""), metadata.get("content-type", "")
    if method != "POST":
        return f":method {method!r:.40} is not 'POST'", 405
    if not path.startswith("/"):
        return f":path {path!r:.80} does not begin with a slash", 400
    kind = content_type[: len(CONTENT_TYPE)]
    if kind != CONTENT_TYPE or content_type[len(CONTENT_TYPE) :][:1] not in ("", "+", ";"):
        return f"content-type {content_type!r:.80} is not {CONTENT_TYPE!r}", 415
    return None, 200


# ---------------------------------------------------------------- ours


def literal(name: str, value: str) -> bytes:
    """A field that nobody remembers. name: lower case; value: printable ASCII."""
    raw_name, raw_value = name.encode("ascii"), value.encode("ascii")
    return b"\0" + _length(len(raw_name)) + raw_name + _length(len(raw_value)) + raw_value


def status_block(http_status: int, content_type: str = CONTENT_TYPE) -> bytes:
    """The fields of a reply's beginning."""
    status = _STATUS_200 if http_status == 200 else literal(":status", str(http_status))
    return status + _CONTENT_TYPE_NAME + _length(len(content_type)) + content_type.encode("ascii")


def trailers(code: int, message: str, metadata: Iterable[tuple[str, str]]) -> bytes:
    """The fields of a call's end. message: any text, percent-encoded as gRPC wants it."""
    block = literal("grpc-status", str(code))
    if message:
        block += literal("grpc-message", _quoted(message))
    return block + b"".join([literal(name, value) for name, value in metadata])


def _quoted(message: str) -> str:
    """Percent-encoded, and cut where it is too long."""
    quoted = quote(message, safe=_UNQUOTED)
    while len(quoted) > MESSAGE_BYTES_MAX:
        message = message[: len(message) * MESSAGE_BYTES_MAX // (len(quoted) + 3)]
        quoted = quote(message, safe=_UNQUOTED) + "..."
    return quoted


#: Printable ASCII but the percent sign.
_UNQUOTED = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def _length(length: int) -> bytes:
    """An integer with a prefix of 7 bits (RFC 7541, 5.1), not Huffman coded."""
    if length < 0x7F:
        return bytes((length,))
    parts = bytearray((0x7F,))
    length -= 0x7F
    while length >= 0x80:
        parts.append(length & 0x7F | 0x80)
        length >>= 7
    parts.append(length)
    return bytes(parts)
