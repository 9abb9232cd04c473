"""MDP clients at the core, and over real sockets: REQ, DEALER, correlated, three variants."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
import zmq

from broker import mdp_door
from broker.core import Core
from broker.stats import totals
from protocol import head as heads
from protocol import limits, mdp, native
from tests.broker.helpers import broker_with_worker, dispatched, ready
from tests.broker.peers import Peers

ADDRESS = (b"\0rid1", b"")


def body(**more: Any) -> bytes:
    packed: bytes = msgpack.packb({"method": "m", "instances": [{"x": 1}], **more})
    return packed


def replies(core: Core) -> list[dict[str, Any]]:
    """Take the client outbox: the map of every reply to an MDP client."""
    to_clients, _ = core.outbox.take()
    return [msgpack.unpackb(mdp.encode_reply(caller, parts)[-1]) for caller, parts in to_clients]


def answer(ticket: int, status: int = 0) -> list[bytes]:
    head = heads.Head(heads.REPLY, status=status, request_id=ticket, body_frames=1)
    return [heads.pack(head), native.pack_meta({"instances": [{"y": 2}]})]


def test_requests_of_one_client_are_told_apart_by_their_callers() -> None:
    core = broker_with_worker(credit=2)
    for number in (1, 2):
        mdp_door.receive(core, ADDRESS, [b"MDPC01", b"add/1", body(id=number)], 0)
    seen = dispatched(core)
    assert [each[2] for each in seen] == [body(id=1), body(id=2)]
    for _, ticket, _ in reversed(seen):
        core.receive_from_worker(b"w1", answer(ticket), 0)
    assert [each["id"] for each in replies(core)] == [2, 1]
    core.check_invariants()


def test_deadlines_limits_and_losses_are_ordinary_replies() -> None:
    core = broker_with_worker(requests_max=2)
    ask = [b"MDPC01", b"add", body(budget_ms=10)]
    for _ in range(3):
        mdp_door.receive(core, ADDRESS, ask, 0)
    mdp_door.receive(core, ADDRESS, [b"MDPC01", b"other", body()], 0)
    mdp_door.receive(core, ADDRESS, [b"MDPC01", b"add", b"?"], 0)
    mdp_door.receive(core, ADDRESS, [b"MDPC01", b"add"], 0)
    core.handle_timer(1_000_000_000)
    reasons = [each["reason"] for each in replies(core)]
    expected = ["queue_full", "unknown_service", "malformed", "malformed"]
    assert reasons == [*expected, "deadline_exceeded", "deadline_exceeded"]
    counted = totals(core)
    assert (counted["accepted"], counted["failed"], counted["refused"]) == (2, 2, 4)
    assert core.load() == (0, 0)
    core.check_invariants()


def test_what_cannot_be_answered_is_counted() -> None:
    core = broker_with_worker()
    for parts in ([b"MDPC01"], [b"MDPC09", b"add", body()], [b"MDPC02", b"\7", b"add", body()]):
        mdp_door.receive(core, ADDRESS, parts, 0)
    assert not core.outbox
    assert core.counters.malformed == 3


@pytest.mark.parametrize(
    ("service", "frames", "code"),
    [
        (b"mmi.service", [b"add"], b"200"),
        (b"mmi.service", [b"add/1"], b"200"),
        (b"mmi.service", [b"add/stable"], b"200"),
        (b"mmi.service", [b"add/2"], b"404"),
        (b"mmi.service", [b"other"], b"404"),
        (b"mmi.service", [b"\xff"], b"404"),
        (b"mmi.service", [b"mmi.service"], b"404"),
        (b"mmi.service", [bytes(1_000)], b"404"),
        (b"mmi.service", [], b"404"),
        (b"mmi.echo", [b"hello"], b"501"),
        (b"mmi.", [b"hello"], b"501"),
    ],
)
def test_management_is_answered_by_the_broker(
    service: bytes, frames: list[bytes], code: bytes
) -> None:
    core = broker_with_worker()
    mdp_door.receive(core, ADDRESS, [b"MDPC01", service, *frames], 0)
    assert core.outbox.take()[0] == [(ADDRESS, [b"MDPC01", service, code])]
    mdp_door.receive(core, ADDRESS, [b"MDPC02", b"\2", service, *frames], 0)
    assert core.outbox.take()[0] == [(ADDRESS, [b"MDPC02", b"\4", code])]


def test_a_service_whose_workers_are_all_gone_is_not_found() -> None:
    core = broker_with_worker()
    worker = core.registration.workers[b"w1"]
    core.worker_lost(worker, 0, "it died")
    mdp_door.receive(core, ADDRESS, [b"MDPC01", b"mmi.service", b"add"], 0)
    assert core.outbox.take()[0][0][1][-1] == b"404"


def test_a_worker_of_the_management_namespace_is_disconnected() -> None:
    core = broker_with_worker()
    core.receive_from_worker(b"w2", ready("slot2", service="mmi.service/1"), 0)
    (parts,) = core.outbox.take()[1].values()
    assert parts[0][3] == heads.DISCONNECT
    assert list(core.registration.workers) == [b"w1"]


def test_no_frames_break_the_door_and_every_request_has_one_reply() -> None:
    dice = random.Random(7)
    core = broker_with_worker(credit=3, requests_max=50)
    starts = ([b"MDPC01"], [b"MDPC02", b"\1"], [b"MDPC02", b"\2"], [b"MDPC03"])
    services = (b"add", b"add/1", b"other", b"mmi.service", b"mmi.x", b"\xff/0", b"x" * 300)
    for number in range(3_000):
        whole = body(id=number, budget_ms=dice.choice((0, 1, 50)))
        frames = [*dice.choice(starts), dice.choice(services), whole]
        if dice.random() < 0.5:
            noise = bytes(dice.randrange(256) for _ in range(dice.randrange(40)))
            others = (b"", noise, whole[: dice.randrange(len(whole))])
            frames[dice.randrange(1, len(frames))] = dice.choice(others)
        if dice.random() < 0.2:
            del frames[dice.randrange(1, len(frames))]
        mdp_door.receive(core, ADDRESS, frames, number * 1_000_000)
        core.handle_timer(number * 1_000_000)
        for caller, parts in core.outbox.take()[0]:
            if isinstance(caller, mdp.Caller):
                assert msgpack.unpackb(mdp.encode_reply(caller, parts)[-1])["status"]
    core.check_invariants()
    core.handle_timer(10**15)
    assert core.load() == (0, 0)
    assert core.counters.accepted > 100


# ---------------------------------------------------------------- real sockets


#: Socket type, options, what is sent, what must come back before the body.
VARIANTS = {
    "7/MDP over REQ": (zmq.REQ, {}, [b"MDPC01", b"add"], [b"MDPC01", b"add"]),
    "7/MDP over REQ, correlated": (
        zmq.REQ,
        {zmq.REQ_CORRELATE: 1},
        [b"MDPC01", b"add"],
        [b"MDPC01", b"add"],
    ),
    "7/MDP over DEALER": (zmq.DEALER, {}, [b"", b"MDPC01", b"add"], [b"", b"MDPC01", b"add"]),
    "7/MDP behind an envelope": (
        zmq.DEALER,
        {},
        [b"MSxx", b"hop", b"", b"MDPC01", b"add"],
        [b"MSxx", b"hop", b"", b"MDPC01", b"add"],
    ),
    "18/MDP": (zmq.DEALER, {}, [b"MDPC02", b"\1", b"add"], [b"MDPC02", b"\3", b"add"]),
    "majortomo": (zmq.DEALER, {}, [b"", b"MDPC02", b"\2", b"add"], [b"", b"MDPC02", b"\4"]),
}


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "envelope" not in name])
def test_each_variant_gets_its_own_frames_back(peers: Peers, variant: str) -> None:
    kind, options, sent, expected = VARIANTS[variant]
    worker = peers.worker()
    client = peers.socket(kind, peers.producers)
    for option, value in options.items():
        client.set(option, value)
    tensor = bytes(range(256)) * 1_024
    for number in (1, 2):
        client.send_multipart([*sent, body(id=number), tensor])
        parts = peers.receive(worker)
        assert parts[1:] == [body(id=number), tensor]
        ticket = heads.unpack(parts[0]).request_id
        head = heads.Head(
            heads.REPLY, flags=heads.FLAG_BODY_LARGE, request_id=ticket, body_frames=2
        )
        meta = native.pack_meta({"instances": [{"y": ["uint8", [len(tensor)], 1]}]})
        worker.send_multipart([heads.pack(head), meta, tensor])
        *prefix, answered, large = peers.receive(client)
        assert prefix == expected
        assert list(msgpack.unpackb(answered)) == ["id", "status", "instances"]
        assert msgpack.unpackb(answered)["id"] == number
        assert large == tensor


def test_an_mdp_client_that_vanishes_costs_nobody_else(peers: Peers) -> None:
    worker = peers.worker()
    gone, stays = (peers.socket(zmq.REQ, peers.producers) for _ in range(2))
    for client in (gone, stays):
        client.send_multipart([b"MDPC01", b"add", body()])
    tickets = [heads.unpack(peers.receive(worker)[0]).request_id]
    if peers.core.load()[0] < 2:
        tickets.append(heads.unpack(peers.receive(worker)[0]).request_id)
    gone.close()
    for ticket in (1, 2):
        worker.send_multipart(answer(ticket))
    assert peers.receive(stays)[:2] == [b"MDPC01", b"add"]
    peers.turn_until(lambda: peers.core.load() == (0, 0))


def test_all_that_an_mdp_client_had_queued_goes_with_its_first_reply_that_finds_nobody(
    peers: Peers,
) -> None:
    worker = peers.worker(credit=1)
    gone, stays = (peers.socket(zmq.DEALER, peers.producers) for _ in range(2))
    for client, count in ((gone, 100), (stays, 3)):
        for _ in range(count):
            client.send_multipart([b"", b"MDPC01", b"add", body()])
        peers.turn_until(lambda: peers.core.load()[0] >= 100)
    peers.turn_until(lambda: peers.core.load()[0] == 103)
    ticket = heads.unpack(peers.receive(worker)[0]).request_id
    gone.close()
    peers.turn_until(lambda: peers.switch.next_timer_ns() == peers.core.next_timer_ns())
    worker.send_multipart(answer(ticket))
    while peers.core.load()[0] > 3:  # until the socket knows that it is gone
        held = peers.core.load()[0]
        peers.turn_until(lambda held=held: peers.core.load()[0] < held)  # type: ignore[misc]
        if peers.core.load()[0] > 3:
            ticket = heads.unpack(peers.receive(worker)[0]).request_id
            worker.send_multipart(answer(ticket))
    assert peers.core.counters.clients_gone == 1
    # One more had been dispatched when it was found out.
    worker.send_multipart(answer(heads.unpack(peers.receive(worker)[0]).request_id))
    for _ in range(3):
        worker.send_multipart(answer(heads.unpack(peers.receive(worker)[0]).request_id))
        assert peers.receive(stays)[1] == b"MDPC01"


def test_who_reads_nothing_gets_failures_in_its_own_dialect(peers: Peers) -> None:
    peers.switch.unread = type(peers.switch.unread)(1)
    worker = peers.worker()
    client = peers.socket(zmq.DEALER, peers.producers)
    client.send_multipart([b"MDPC02", b"\1", b"add", body()])
    ticket = heads.unpack(peers.receive(worker)[0]).request_id
    # Something large is unread already.
    routing_id = next(iter(peers.core._clients)).address[0]  # type: ignore[attr-defined]
    peers.switch.unread.add(routing_id, 1, type("Never", (), {"done": False})())
    head = heads.Head(heads.REPLY, request_id=ticket, body_frames=2)
    meta = native.pack_meta({"instances": [{"y": ["uint8", [1 << 17], 1]}]})
    worker.send_multipart([heads.pack(head), meta, bytes(1 << 17)])
    *prefix, answered = peers.receive(client)
    assert prefix == [b"MDPC02", b"\3", b"add"]
    assert msgpack.unpackb(answered)["reason"] == "unread_bytes_full"
    assert limits.TENSOR_INLINE_BYTES_MAX < 1 << 17
