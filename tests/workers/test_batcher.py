"""Batches: who goes together, in which order, and whose the results are."""

import random

import numpy as np
import pytest

from protocol.values import Failure, MethodSignature, RequestSpec
from workers.stages.batcher import Batch, Batcher, PendingRequest

FAR_NS = 1 << 62


def request(ticket, values, method="m", deadline_ns=FAR_NS, is_redelivered=False):
    return PendingRequest(
        ticket,
        0,
        RequestSpec("add", method, 0),
        MethodSignature("add", method, ("x",), ("y",)),
        [(np.asarray(value),) for value in values],
        deadline_ns,
        is_redelivered,
        bytes(16),
    )


@pytest.fixture
def batcher():
    made = Batcher({"m": 4, "n": 2}.__getitem__)
    yield made
    made.check_invariants()


def values_of(batch):
    return [int(instance[0]) for instance in batch.instances]


def tripled(batch: Batch):
    return [(instance[0] * 3,) for instance in batch.instances]


def results_of(finished):
    return {each.ticket: [int(result[0]) for result in each.results] for each in finished}


def test_requests_that_fit_share_a_batch_and_get_their_own_results(batcher):
    batcher.add(request(1, [10, 11]))
    batcher.add(request(2, [20]))
    batch = batcher.take_batch(0)
    assert (batch.method, values_of(batch)) == ("m", [10, 11, 20])
    finished = batcher.complete(batch, tripled(batch))
    assert results_of(finished) == {1: [30, 33], 2: [60]}
    assert (batcher.take_batch(0), len(batcher)) == (None, 0)


def test_a_large_request_is_spread_and_answered_once_when_all_is_done(batcher):
    batcher.add(request(1, range(10)))
    batcher.add(request(2, [20]))
    batches, finished = [], []
    while (batch := batcher.take_batch(0)) is not None:
        batches.append(values_of(batch))
        finished.append(results_of(batcher.complete(batch, tripled(batch))))
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 20]]
    assert finished == [{}, {}, {1: [0, 3, 6, 9, 12, 15, 18, 21, 24, 27], 2: [60]}]


def test_methods_take_turns_and_each_keeps_its_order_and_size(batcher):
    for ticket in range(6):
        batcher.add(request(ticket, [ticket], "m"))
        batcher.add(request(10 + ticket, [10 + ticket], "n"))
    taken = []
    while (batch := batcher.take_batch(0)) is not None:
        taken.append((batch.method, values_of(batch)))
        batcher.complete(batch, tripled(batch))
    assert taken == [
        ("m", [0, 1, 2, 3]),
        ("n", [10, 11]),
        ("m", [4, 5]),
        ("n", [12, 13]),
        ("n", [14, 15]),
    ]


def test_a_request_without_budget_left_is_not_computed(batcher):
    batcher.add(request(1, [1], deadline_ns=100))
    batcher.add(request(2, [2], deadline_ns=101))
    batch = batcher.take_batch(100)
    assert values_of(batch) == [2]
    assert [each.ticket for each in batcher.expired] == [1]
    batcher.complete(batch, tripled(batch))


def test_only_expired_requests_make_no_batch(batcher):
    batcher.add(request(1, [1], deadline_ns=5))
    batcher.add(request(2, [2], "n", deadline_ns=5))
    assert batcher.take_batch(5) is None
    assert [each.ticket for each in batcher.expired] == [1, 2]


def test_a_spread_request_may_expire_between_its_batches(batcher):
    batcher.add(request(1, range(6), deadline_ns=50))
    batch = batcher.take_batch(49)
    assert batcher.complete(batch, tripled(batch)) == []
    assert batcher.take_batch(50) is None
    assert [each.ticket for each in batcher.expired] == [1]


def test_a_redelivered_request_is_alone_in_its_batches(batcher):
    batcher.add(request(1, [1]))
    batcher.add(request(2, [20, 21, 22, 23, 24], is_redelivered=True))
    batcher.add(request(3, [3]))
    taken = []
    while (batch := batcher.take_batch(0)) is not None:
        taken.append(values_of(batch))
        batcher.complete(batch, tripled(batch))
    assert taken == [[1], [20, 21, 22, 23], [24], [3]]


def test_failures_stay_with_their_instances(batcher):
    batcher.add(request(1, [1, 2]))
    batcher.add(request(2, [3]))
    batch = batcher.take_batch(0)
    failure = Failure(3, "stage failed")
    first, second = batcher.complete(batch, [(np.asarray(1),), failure, (np.asarray(3),)])
    assert (first.results[1], int(second.results[0][0])) == (failure, 3)


def test_a_batch_can_fail_as_a_whole(batcher):
    batcher.add(request(1, [1, 2]))
    failure = Failure(1, "Predict Failed")
    (finished,) = batcher.fail(batcher.take_batch(0), failure)
    assert finished.results == [failure, failure]


def test_cleared_requests_are_never_taken(batcher):
    batcher.add(request(1, range(9)))
    batch = batcher.take_batch(0)
    batcher.complete(batch, tripled(batch))
    batcher.clear()
    assert (batcher.take_batch(0), len(batcher)) == (None, 0)


def test_a_result_too_few_is_our_own_mistake(batcher):
    batcher.add(request(1, [1, 2]))
    batch = batcher.take_batch(0)
    with pytest.raises(AssertionError):
        batcher.complete(batch, [(np.asarray(1),)])


@pytest.mark.parametrize("seed", range(20))
def test_every_request_is_finished_once_or_expired_once_whatever_comes(seed, batcher):
    chance = random.Random(seed)
    expected, answered, tickets = {}, {}, iter(range(10_000))
    for now_ns in range(300):
        for _ in range(chance.randrange(3)):
            ticket = next(tickets)
            values = [chance.randrange(100) for _ in range(chance.randrange(1, 9))]
            deadline_ns = now_ns + chance.randrange(1, 40)
            method = chance.choice("mn")
            batcher.add(request(ticket, values, method, deadline_ns, chance.random() < 0.1))
            expected[ticket] = [value * 3 for value in values]
        batch = batcher.take_batch(now_ns)
        batcher.check_invariants()
        if batch is not None:
            assert len({share.request.is_redelivered for share in batch.shares}) == 1
            for ticket, results in results_of(batcher.complete(batch, tripled(batch))).items():
                assert ticket not in answered
                answered[ticket] = results
        for each in batcher.expired:
            assert each.ticket not in answered
            answered[each.ticket] = expected[each.ticket] = "expired"
        batcher.expired.clear()
    while (batch := batcher.take_batch(0)) is not None:
        answered.update(results_of(batcher.complete(batch, tripled(batch))))
    assert answered == expected
    assert "expired" in answered.values()
