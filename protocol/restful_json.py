"""JSON documents, and what is wrong with one, in the words of the parser that clients know.

A legal document is parsed by orjson. Only for an illegal one the scanner below runs over the
bytes, to say line, column, the text read last and what was expected, as nlohmann's JSON 3.10 does:
MindSpore Serving shows those texts to its clients.

Known differences. A text after `invalid literal` is cut, as the original does. A number that
overflows a double is refused by both. Nesting beyond 1024 levels and a NUL byte behind the document
are refused here only. Numbers outside of int64 and uint64 become doubles in both.
"""

from __future__ import annotations

import math
import re
from typing import Any

import orjson

from protocol.errors import RequestError
from protocol.native import Buffer

#: Illegal documents up to this size get the scanner's diagnosis, which takes up to 2.5 µs per
#: token, so 20 ms at most. Larger ones get the position and text that orjson found in passing.
DIAGNOSED_BYTES_MAX = 16 * 1024

_BOM = b"\xef\xbb\xbf"
_ILLEGAL = "Illegal JSON format."


def parse_json(body: Buffer) -> Any:
    """A document as Python values: duplicated keys are merged (the last wins), order is kept.

    Raises: RequestError (malformed) with `Illegal JSON format.` and the parser's text; without
    that text where it would quote bytes that are not UTF-8.
    """
    try:
        return orjson.loads(body[3:] if body[:3] == _BOM else body)
    except orjson.JSONDecodeError as error:
        raise RequestError("malformed", _ILLEGAL + _describe(bytes(body), error)) from None


def _describe(body: bytes, error: orjson.JSONDecodeError) -> str:
    text = None
    if len(body) <= DIAGNOSED_BYTES_MAX:
        text = diagnose(body)
    if text is None:
        where = f"line {error.lineno}, column {error.colno}"
        text = f"[json.exception.parse_error.101] parse error at {where}: {error.msg}"
    before, found, _ = text.partition("invalid literal")
    return before + found


def diagnose(body: bytes) -> str | None:
    """The first error of a document, as nlohmann's JSON 3.10 words it; None if it finds none.

    Empty where the text would quote bytes that are not UTF-8.
    """
    scanner = _Scanner(body)
    try:
        _check_document(scanner)
    except _DiagnosedError as error:
        return str(error)
    except UnicodeDecodeError:
        return ""
    return None


class _DiagnosedError(Exception):
    """The diagnosis of the first error; its text is complete."""


# Token names are the parser's own, because its texts quote them.
_STRING = "string literal"
_NUMBER = "number literal"
_END = "end of input"
_BROKEN = "<parse error>"
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_VALUES = (_STRING, "true literal", "false literal", "null literal")


def _check_document(scanner: _Scanner) -> None:
    """Walk over a document with a stack of the containers that are open."""
    closers: list[str] = []
    found = scanner.read()
    while True:
        if found == "'['":
            found = scanner.read()
            if found != "']'":
                closers.append("']'")
                continue
        elif found == "'{'":
            found = scanner.read()
            if found != "'}'":
                closers.append("'}'")
                found = _check_key(scanner, found)
                continue
        elif found == _NUMBER:
            scanner.check_number()
        elif found == _BROKEN:
            raise scanner.unexpected(found, "value", None)
        elif found not in _VALUES:
            raise scanner.unexpected(found, "value", "'[', '{', or a literal")
        following = _close(scanner, closers)
        if following is None:
            return
        found = following


def _close(scanner: _Scanner, closers: list[str]) -> str | None:
    """After a value: the token of the next value, or None at the end of the document."""
    while closers:
        found = scanner.read()
        closer = closers[-1]
        if found == "','":
            found = scanner.read()
            return _check_key(scanner, found) if closer == "'}'" else found
        if found != closer:
            raise scanner.unexpected(found, "object" if closer == "'}'" else "array", closer)
        closers.pop()
    found = scanner.read()
    if found != _END:
        raise scanner.unexpected(found, "value", _END)
    return None


def _check_key(scanner: _Scanner, found: str) -> str:
    """A key and its colon; returns the token of the value."""
    if found != _STRING:
        raise scanner.unexpected(found, "object key", _STRING)
    found = scanner.read()
    if found != "':'":
        raise scanner.unexpected(found, "object separator", "':'")
    return scanner.read()


# Each pattern takes the longest legal run; the byte behind it decides about legality.
_SPACE_RUN = re.compile(rb"[ \t\n\r]*")
_NUMBER_RUN = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_TEXT_RUN = re.compile(
    rb"(?:[ !#-\[\]-\x7f]++"
    rb"|[\xc2-\xdf][\x80-\xbf]"
    rb"|\xe0[\xa0-\xbf][\x80-\xbf]|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})*+"
)
_HEX_RUN = re.compile(rb"[0-9A-Fa-f]{0,4}")

_BACKSLASH_U = "invalid string: '\\u' must be followed by 4 hex digits"
_NO_LOW = "invalid string: surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF"
_NO_HIGH = "invalid string: surrogate U+DC00..U+DFFF must follow U+D800..U+DBFF"
_CONTROL_NAMES = (
    "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR",
    "SO", "SI", "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC",
    "FS", "GS", "RS", "US",
)  # fmt: skip
_SHORT_ESCAPES = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}


class _Scanner:
    """Tokens of a document, and where and how the last one was read."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        #: Bytes read, and one more once the end of the input was read: columns count so.
        self._at = len(_BOM) if body.startswith(_BOM) else 0
        self._token_at = 0
        self._reason = ""
        self._is_column_lost = False

    def read(self) -> str:
        """The name of the next token; `<parse error>` leaves its reason behind."""
        body = self._body
        self._is_column_lost = False
        at = _SPACE_RUN.match(body, min(self._at, len(body))).end()  # type: ignore[union-attr]
        self._token_at = at
        self._at = at + 1
        if at >= len(body) or body[at] == 0:
            return _END
        byte = body[at]
        if byte in b"[]{},:":
            return f"'{chr(byte)}'"
        if byte == 0x22:
            return self._read_string()
        if byte in b"-0123456789":
            return self._read_number()
        return self._read_literal(byte)

    def _fail(self, at: int, reason: str) -> str:
        """The byte number `at` (or the end of the input) is the first that cannot be."""
        self._at = min(at, len(self._body)) + 1
        self._reason = reason
        return _BROKEN

    def _read_literal(self, byte: int) -> str:
        literal = _LITERALS.get(byte, b"")
        at = self._token_at + 1
        for expected in literal[1:]:
            if self._body[at : at + 1] != bytes((expected,)):
                return self._fail(at, "invalid literal")
            at += 1
        if not literal:
            return self._fail(self._token_at, "invalid literal")
        self._at = at
        return f"{literal.decode()} literal"

    def _read_number(self) -> str:
        body = self._body
        match = _NUMBER_RUN.match(body, self._token_at)
        if match is None:
            return self._fail(self._token_at + 1, "invalid number; expected digit after '-'")
        end = match.end()
        follower = body[end : end + 1]
        if follower == b"." and match[1] is None and match[2] is None:
            return self._fail(end + 1, "invalid number; expected digit after '.'")
        if follower in (b"e", b"E") and match[2] is None:
            if body[end + 1 : end + 2] in (b"+", b"-"):
                return self._fail(end + 2, "invalid number; expected digit after exponent sign")
            return self._fail(end + 1, "invalid number; expected '+', '-', or digit after exponent")
        # The parser reads one byte too far and gives it back; a newline takes the column along.
        self._at = end
        self._is_column_lost = follower == b"\n"
        return _NUMBER

    def _read_string(self) -> str:
        body = self._body
        at = self._token_at + 1
        while True:
            at = _TEXT_RUN.match(body, at).end()  # type: ignore[union-attr]
            if at >= len(body):
                return self._fail(at, "invalid string: missing closing quote")
            byte = body[at]
            if byte == 0x22:
                self._at = at + 1
                return _STRING
            if byte < 0x20:
                return self._fail(at, _control_text(byte))
            if byte != 0x5C:
                # "ill-formed UTF-8 byte", which would be quoted: such a text is never shown.
                raise _DiagnosedError("")
            at, reason = _skip_escape(body, at + 1)
            if reason:
                return self._fail(at, reason)

    def check_number(self) -> None:
        """The number just read, as a value. Raises _DiagnosedError if no double can hold it."""
        number = self._body[self._token_at : self._at]
        if math.isinf(float(number)):
            raise _DiagnosedError(
                f"[json.exception.out_of_range.406] number overflow parsing '{number.decode()}'"
            )

    def unexpected(self, found: str, context: str, expected: str | None) -> _DiagnosedError:
        """The diagnosis: `found` came while parsing `context`, where `expected` should have."""
        body = self._body
        line_at = body.rfind(b"\n", 0, self._at) + 1
        line = body.count(b"\n", 0, self._at) + 1
        column = 0 if self._is_column_lost and found == _NUMBER else self._at - line_at
        if found == _BROKEN:
            what = f"{self._reason}; last read: '{self._last_read()}'"
        else:
            what = f"unexpected {found}"
        text = (
            f"[json.exception.parse_error.101] parse error at line {line}, column {column}: "
            f"syntax error while parsing {context} - {what}"
        )
        return _DiagnosedError(f"{text}; expected {expected}" if expected else text)

    def _last_read(self) -> str:
        if self._reason == "invalid literal":
            return ""
        read = self._body[self._token_at : self._at].decode()
        return "".join(f"<U+{ord(c):04X}>" if c <= "\x1f" else c for c in read)


def _control_text(byte: int) -> str:
    escaped = f"\\u{byte:04X}"
    if byte in _SHORT_ESCAPES:
        escaped += f" or {_SHORT_ESCAPES[byte]}"
    return (
        f"invalid string: control character U+{byte:04X} ({_CONTROL_NAMES[byte]}) "
        f"must be escaped to {escaped}"
    )


def _skip_escape(body: bytes, at: int) -> tuple[int, str]:
    """Behind a backslash: where its escape ends and "", or where it breaks and the reason."""
    byte = body[at : at + 1]
    if byte and byte in b'"\\/bfnrt':
        return at + 1, ""
    if byte != b"u":
        return at, "invalid string: forbidden character after backslash"
    end = _HEX_RUN.match(body, at + 1).end()  # type: ignore[union-attr]
    if end < at + 5:
        return end, _BACKSLASH_U
    code = int(body[at + 1 : end], 16)
    if 0xDC00 <= code <= 0xDFFF:
        return end - 1, _NO_HIGH
    if not 0xD800 <= code <= 0xDBFF:
        return end, ""
    return _skip_low_surrogate(body, end)


def _skip_low_surrogate(body: bytes, at: int) -> tuple[int, str]:
    if body[at : at + 1] != b"\\":
        return at, _NO_LOW
    if body[at + 1 : at + 2] != b"u":
        return at + 1, _NO_LOW
    end = _HEX_RUN.match(body, at + 2).end()  # type: ignore[union-attr]
    if end < at + 6:
        return end, _BACKSLASH_U
    if 0xDC00 <= int(body[at + 2 : end], 16) <= 0xDFFF:
        return end, ""
    return end - 1, _NO_LOW
