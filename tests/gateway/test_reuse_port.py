"""A listener that leaves its group gets nothing more, and resets nobody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gateway.reuse_port import leave, listeners_at, steer_away

CONNECTIONS = 60


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def group(stack: ExitStack, size: int) -> list[socket.socket]:
    """Listeners at one port, in the order in which the kernel keeps them."""
    made: list[socket.socket] = []
    for _ in range(size):
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", made[0].getsockname()[1] if made else 0))
        listener.listen(CONNECTIONS)
        listener.setblocking(False)
        made.append(listener)
    return made


def connect(stack: ExitStack, port: int, count: int = CONNECTIONS) -> list[socket.socket]:
    return [
        stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)
    ]


def accepted(stack: ExitStack, listener: socket.socket) -> int:
    count = 0
    while True:
        try:
            stack.enter_context(listener.accept()[0])
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.shows("R4")
@pytest.mark.parametrize(("size", "place"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (5, 3)])
def test_who_connects_goes_to_the_others(stack: ExitStack, size: int, place: int) -> None:
    listeners = group(stack, size)
    port = listeners[0].getsockname()[1]
    before = connect(stack, port)
    assert sum(accepted(stack, each) for each in listeners) == len(before)
    steer_away(listeners[place], place, size)
    connect(stack, port)
    counts = [accepted(stack, each) for each in listeners]
    assert counts[place] == 0
    assert sum(counts) == CONNECTIONS
    assert all(count for number, count in enumerate(counts) if number != place)


@pytest.mark.parametrize("size", [2, 3])
def test_after_it_left_the_others_share_what_comes(stack: ExitStack, size: int) -> None:
    listeners = group(stack, size)
    port = listeners[0].getsockname()[1]
    steer_away(listeners[0], 0, size)
    leave(listeners[0])
    connect(stack, port)
    counts = [accepted(stack, each) for each in listeners[1:]]
    assert sum(counts) == CONNECTIONS
    assert all(counts)


def test_a_place_that_is_wrong_resets_nobody_and_loses_nobody(stack: ExitStack) -> None:
    listeners = group(stack, 2)
    steer_away(listeners[0], 1, 2)
    connect(stack, listeners[0].getsockname()[1])
    assert sum(accepted(stack, each) for each in listeners) == CONNECTIONS


def test_the_listeners_of_a_process_are_found_by_their_port(stack: ExitStack) -> None:
    (listener,) = group(stack, 1)
    port = listener.getsockname()[1]
    connect(stack, port, 1)
    (found,) = listeners_at(port)
    with found:
        assert found.getsockname() == listener.getsockname()
        assert found.fileno() != listener.fileno()
