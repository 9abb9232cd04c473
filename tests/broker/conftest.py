"""Fixtures of the broker's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.broker.peers import Peers


@pytest.fixture
def peers() -> Iterator[Peers]:
    """A switch at addresses of its own; nothing is wrong with its core at the end."""
    directory = tempfile.mkdtemp(dir="/tmp", prefix="mb")
    world = Peers(directory)
    yield world
    world.core.check_invariants()
    world.context.destroy(linger=0)
    world.switch.close()
    shutil.rmtree(directory)
