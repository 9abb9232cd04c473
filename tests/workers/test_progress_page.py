"""What a worker writes about itself, read through another mapping of the same page."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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


def test_the_end_of_one_threads_patience_does_not_end_anothers(
    pages: tuple[ProgressPage, ProgressPage],
) -> None:
    ours, theirs = pages
    ours.busy_until(100)
    with ThreadPoolExecutor(1) as other:
        other.submit(ours.busy_until, 70).result()
        assert theirs.read().busy_until_ns == 100
        ours.busy_until(0)
        assert theirs.read().busy_until_ns == 70
        other.submit(ours.busy_until, 0).result()
    assert theirs.read().busy_until_ns == 0


def test_a_ticket_that_is_held_is_never_forgotten_however_many_come_and_go(
    pages: tuple[ProgressPage, ProgressPage],
) -> None:
    ours, theirs = pages
    ours.start([7])
    for ticket in range(100, 100 + 3 * STARTED_MAX):
        ours.start([ticket])
        ours.end([ticket])
    assert 7 in theirs.started()


def test_a_page_has_room_for_all_that_a_worker_may_hold(
    pages: tuple[ProgressPage, ProgressPage],
) -> None:
    ours, theirs = pages
    tickets = range(1, STARTED_MAX + 1)
    ours.start(tickets)
    assert set(theirs.started()) == set(tickets)


def test_what_was_answered_last_is_remembered_until_its_reply_has_surely_left(
    pages: tuple[ProgressPage, ProgressPage],
) -> None:
    ours, theirs = pages
    ours.start([1, 2])
    ours.end([1, 2, 3])
    ours.start([4])
    assert {1, 2, 4} <= set(theirs.started())


def test_a_new_connection_begins_with_an_empty_page(
    pages: tuple[ProgressPage, ProgressPage],
) -> None:
    ours, theirs = pages
    ours.start([1, 2])
    ours.end([1])
    ours.clear()
    assert theirs.started() == ()
    ours.start(range(1, STARTED_MAX + 1))


def test_time_that_was_waited_is_not_counted(pages: tuple[ProgressPage, ProgressPage]) -> None:
    ours, theirs = pages
    ours.restart_clock(5)
    assert theirs.read().work_since_ns == 0, "nothing runs"
    ours.work(3)
    ours.wait(True)
    assert theirs.read().is_waiting
    ours.wait(False)
    ours.restart_clock(9)
    assert theirs.read() == Progress(0, 9, 0, False)


def test_the_page_of_this_process_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS_FD, str(ProgressPage.make_fd()))
    page = page_from_environment()
    assert page is not None
    page.close()
    assert page_from_environment() is None
    monkeypatch.setenv(PROGRESS_FD, "no number")
    assert page_from_environment() is None
