"""The switch with real sockets: who is where, envelopes, large bodies, and peers that vanish."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import zmq

from broker.admission import Settings
from broker.core import Core
from broker.switch import IPC_PATH_BYTES_MAX, Switch
from protocol import control
from protocol import head as heads
from protocol.native import decode_failure
from tests.broker.helpers import ready, reply, request
from tests.broker.peers import Peers


def test_dealer_and_req_clients_get_their_own_envelopes_back(peers: Peers) -> None:
    worker = peers.worker()
    dealer = peers.socket(zmq.DEALER, peers.producers)
    req = peers.socket(zmq.REQ, peers.producers)
    correlated = peers.socket(zmq.REQ, peers.producers)
    correlated.set(zmq.REQ_CORRELATE, 1)
    for number, client in enumerate((dealer, req, correlated), 1):
        client.send_multipart(request(number, body=b"from %d" % number))
        parts = peers.receive(worker)
        ticket = heads.unpack(parts[0]).request_id
        worker.send_multipart(reply(ticket, b"to " + parts[1][5:]))
        head, body = peers.receive(client)
        assert (heads.unpack(head).request_id, body) == (number, b"to %d" % number)


def test_who_vanishes_with_requests_that_wait_is_found_out_and_nobody_else_is_touched(
    peers: Peers,
) -> None:
    peers.worker(credit=1)
    kinds = [heads.FLAG_COALESCE, heads.FLAG_COALESCE, 0]
    gone, stays, simple = (peers.socket(zmq.DEALER, peers.producers) for _ in kinds)
    for client, flags in zip((gone, stays, simple), kinds, strict=True):
        for number in range(5):
            client.send_multipart(request(number, flags=flags))
    peers.turn_until(lambda: peers.core.load()[0] == 15)
    gone.close()
    peers.turn_until(lambda: peers.core.load()[0] == 10)
    assert (peers.core.counters.cancelled, peers.core.counters.clients_gone) == (5, 1)
    (head,) = peers.receive(stays)
    assert heads.unpack(head) == heads.Head(heads.HEARTBEAT)
    assert not simple.poll(50)
    assert peers.switch.next_timer_ns() == peers.core.next_timer_ns()


def test_what_a_client_leaves_behind_without_wanting_a_reply_is_computed(peers: Peers) -> None:
    worker = peers.worker(credit=1)
    gone = peers.socket(zmq.DEALER, peers.producers)
    for number, flags in enumerate((heads.FLAG_COALESCE, heads.FLAG_ONE_WAY, heads.FLAG_ONE_WAY)):
        gone.send_multipart(request(number, flags=flags))
    peers.turn_until(lambda: peers.core.load()[0] == 3)
    gone.close()
    peers.turn_until(lambda: peers.core.load()[0] == 2)
    for ticket in (1, 2, 3):
        parts = peers.receive(worker)
        assert heads.unpack(parts[0]).request_id == ticket
        worker.send_multipart(reply(ticket))
    peers.turn_until(lambda: peers.core.load() == (0, 0))
    counters = peers.core.counters
    assert (counters.cancelled, counters.clients_gone) == (1, 1)
    assert peers.core.book.answered() == 2


def test_a_large_answer_is_given_again_to_who_comes_back_with_the_key(peers: Peers) -> None:
    worker = peers.worker()
    large = bytes(range(256)) * 4096
    head = heads.Head(
        heads.REQUEST,
        heads.FLAG_KEYED | heads.FLAG_BODY_LARGE,
        request_id=1,
        body_frames=3,
        service=b"add/1",
        method=b"m",
    )
    for number in (1, 2, 3):
        client = peers.socket(zmq.DEALER, peers.producers)
        message = [heads.pack(head._replace(request_id=number)), b"meta", large, b"the key"]
        client.send_multipart(message)
        if number == 1:
            parts = peers.receive(worker)
            assert parts[1:] == [b"meta", large]
            client.close()
            answer = heads.Head(heads.REPLY, heads.FLAG_BODY_LARGE, request_id=1, body_frames=2)
            worker.send_multipart([heads.pack(answer), b"reply", large])
            peers.turn_until(lambda: peers.core.load() == (0, 0))
            continue
        got, *frames = peers.receive(client)
        assert heads.unpack(got).request_id == number
        assert frames == [b"reply", large]
    assert peers.core.counters.replayed == 2
    assert not worker.poll(20)


def test_a_producer_over_tcp_reaches_the_same_workers(peers: Peers) -> None:
    worker = peers.worker()
    client = peers.socket(zmq.DEALER, peers.switch.producers_addresses[1])
    client.send_multipart(request(1))
    assert peers.receive(worker)[1] == b"body"


def test_large_bodies_pass_unchanged_in_both_directions(peers: Peers) -> None:
    worker = peers.worker()
    client = peers.socket(zmq.DEALER, peers.producers)
    large = bytes(range(256)) * 4096
    head = heads.Head(
        heads.REQUEST,
        flags=heads.FLAG_BODY_LARGE,
        request_id=1,
        body_frames=2,
        service=b"add/1",
        method=b"m",
    )
    small = request(2, body=b"behind the large one")
    client.send_multipart([heads.pack(head), b"meta", large, *small])
    parts = peers.receive(worker)
    assert parts[1:3] == [b"meta", large]
    assert parts[4] == b"behind the large one"
    answer = heads.Head(heads.REPLY, flags=heads.FLAG_BODY_LARGE, request_id=1, body_frames=1)
    worker.send_multipart([heads.pack(answer), large, *reply(2)])
    assert peers.receive(client)[1] == large


@pytest.mark.shows("F24")
def test_a_client_that_closed_is_counted_and_its_requests_are_dropped(peers: Peers) -> None:
    worker = peers.worker(credit=1)
    client = peers.socket(zmq.DEALER, peers.producers)
    for number in range(1_000):
        client.send_multipart(request(number))
    peers.turn_until(lambda: peers.core.load()[0] == 1_000)
    client.close()
    while not peers.core.counters.clients_gone:
        # The first replies may still go into the closing connection; one will not.
        ticket = heads.unpack(peers.receive(worker)[0]).request_id
        worker.send_multipart(reply(ticket))
        peers.turn_until(lambda: peers.core.load()[0] < 1_000)
    assert peers.core.counters.clients_gone == 1
    assert peers.core.load() == (0, 0)


def test_replies_that_a_client_left_unread_are_forgotten_with_it(peers: Peers) -> None:
    worker = peers.worker()
    client = peers.socket(zmq.DEALER, peers.producers)
    for number in range(10):
        client.send_multipart(request(number))
        (head, _) = peers.receive(worker)
        worker.send_multipart(reply(heads.unpack(head).request_id, bytes(4 << 20)))
        peers.turn_until(lambda: peers.core.book.answered() == number + 1)  # noqa: B023
    assert len(peers.switch.unread) == 1
    client.close()
    peers.turn_until(lambda: len(peers.switch.unread) == 0)


def test_a_worker_whose_connection_is_gone_gets_nothing_more_and_is_lost_after_a_grace(
    peers: Peers,
) -> None:
    first = peers.worker("slot1", credit=1_000)  # the first sends may still seem to arrive
    second = peers.worker("slot2")
    first.close()
    client = peers.socket(zmq.DEALER, peers.producers)

    (gone,) = (w for w in peers.core.registration.workers.values() if w.worker_id == "slot1")
    ids = list(range(1000, 0, -1))

    def unreachable() -> bool:
        client.send_multipart(request(ids.pop()))
        return gone.lost_ns is not None

    peers.turn_until(unreachable)
    assert gone not in gone.service.lanes[0].tokens, "nothing more is sent to it"
    peers.turn_until(lambda: peers.core.counters.workers_lost == 1)
    assert [worker.worker_id for worker in peers.core.registration.workers.values()] == ["slot2"]
    second.close()


@pytest.mark.shows("F16", "R24")
def test_foreign_bytes_are_answered_or_counted_and_harm_nobody(peers: Peers) -> None:
    worker = peers.worker()
    client = peers.socket(zmq.DEALER, peers.producers)
    client.send_multipart([b"GET / HTTP/1.1"])
    client.send_multipart([b"", b"", b""])
    client.send_multipart([b"MS" + bytes(46)])
    assert decode_failure(peers.receive(client)[1:]).reason == "unsupported"
    port = int(peers.switch.producers_addresses[1].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
    client.send_multipart(request(1))
    peers.receive(worker)
    assert peers.core.counters.malformed == 2


@pytest.mark.parametrize("behind", [b"MS" + bytes(900), b"\xff" * 900, b""])
def test_what_is_no_head_behind_a_large_body_harms_nobody(peers: Peers, behind: bytes) -> None:
    worker = peers.worker()
    client = peers.socket(zmq.DEALER, peers.producers)
    large = heads.Head(
        heads.REQUEST, flags=heads.FLAG_BODY_LARGE, body_frames=1, service=b"add/1", method=b"m"
    )
    client.send_multipart([heads.pack(large), bytes(70_000), behind])
    assert len(peers.receive(worker)[1]) == 70_000
    answer = heads.Head(heads.REPLY, flags=heads.FLAG_BODY_LARGE, body_frames=1)
    worker.send_multipart([heads.pack(answer), bytes(70_000), behind])
    peers.turn_until(lambda: not peers.core.registration.workers)


def test_a_large_head_within_an_envelope_harms_nobody(peers: Peers) -> None:
    client = peers.socket(zmq.DEALER, peers.producers)
    large = heads.Head(heads.REQUEST, flags=heads.FLAG_BODY_LARGE, body_frames=3)
    client.send_multipart([b"id", heads.pack(large), b"", bytes(900), b"", *request(1)])
    client.send_multipart(request(2))
    assert heads.unpack(peers.receive(client)[0]).request_id == 2
    assert peers.core.counters.malformed == 1


def test_an_envelope_that_no_socket_makes_is_dropped(peers: Peers) -> None:
    client = peers.socket(zmq.DEALER, peers.producers)
    client.send_multipart([bytes([1, 2]) * 1_000, b"", *request(1)])
    client.send_multipart([b"x"] * 9 + [b"", *request(2)])
    client.send_multipart([b"id", b"", *request(3)])
    parts = peers.receive(client)
    assert parts[:2] == [b"id", b""]
    assert heads.unpack(parts[2]).request_id == 3
    assert peers.core.counters.malformed == 2


@pytest.mark.shows("F18", "F33")
def test_an_ipc_socket_is_its_owners_only_and_a_long_path_is_refused_by_name(peers: Peers) -> None:
    path = Path(peers.producers.removeprefix("ipc://"))
    assert path.stat().st_mode & 0o777 == 0o600
    long = "ipc:///tmp/" + "x" * IPC_PATH_BYTES_MAX
    with pytest.raises(OSError, match=f"exceeds {IPC_PATH_BYTES_MAX} B"):
        Switch(Core(Settings()), [long], peers.workers + "2")


def test_a_taken_port_is_refused_with_the_address(peers: Peers) -> None:
    taken = peers.switch.producers_addresses[1]
    with pytest.raises(OSError, match=r"cannot bind tcp://127\.0\.0\.1:"):
        Switch(Core(Settings()), [taken], peers.workers + "2")


def test_a_silent_worker_hears_disconnect_and_may_come_back(peers: Peers) -> None:
    worker = peers.worker()
    registered = next(iter(peers.core.registration.workers.values()))
    peers.core.worker_lost(registered, time.monotonic_ns(), "test")
    worker.send_multipart(control.pack(control.Heartbeat()))
    head, _ = peers.receive(worker)
    assert head[3] == heads.DISCONNECT
    worker.send_multipart(ready("slot1", generation=1))
    assert peers.receive(worker)[0][3] == heads.WELCOME
