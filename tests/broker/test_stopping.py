"""When a broker that was told to go may go."""

from __future__ import annotations

from broker.stopping import QUIET_MS, QUIET_WAIT_MS, Stopping
from tests.broker.helpers import MS


def test_who_was_not_told_to_go_never_goes() -> None:
    stopping = Stopping(grace_ms=0)
    assert not stopping.is_over(0, 1_000_000 * MS)
    assert stopping.cut(None, 0) is None
    assert stopping.cut(7_000, 0) == 7_000


def test_it_goes_when_nothing_is_held_and_nobody_has_asked_for_a_while() -> None:
    stopping = Stopping(grace_ms=10_000)
    stopping.begin(1, 0)
    assert not stopping.is_over(0, (QUIET_MS - 1) * MS)
    assert not stopping.is_over(1, QUIET_MS * MS)
    assert stopping.is_over(0, QUIET_MS * MS)


def test_somebody_who_asks_makes_it_stay() -> None:
    stopping = Stopping(grace_ms=10_000)
    stopping.begin(1, 0)
    stopping.note_turn(False, 90 * MS)
    stopping.note_turn(True, 150 * MS)
    assert not stopping.is_over(0, (90 + QUIET_MS - 1) * MS)
    assert stopping.is_over(0, (90 + QUIET_MS) * MS)


def test_somebody_who_asks_again_and_again_makes_it_stay_only_so_long() -> None:
    stopping = Stopping(grace_ms=10_000)
    stopping.begin(1, 0)
    assert not stopping.is_over(1, 5 * MS)
    for now_ms in range(10, 10 + QUIET_WAIT_MS, 10):
        stopping.note_turn(False, now_ms * MS)
        assert not stopping.is_over(0, now_ms * MS)
    assert stopping.is_over(0, (10 + QUIET_WAIT_MS) * MS)


def test_the_grace_ends_it_whatever_is_held() -> None:
    stopping = Stopping(grace_ms=500)
    stopping.begin(1, 0)
    assert not stopping.is_over(3, 499 * MS)
    assert stopping.is_over(3, 500 * MS)


def test_a_second_signal_ends_it_at_once() -> None:
    later, together = Stopping(grace_ms=500), Stopping(grace_ms=500)
    later.begin(1, 0)
    later.begin(1, 10 * MS)
    assert later.is_over(3, 10 * MS)
    together.begin(2, 0)
    assert together.is_over(3, 0)


def test_the_poll_is_cut_to_the_grace_and_to_the_quiet() -> None:
    stopping = Stopping(grace_ms=QUIET_MS + 20)
    stopping.begin(1, 0)
    assert stopping.cut(None, 0) == QUIET_MS
    assert stopping.cut(3, 0) == 3
    assert stopping.cut(None, QUIET_MS * MS) == 21
