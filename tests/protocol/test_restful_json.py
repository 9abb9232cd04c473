"""What is wrong with a JSON document, in the words of the parser that clients know."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from protocol.errors import RequestError
from protocol.restful import parse_json
from protocol.restful_json import DIAGNOSED_BYTES_MAX, diagnose


def illegal(body: bytes) -> str:
    """The text behind `Illegal JSON format.`."""
    with pytest.raises(RequestError) as caught:
        parse_json(body)
    assert caught.value.reason == "malformed"
    head, found, text = caught.value.message.partition("Illegal JSON format.")
    assert (head, found) == ("", "Illegal JSON format.")
    return text


def at(line: int, column: int, text: str) -> str:
    where = f"parse error at line {line}, column {column}"
    return f"[json.exception.parse_error.101] {where}: syntax error while parsing {text}"


VALUE = "; expected '[', '{', or a literal"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", at(1, 1, f"value - unexpected end of input{VALUE}")),
        (b" \n ", at(2, 2, f"value - unexpected end of input{VALUE}")),
        (b"]", at(1, 1, f"value - unexpected ']'{VALUE}")),
        (b"[1,]", at(1, 4, f"value - unexpected ']'{VALUE}")),
        (b"[", at(1, 2, f"value - unexpected end of input{VALUE}")),
        (b"[1 2]", at(1, 4, "array - unexpected number literal; expected ']'")),
        (b"[1:2]", at(1, 3, "array - unexpected ':'; expected ']'")),
        (b'[[1],\n\n "a" null]', at(3, 9, "array - unexpected null literal; expected ']'")),
        (b"{", at(1, 2, "object key - unexpected end of input; expected string literal")),
        (b"{1:2}", at(1, 2, "object key - unexpected number literal; expected string literal")),
        (b"{1\n:2}", at(1, 0, "object key - unexpected number literal; expected string literal")),
        (b'{"a":1,}', at(1, 8, "object key - unexpected '}'; expected string literal")),
        (b'{"a" 1}', at(1, 6, "object separator - unexpected number literal; expected ':'")),
        (b'{"a"', at(1, 5, "object separator - unexpected end of input; expected ':'")),
        (b'{"a":1', at(1, 7, "object - unexpected end of input; expected '}'")),
        (b'{"a":1 true}', at(1, 11, "object - unexpected true literal; expected '}'")),
        (b'{"a":1}}', at(1, 8, "value - unexpected '}'; expected end of input")),
        (b"01", at(1, 2, "value - unexpected number literal; expected end of input")),
        (b"\xef\xbb\xbf{]", at(1, 5, "object key - unexpected ']'; expected string literal")),
    ],
)
def test_unexpected_tokens_are_named_with_place_and_expectation(body: bytes, text: str) -> None:
    assert illegal(body) == text


@pytest.mark.parametrize(
    ("body", "column", "context"),
    [
        (b"x", 1, "value"),
        (b"nul", 4, "value"),
        (b'{"a":trux}', 9, "value"),
        (b'{"a":NaN}', 6, "value"),
        (b"{'a':1}", 2, "object key"),
        (b"[1 'a']", 4, "array"),
        (b"\xe9", 1, "value"),
    ],
)
def test_nothing_follows_an_invalid_literal(body: bytes, column: int, context: str) -> None:
    assert illegal(body) == at(1, column, f"{context} - invalid literal")


@pytest.mark.parametrize(
    ("body", "column", "reason"),
    [
        (b"-", 2, "invalid number; expected digit after '-'"),
        (b"-x", 2, "invalid number; expected digit after '-'"),
        (b"1.", 3, "invalid number; expected digit after '.'"),
        (b"1.e", 3, "invalid number; expected digit after '.'"),
        (b"2e", 3, "invalid number; expected '+', '-', or digit after exponent"),
        (b"2.5Ex", 5, "invalid number; expected '+', '-', or digit after exponent"),
        (b"2e+", 4, "invalid number; expected digit after exponent sign"),
        (b'"a', 3, "invalid string: missing closing quote"),
        (b'"\\', 3, "invalid string: forbidden character after backslash"),
        (b'"\\x', 3, "invalid string: forbidden character after backslash"),
        (b'"\\u00g', 6, "invalid string: '\\u' must be followed by 4 hex digits"),
        (b'"\\u00', 6, "invalid string: '\\u' must be followed by 4 hex digits"),
        (b'"\\ud800\\u00', 12, "invalid string: '\\u' must be followed by 4 hex digits"),
    ],
)
def test_broken_tokens_are_quoted_up_to_the_byte_that_cannot_be(
    body: bytes, column: int, reason: str
) -> None:
    assert illegal(body) == at(1, column, f"value - {reason}; last read: '{body.decode()}'")


NO_LOW = "surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF"
NO_HIGH = "surrogate U+DC00..U+DFFF must follow U+D800..U+DBFF"


@pytest.mark.parametrize(
    ("body", "read", "reason"),
    [
        (b'"\\ud800"', '"\\ud800"', NO_LOW),
        (b'"\\ud800\\n"', '"\\ud800\\n', NO_LOW),
        (b'"\\ud800\\u0041"', '"\\ud800\\u0041', NO_LOW),
        (b'"\\udc00"', '"\\udc00', NO_HIGH),
    ],
)
def test_lone_surrogates_are_refused(body: bytes, read: str, reason: str) -> None:
    column = len(read)
    expected = f"value - invalid string: {reason}; last read: '{read}'"
    assert illegal(body) == at(1, column, expected)


@pytest.mark.parametrize(
    ("byte", "name", "escape"),
    [
        (0, "NUL", "\\u0000"),
        (8, "BS", "\\u0008 or \\b"),
        (9, "HT", "\\u0009 or \\t"),
        (12, "FF", "\\u000C or \\f"),
        (13, "CR", "\\u000D or \\r"),
        (31, "US", "\\u001F"),
    ],
)
def test_control_characters_in_strings_are_named(byte: int, name: str, escape: str) -> None:
    code = f"U+{byte:04X}"
    assert illegal(b'["' + bytes([byte])) == at(
        1,
        3,
        f"value - invalid string: control character {code} ({name}) must be escaped to {escape}; "
        f"last read: '\"<{code}>'",
    )


def test_a_newline_in_a_string_counts_as_the_next_line() -> None:
    assert illegal(b'{"a\n').startswith("[json.exception.parse_error.101] parse error at line 2, ")
    assert "column 0: syntax error while parsing object key" in illegal(b'{"a\n')


def test_a_number_beyond_double_overflows() -> None:
    expected = "[json.exception.out_of_range.406] number overflow parsing '-1e999'"
    assert illegal(b'{"a":-1e999}') == expected


@pytest.mark.parametrize(
    "body",
    [b'"\xff"', b'["a\xc3"]', b'{"\xed\xa0\x80":1}', b'"\\\xc3\xa9"', b"1.\xc3\xa9", b'"\xc3'],
)
def test_text_that_would_quote_illegal_utf8_is_left_away(body: bytes) -> None:
    assert illegal(body) == ""


def test_what_only_orjson_refuses_is_answered_too() -> None:
    place = "[json.exception.parse_error.101] parse error at line 1, column "
    assert illegal(b"[" * 2000 + b"]" * 2000) == f"{place}1026: depth limit exceeded"
    assert illegal(b"{}\0") == f"{place}3: unexpected content after document"


def test_a_large_document_is_answered_with_orjsons_place() -> None:
    body = b"[" + b"1," * DIAGNOSED_BYTES_MAX + b"\n]"
    assert illegal(body).startswith("[json.exception.parse_error.101] parse error at line ")


def test_legal_documents_come_through() -> None:
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]
    assert parse_json(memoryview(b'{"a":1,"a":[2.5,"\\ud83d\\ude00",null,true]}')) == {
        "a": [2.5, "\U0001f600", None, True]
    }


def test_the_scanner_agrees_with_the_standard_library_on_mutated_documents() -> None:
    rng = random.Random(3)
    seed = (
        b' {"a" : [1, -2.5e+3, true, null, "x\\n\\u00e9\xc3\xa9"], "b": {}, "c": [[], {"d": 0}]} '
    )
    for _ in range(5000):
        body = bytearray(seed)
        for _ in range(rng.randrange(1, 4)):
            body[rng.randrange(len(body))] = rng.choice(b'{}[]:,"\\ 0123.eE+-truefalsn\n\xc3\x01')
        assert (diagnose(bytes(body)) is None) == is_legal(bytes(body)), bytes(body)


def is_legal(body: bytes) -> bool:
    """What Python's own parser says, without the extensions that it allows."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        json.loads(body.decode(), parse_constant=refuse)
    except ValueError:
        return False
    return True
