"""Works: who is computed together, by whom, in which order, and where the results go."""

import random

import numpy as np
import pytest

from protocol.values import Failure, MethodSignature, RequestSpec
from workers.servable.declarations import ModelStage, Placeholder
from workers.stages.rows import PendingRequest, Plan, Step, Subgraph
from workers.stages.scheduler import SHORT_IF_IDLE_NS, SHORT_NS, SLICE_NS, Scheduler

FAR_NS = 1 << 62
PER_ROW_MAX = 32

A, B = Subgraph("A", 0), Subgraph("B", 0)

#: Methods by name: per step the model or None, rows per work, and whether it is called per row.
METHODS = {
    "prepared": [(None, PER_ROW_MAX, True), (A, 4, False), (None, 3, False)],
    "plain": [(A, 4, False)],
    "other": [(B, 2, False)],
    "python": [(None, 4, False)],
    "echo": [],
}


def plan(method, steps):
    """A method of one input; each step takes what the one before gave."""
    made = tuple(
        Step(number, ModelStage("", (Placeholder(number - 1, 0),), 1, ""), model, size, per_row)
        for number, (model, size, per_row) in enumerate(steps, start=1)
    )
    return Plan(method, made, (Placeholder(len(steps), 0),))


@pytest.fixture
def scheduler():
    made = Scheduler({method: plan(method, steps) for method, steps in METHODS.items()})
    yield made
    made.check_invariants()


def request(ticket, values, method="python", deadline_ns=FAR_NS, is_redelivered=False):
    return PendingRequest(
        ticket,
        0,
        RequestSpec("s", method, 0),
        MethodSignature("s", method, ("x",), ("y",)),
        [(np.asarray(value),) for value in values],
        deadline_ns,
        is_redelivered,
        bytes(16),
    )


def outcomes(work):
    """What the fake executor computes: each step adds one."""
    return [(row.values[-1][0] + 1,) for row in work.rows]


def complete(scheduler, work, now_ns=0):
    scheduler.complete(work, outcomes(work), now_ns)
    scheduler.check_invariants()


def inputs(work):
    return [int(row.values[0][0]) for row in work.rows]


def results(scheduler):
    """The finished requests since the last call: results by ticket, in order of completion."""
    finished, scheduler.finished = scheduler.finished, []
    return {
        each.ticket: [r if isinstance(r, Failure) else int(r[0]) for r in each.results]
        for each in finished
    }


def run_all(scheduler, take):
    """Take and complete works until there is none; what each held."""
    taken = []
    while (work := take(0)) is not None:
        taken.append(inputs(work))
        complete(scheduler, work)
    return taken


# ---------------------------------------------------------------- batches


def test_requests_that_fit_share_a_work_and_get_their_own_results(scheduler):
    scheduler.add(request(1, [10, 11]))
    scheduler.add(request(2, [20]))
    assert run_all(scheduler, scheduler.next_python_work) == [[10, 11, 20]]
    assert results(scheduler) == {1: [11, 12], 2: [21]}


def test_a_large_request_is_spread_and_finished_once_when_all_is_done(scheduler):
    scheduler.add(request(1, range(6)))
    scheduler.add(request(2, [20]))
    complete(scheduler, scheduler.next_python_work(0))
    assert results(scheduler) == {}
    assert run_all(scheduler, scheduler.next_python_work) == [[4, 5, 20]]
    assert results(scheduler) == {1: [1, 2, 3, 4, 5, 6], 2: [21]}


def test_a_method_without_steps_is_finished_at_once(scheduler):
    scheduler.add(request(1, [5, 6], "echo"))
    assert results(scheduler) == {1: [5, 6]}


def test_methods_that_share_a_model_share_its_batch(scheduler):
    scheduler.add(request(1, [10], "prepared"))
    complete(scheduler, scheduler.next_python_work(0))
    scheduler.add(request(2, [20, 21, 22, 23], "plain"))
    assert run_all(scheduler, scheduler.next_device_work) == [[10, 20, 21, 22], [23]]
    assert results(scheduler) == {2: [21, 22, 23, 24]}
    assert run_all(scheduler, scheduler.next_python_work) == [[10]]
    assert results(scheduler) == {1: [13]}


@pytest.mark.shows("R14")
def test_a_batch_grows_as_long_as_the_device_is_busy(scheduler):
    scheduler.add(request(1, [1], "plain"))
    busy = scheduler.next_device_work(0)
    for ticket in (2, 3, 4):
        scheduler.add(request(ticket, [ticket], "plain"))
    complete(scheduler, busy)
    assert inputs(scheduler.next_device_work(0)) == [2, 3, 4]


def test_python_works_while_the_device_does(scheduler):
    scheduler.add(request(1, range(4), "prepared"))
    run_all(scheduler, scheduler.next_python_work)
    on_device = scheduler.next_device_work(0)
    scheduler.add(request(2, [50], "prepared"))
    in_python = scheduler.next_python_work(0)
    assert (inputs(on_device), inputs(in_python)) == ([0, 1, 2, 3], [50])
    complete(scheduler, in_python)
    complete(scheduler, on_device)
    run_all(
        scheduler, lambda now: scheduler.next_python_work(now) or scheduler.next_device_work(now)
    )
    assert results(scheduler) == {1: [3, 4, 5, 6], 2: [53]}


@pytest.mark.parametrize("door", ["next_python_work", "next_device_work"])
def test_a_second_work_of_the_same_kind_is_our_own_mistake(scheduler, door):
    scheduler.add(request(1, range(9), {"next_python_work": "python"}.get(door, "plain")))
    getattr(scheduler, door)(0)
    with pytest.raises(AssertionError):
        getattr(scheduler, door)(0)


# ---------------------------------------------------------------- turns


def test_the_latest_step_of_a_method_is_first(scheduler):
    scheduler.add(request(1, [1], "prepared"))
    complete(scheduler, scheduler.next_python_work(0))
    complete(scheduler, scheduler.next_device_work(0))
    scheduler.add(request(2, [2], "prepared"))
    assert run_all(scheduler, scheduler.next_python_work) == [[1], [2]]
    assert results(scheduler) == {1: [4]}


def test_methods_take_turns(scheduler):
    scheduler.add(request(1, range(12), "python"))
    scheduler.add(request(2, [50, 51], "prepared"))
    taken = run_all(scheduler, scheduler.next_python_work)
    assert taken == [[0, 1, 2, 3], [50], [4, 5, 6, 7], [51], [8, 9, 10, 11]]


def test_models_take_turns(scheduler):
    scheduler.add(request(1, range(8), "plain"))
    scheduler.add(request(2, range(50, 54), "other"))
    taken = run_all(scheduler, scheduler.next_device_work)
    assert taken == [[0, 1, 2, 3], [50, 51], [4, 5, 6, 7], [52, 53]]


# ---------------------------------------------------------------- costs


@pytest.mark.parametrize(
    ("cost_ns", "rows"),
    [(0, PER_ROW_MAX), (SLICE_NS // 8, 8), (SLICE_NS, 1), (50 * SLICE_NS, 1)],
)
def test_a_slice_of_calls_per_instance_takes_a_bounded_time(scheduler, cost_ns, rows):
    scheduler.add(request(1, range(50), "prepared"))
    first = scheduler.next_python_work(0)
    assert inputs(first) == [0]
    complete(scheduler, first, now_ns=cost_ns)
    assert len(scheduler.next_python_work(0).rows) == rows


@pytest.mark.parametrize(
    ("cost_ns", "if_idle", "if_busy"),
    [
        (SHORT_NS, True, True),
        (SHORT_NS + 1, True, False),
        (SHORT_IF_IDLE_NS, True, False),
        (SHORT_IF_IDLE_NS + 1, False, False),
    ],
)
def test_a_model_is_short_when_its_runs_were(scheduler, cost_ns, if_idle, if_busy):
    scheduler.add(request(1, [1], "plain"))
    assert not scheduler.is_next_run_short(is_busy=False)  # nobody knows
    complete(scheduler, scheduler.next_device_work(0), now_ns=cost_ns)
    scheduler.add(request(2, [1], "plain"))
    assert scheduler.is_next_run_short(is_busy=False) == if_idle
    assert scheduler.is_next_run_short(is_busy=True) == if_busy


def test_progress_is_that_of_the_oldest_work(scheduler):
    assert scheduler.progress == (0, 0)
    scheduler.add(request(1, [1], "plain"))
    scheduler.add(request(2, [2], "python"))
    on_device = scheduler.next_device_work(100)
    in_python = scheduler.next_python_work(200)
    assert scheduler.progress == (1, 100)
    complete(scheduler, on_device, 300)
    assert scheduler.progress == (2, 200)
    complete(scheduler, in_python, 400)
    assert scheduler.progress == (2, 0)


# ---------------------------------------------------------------- redelivery, budgets, failures


def test_a_redelivered_request_shares_no_work_at_any_step(scheduler):
    scheduler.add(request(1, [1], "plain"))
    scheduler.add(request(2, [20, 21, 22, 23, 24], "plain", is_redelivered=True))
    scheduler.add(request(3, [3], "plain"))
    scheduler.add(request(4, [4], "python"))
    scheduler.add(request(5, [5], "python", is_redelivered=True))
    taken = run_all(scheduler, scheduler.next_device_work)
    assert taken == [[1], [20, 21, 22, 23], [24], [3]]
    assert run_all(scheduler, scheduler.next_python_work) == [[4], [5]]


def test_a_request_without_budget_left_is_not_computed(scheduler):
    scheduler.add(request(1, [1, 1, 1, 1, 1], deadline_ns=100))
    scheduler.add(request(2, [2], deadline_ns=101))
    assert inputs(scheduler.next_python_work(100)) == [2]
    assert [each.ticket for each in scheduler.expired] == [1]


def test_a_request_may_expire_between_two_steps(scheduler):
    scheduler.add(request(1, [1, 2], "prepared", deadline_ns=50))
    complete(scheduler, scheduler.next_python_work(0))
    assert scheduler.next_device_work(50) is None
    assert [each.ticket for each in scheduler.expired] == [1]
    assert scheduler.next_python_work(0) is None  # its second row is void, whatever time it is
    assert not scheduler.has_python_rows
    assert results(scheduler) == {}


def test_a_row_that_runs_when_its_request_expires_finishes_into_nothing(scheduler):
    scheduler.add(request(1, range(5), "plain", deadline_ns=50))
    work = scheduler.next_device_work(0)
    scheduler.add(request(2, [7], "other"))
    complete(scheduler, work)
    assert inputs(scheduler.next_device_work(60)) == [7]
    assert (results(scheduler), [each.ticket for each in scheduler.expired]) == ({}, [1])


def test_a_failure_is_the_result_of_its_instance_and_ends_its_way(scheduler):
    scheduler.add(request(1, [1, 2], "plain"))
    scheduler.add(request(2, [3], "prepared"))
    complete(scheduler, scheduler.next_python_work(0))
    work = scheduler.next_device_work(0)
    failure = Failure(3, "stage failed")
    scheduler.complete(work, [(np.asarray(5),), failure, failure], 0)
    assert results(scheduler) == {1: [5, failure], 2: [failure]}
    assert scheduler.next_python_work(0) is None


def test_an_outcome_too_few_is_our_own_mistake(scheduler):
    scheduler.add(request(1, [1, 2]))
    work = scheduler.next_python_work(0)
    with pytest.raises(AssertionError):
        scheduler.complete(work, [(np.asarray(1),)], 0)


def test_cleared_requests_are_forgotten_and_running_ones_finish_into_nothing(scheduler):
    scheduler.add(request(1, range(9), "python"))
    scheduler.add(request(2, range(9), "plain"))
    in_python, on_device = scheduler.next_python_work(0), scheduler.next_device_work(0)
    scheduler.clear()
    complete(scheduler, in_python)
    complete(scheduler, on_device)
    assert (scheduler.has_python_rows, scheduler.has_device_rows) == (False, False)
    assert (results(scheduler), scheduler.expired) == ({}, [])
    scheduler.add(request(1, [4], "python"))  # the same ticket, of the next connection
    complete(scheduler, scheduler.next_python_work(0))
    assert results(scheduler) == {1: [5]}


# ---------------------------------------------------------------- whatever comes


class Chance:
    """A worker in virtual time: requests come, works of both kinds overlap in any order."""

    def __init__(self, seed, scheduler):
        self.random = random.Random(seed)
        self.scheduler = scheduler
        self.expected, self.answered = {}, {}
        self.python = self.device = None

    def arrive(self, now_ns):
        method = self.random.choice(list(METHODS))
        ticket = len(self.expected)
        values = [self.random.randrange(100) for _ in range(self.random.randrange(1, 9))]
        deadline_ns = now_ns + self.random.randrange(1, 60)
        self.scheduler.add(request(ticket, values, method, deadline_ns, self.random.random() < 0.1))
        self.expected[ticket] = [value + len(METHODS[method]) for value in values]

    def compute(self, now_ns):
        for kind in ("python", "device"):
            work = getattr(self, kind)
            if work is None:
                work = getattr(self.scheduler, f"next_{kind}_work")(now_ns)
                if work is not None:
                    assert len(work.rows) <= min(row.step.rows_max for row in work.rows)
                    tickets = {row.request.ticket for row in work.rows}
                    assert len(tickets) == 1 or not any(
                        row.request.is_redelivered for row in work.rows
                    )
                setattr(self, kind, work)
            elif self.random.random() < 0.5:
                self.scheduler.complete(work, outcomes(work), now_ns)
                setattr(self, kind, None)
        self.scheduler.check_invariants()

    def answer(self):
        answers = results(self.scheduler)
        answers |= {each.ticket: "expired" for each in self.scheduler.expired}
        self.scheduler.expired.clear()
        assert not answers.keys() & self.answered.keys()
        self.answered |= answers


@pytest.mark.parametrize("seed", range(20))
def test_every_request_is_finished_once_or_expired_once_whatever_comes(seed, scheduler):
    chance = Chance(seed, scheduler)
    for now_ns in range(300):
        for _ in range(chance.random.randrange(3)):
            chance.arrive(now_ns)
        chance.compute(now_ns)
        chance.answer()
    while chance.python or chance.device or scheduler.has_python_rows or scheduler.has_device_rows:
        chance.compute(300)
        chance.answer()
    computed = {ticket: answer for ticket, answer in chance.answered.items() if answer != "expired"}
    assert chance.answered.keys() == chance.expected.keys()
    assert computed == {ticket: chance.expected[ticket] for ticket in computed}
    assert 0 < len(computed) < len(chance.answered)
