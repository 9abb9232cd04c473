"""Fixtures of the tests with real worker processes."""

from functools import partial

import pytest

from tests.workers.fake_broker import FakeBroker, LinkBroker, Place, WorkerProcess


@pytest.fixture
def has_link():
    """Whether workers come over a link, as those of the broker's host do; modules override it."""
    return True


@pytest.fixture
def place(has_link):
    made = Place(has_link)
    yield made
    made.remove()


@pytest.fixture
def open_broker(place, has_link):
    """Opens the broker that plays the test's part."""
    return partial(LinkBroker if has_link else FakeBroker, place.address)


@pytest.fixture
def broker(open_broker):
    made = open_broker()
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
