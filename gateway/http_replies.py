"""Heads of HTTP/1.1 replies as bytes. The date comes from the wall clock, once a second."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from gateway.http_messages import HttpAnswer
from telemetry.wall_clock import wall_ms

MS_PER_S = 1_000

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

#: What a bug of ours is answered with.
BROKEN = HttpAnswer(500, b"Internal Server Error", (), b"text/plain; charset=utf-8")


@lru_cache
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # such as 499, which is nginx's
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


@lru_cache(maxsize=64)
def _first_lines(status: int, content_type: bytes, second: int) -> bytes:
    """All that is the same for replies of one second."""
    date = formatdate(second, usegmt=True).encode("ascii")
    lines = (b"date: ", date, b"\r\ncontent-type: ", content_type, b"\r\ncontent-length: ")
    return _status_line(status) + b"".join(lines)


def reply_head(answer: HttpAnswer, is_last: bool) -> bytes:
    """Everything in front of an answer's body. is_last: the connection ends with it."""
    first = _first_lines(answer.status, answer.content_type, wall_ms() // MS_PER_S)
    pieces = [first, str(len(answer.body)).encode("ascii")]
    for name, value in answer.headers:
        pieces += (b"\r\n", name, b": ", value)
    pieces.append(b"\r\nconnection: close\r\n\r\n" if is_last else b"\r\n\r\n")
    return b"".join(pieces)


#: What is said to bytes that are no HTTP request, by status.
REFUSALS = {
    status: _status_line(status) + b"connection: close\r\ncontent-length: 0\r\n\r\n"
    for status in (400, 431, 501)
}
