"""Requests that are refused for a while because the same bytes killed their workers."""

import zmq

from broker.quarantine import Quarantine
from protocol import head as heads
from protocol import limits

MS = 1_000_000


def head(method: bytes = b"m", dialect: int = 0, request_id: int = 1) -> bytes:
    return heads.pack(
        heads.Head(
            heads.REQUEST, dialect=dialect, request_id=request_id, service=b"s/1", method=method
        )
    )


def test_a_request_is_known_by_service_method_dialect_and_body() -> None:
    held = Quarantine(1_000)
    held.add(b"s/1", head(request_id=1), [b"a", b"bc"], 0)
    assert held.refused_for_ms(b"s/1", head(request_id=2), [b"a", b"bc"], 400 * MS) == 600
    for key, other, frames in (
        (b"s/2", head(), [b"a", b"bc"]),
        (b"s/1", head(b"n"), [b"a", b"bc"]),
        (b"s/1", head(dialect=1), [b"a", b"bc"]),
        (b"s/1", head(), [b"ab", b"c"]),
        (b"s/1", head(), [b"abc"]),
    ):
        assert held.refused_for_ms(key, other, frames, 0) == 0


def test_the_frames_of_large_bodies_are_read_as_well() -> None:
    held = Quarantine(1_000)
    held.add(b"s/1", head(), [zmq.Frame(b"x" * 100_000)], 0)
    assert held.refused_for_ms(b"s/1", head(), [b"x" * 100_000], 0) == 1_000


def test_what_is_over_is_forgotten() -> None:
    held = Quarantine(1_000)
    held.add(b"s/1", head(), [b"a"], 0)
    assert held
    assert held.refused_for_ms(b"s/1", head(), [b"a"], 1_000 * MS) == 0
    assert not held


def test_only_so_many_are_remembered() -> None:
    held = Quarantine(1_000)
    for number in range(limits.QUARANTINED_MAX + 1):
        held.add(b"s/1", head(), [b"%d" % number], 0)
    assert held.refused_for_ms(b"s/1", head(), [b"0"], 0) == 0
    assert held.refused_for_ms(b"s/1", head(), [b"1"], 0) == 1_000


def test_without_a_period_nothing_is_refused() -> None:
    held = Quarantine(0)
    held.add(b"s/1", head(), [b"a"], 0)
    assert not held
