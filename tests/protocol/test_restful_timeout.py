"""The header that names the deadline of a RESTful request."""

from __future__ import annotations

import pytest

from protocol.errors import RequestError
from protocol.restful import parse_timeout


@pytest.mark.parametrize(
    ("value", "timeout_ms"),
    [
        (b"1n", 1),
        (b"1001u", 2),
        (b"1m", 1),
        (b"00000250m", 250),
        (b"3S", 3_000),
        (b"2M", 120_000),
        (b"1H", 3_600_000),
        (b"99999999H", 99_999_999 * 3_600_000),
    ],
)
def test_a_timeout_is_digits_and_a_unit(value: bytes, timeout_ms: int) -> None:
    assert parse_timeout(value) == timeout_ms


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"m",
        b"5",
        b"0m",
        b"-1m",
        b"1.5S",
        b"5s",
        b"5 m",
        b"5m, 6m",
        b"123456789m",
        b"\xff" * 99,
    ],
)
def test_another_value_is_named_with_the_limit(value: bytes) -> None:
    with pytest.raises(RequestError) as error:
        parse_timeout(value)
    quoted = repr(value[:40].decode("latin-1"))
    assert error.value.reason == "invalid_inputs"
    assert error.value.message == (
        f"header grpc-timeout is {quoted}, but must be 1 to 99999999 and a unit of "
        "H, M, S, m, u, n (hours to nanoseconds)"
    )
