"""What a worker writes about itself, read through another mapping of the same page."""

import os
from collections.abc import Iterator

import pytest

from workers.progress_page import (
    PROGRESS_FD,
    STARTED_MAX,
    Progress,
    ProgressPage,
    page_from_environment,
)


@pytest.fixture
def pages() -> Iterator[tuple[ProgressPage, ProgressPage]]:
    """The worker's page and the supervisor's."""
    fd = ProgressPage.make_fd()
    made = ProgressPage(fd), ProgressPage(fd)
    os.close(fd)
    yield made
    for page in made:
        page.close()


def test_a_new_page_says_nothing(pages: tuple[ProgressPage, ProgressPage]) -> None:
    assert pages[1].read() == Progress(0, 0, 0)
    assert pages[1].started() == ()


def test_what_is_written_is_read(pages: tuple[ProgressPage, ProgressPage]) -> None:
    ours, theirs = pages
    ours.beat(5)
    ours.work(6)
    ours.busy_until(1 << 63)
    ours.start([3, 4])
    ours.start([9])
    assert theirs.read() == Progress(5, 6, 1 << 63)
    assert theirs.started() == (3, 4, 9)


def test_the_page_remembers_the_last_tickets(pages: tuple[ProgressPage, ProgressPage]) -> None:
    ours, theirs = pages
    ours.start(range(1, STARTED_MAX + 11))
    assert set(theirs.started()) == set(range(11, STARTED_MAX + 11))


def test_the_page_of_this_process_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS_FD, str(ProgressPage.make_fd()))
    page = page_from_environment()
    assert page is not None
    page.close()
    assert page_from_environment() is None
    monkeypatch.setenv(PROGRESS_FD, "no number")
    assert page_from_environment() is None
