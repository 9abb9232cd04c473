"""The deadline of a RESTful request: the header `grpc-timeout`, which MindSpore Serving has not.

The same header that gRPC clients send (gRPC over HTTP2, "Timeout"), as grpc-gateway, ASP.NET and
others take it over HTTP/1.1: a positive integer of at most 8 digits and its unit, `1500m`.
"""

from __future__ import annotations

import re

from protocol.errors import RequestError

HEADER = b"grpc-timeout"

_VALUE = re.compile(rb"([0-9]{1,8})([HMSmun])")

#: Of one unit in nanoseconds.
_UNIT_NS = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}

#: What of a bad value is quoted.
_QUOTED_BYTES_MAX = 40


def parse_timeout(value: bytes) -> int:
    """The milliseconds that a header value means, rounded up.

    Raises: RequestError (invalid_inputs) naming header, value and limit.
    """
    match = _VALUE.fullmatch(value)
    if match is None or not int(match[1]):
        quoted = value[:_QUOTED_BYTES_MAX].decode("latin-1")
        raise RequestError(
            "invalid_inputs",
            f"header {HEADER.decode()} is {quoted!r}, but must be 1 to 99999999 and a unit of "
            "H, M, S, m, u, n (hours to nanoseconds)",
        )
    return -(-int(match[1]) * _UNIT_NS[match[2]] // 1_000_000)
