"""Fixtures of the tests with real worker processes."""

import pytest

from tests.workers.fake_broker import FakeBroker, Place, WorkerProcess


@pytest.fixture
def place():
    made = Place()
    yield made
    made.remove()


@pytest.fixture
def broker(place):
    made = FakeBroker(place.address)
    yield made
    made.close()


@pytest.fixture
def start():
    """Starts workers, and ends those that are left."""
    started = []

    def make(document):
        started.append(WorkerProcess(document))
        return started[-1]

    yield make
    for worker in started:
        worker.close()


@pytest.fixture
def worker(place, broker, start):
    """A worker that is welcome and ready."""
    made = start(place.document())
    broker.admit()
    assert [made.report()["state"], made.report()["state"]] == ["loading", "ready"]
    return made
