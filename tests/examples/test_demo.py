"""`make demo` waits for a server that starts, and says in words why it cannot go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from examples.demo import NotReadyError, wait_ready

GATEWAY = {"kind": "gateway", "servable": None, "state": "READY"}


def worker(servable: str, state: str) -> dict[str, Any]:
    return {"kind": "worker", "servable": servable, "state": state}


def statuses(*slots: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One status after the other, as a server goes on."""
    return iter([{"slots": [GATEWAY, *each]} for each in slots])


def test_the_demo_waits_until_a_worker_of_digits_is_ready(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # First the doors are open and there is no worker yet; then the other servable is faster.
    seen = statuses(
        [],
        [worker("add", "READY"), worker("digits", "STARTING")],
        [worker("add", "READY"), worker("digits", "READY")],
    )
    assert wait_ready(lambda: next(seen))["slots"][-1] == worker("digits", "READY")
    assert capsys.readouterr().out == "waiting for the workers …\n"


@pytest.mark.parametrize(
    ("slots", "text"),
    [
        ([worker("add", "READY")], "the server has no servable digits"),
        ([worker("digits", "FAILED")], "every worker of digits has failed; see `mindbus status`"),
        ([worker("digits", "BACKOFF")], "no worker of digits was ready within 0 s"),
    ],
)
def test_the_demo_says_why_it_does_not_wait_on(slots: list[dict[str, Any]], text: str) -> None:
    seen = statuses(slots)
    with pytest.raises(NotReadyError) as raised:
        wait_ready(lambda: next(seen), timeout_s=0)
    assert str(raised.value) == text
