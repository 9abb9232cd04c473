"""Workers over links, beside others over ZeroMQ: registration, requests, and sudden ends."""

from __future__ import annotations

import os
import resource
import select
import socket
import time
from contextlib import suppress
from pathlib import Path

import zmq

from protocol import control
from protocol import head as heads
from protocol.link_path import link_path
from protocol.link_socket import LinkSocket
from tests.broker.helpers import ready, reply, request
from tests.broker.peers import DEADLINE_S, Peers


def receive(peers: Peers, link: LinkSocket) -> list[bytes]:
    """Turn the switch until the link has a message that is no heartbeat."""
    until_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < until_s:
        peers.switch.turn(sockets_are_due=False)
        messages = [parts for parts in link.receive() if parts[0][3] != heads.HEARTBEAT]
        if messages:
            assert len(messages) == 1
            return messages[0]
    raise AssertionError("no message came")


def worker(peers: Peers, name: str = "slot1", credit: int = 4) -> LinkSocket:
    path = link_path(peers.workers)
    assert path is not None
    link = LinkSocket.connect(path)
    link.send(ready(name, credit=credit))
    assert receive(peers, link)[0][3] == heads.WELCOME
    return link


def ask(peers: Peers, link: LinkSocket) -> tuple[zmq.Socket[bytes], int]:
    """A client whose request is at the worker, and the request's ticket."""
    client = peers.socket(zmq.DEALER, peers.producers)
    client.send_multipart(request(1))
    peers.turn_until(lambda: peers.core.load()[0] == 1)
    head, _ = receive(peers, link)
    return client, heads.unpack(head).request_id


def test_a_worker_over_a_link_serves_clients_of_zeromq(peers: Peers) -> None:
    link = worker(peers)
    client = peers.socket(zmq.DEALER, peers.producers)
    client.send_multipart(request(7, body=b"question"))
    peers.turn_until(lambda: peers.core.load()[0] == 1)
    head, body = receive(peers, link)
    assert body == b"question"
    link.send(reply(heads.unpack(head).request_id, b"answer"))
    assert peers.receive(client)[1] == b"answer"
    link.close()


def test_workers_over_both_share_the_load(peers: Peers) -> None:
    link, dealer = worker(peers, "slot1", credit=1), peers.worker("slot2", credit=1)
    client = peers.socket(zmq.DEALER, peers.producers)
    for number in (1, 2):
        client.send_multipart(request(number, body=b"%d" % number))
    peers.turn_until(lambda: peers.core.load()[0] == 2)
    assert {receive(peers, link)[1], peers.receive(dealer)[1]} == {b"1", b"2"}
    link.close()


def test_large_bodies_go_both_ways(peers: Peers) -> None:
    link = worker(peers)
    client = peers.socket(zmq.DEALER, peers.producers)
    large = bytes(range(256)) * 40_000
    client.send_multipart(request(1, body=large, flags=heads.FLAG_BODY_LARGE))
    peers.turn_until(lambda: peers.core.load()[0] == 1)
    parts = receive(peers, link)
    assert bytes(parts[1]) == large
    link.send(reply(heads.unpack(parts[0]).request_id, large[::-1]))
    until_s = time.monotonic() + DEADLINE_S
    while link.has_unsent:
        assert time.monotonic() < until_s
        peers.switch.turn()
        link.send_rest()
    assert peers.receive(client)[1] == large[::-1]
    link.close()


def test_a_link_that_ends_is_a_worker_that_cannot_be_reached(peers: Peers) -> None:
    link = worker(peers)
    _, ticket = ask(peers, link)
    link.close()
    peers.turn_until(lambda: any(w.lost_ns for w in peers.core.registration.workers.values()))
    # Another one gets the request once the supervisor's time to tell is over.
    other = worker(peers, "slot2")
    redelivered = heads.unpack(receive(peers, other)[0])
    assert redelivered.flags & heads.FLAG_REDELIVERED
    assert redelivered.request_id != ticket
    other.close()


def test_what_a_worker_said_last_counts_though_its_link_has_ended(peers: Peers) -> None:
    link = worker(peers)
    client, ticket = ask(peers, link)
    link.send(reply(ticket, b"last words"))
    link.close()
    assert peers.receive(client)[1] == b"last words"


def test_last_words_count_also_when_the_broker_says_something_after_them(peers: Peers) -> None:
    link = worker(peers)
    client, ticket = ask(peers, link)
    link.send(reply(ticket, b"last words"))
    link.close()
    for _ in range(3):
        peers.core.outbox.control(next(iter(peers.core.registration.workers)), control.Heartbeat())
        peers.switch.flush()
    assert peers.receive(client)[1] == b"last words"


def test_who_comes_when_descriptors_have_run_out_is_turned_away(peers: Peers) -> None:
    link = worker(peers)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = link_path(peers.workers)
    stranger = socket.socket(socket.AF_UNIX)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (stranger.fileno() + 1, limits[1]))
        holes = []
        with suppress(OSError):
            while True:
                holes.append(os.open(os.devnull, os.O_RDONLY))
        stranger.connect(path)
        peers.switch.turn(sockets_are_due=False)
        stranger.settimeout(DEADLINE_S)
        assert stranger.recv(1) == b""
        assert not select.select([peers.switch.links], [], [], 0)[0]  # nobody waits any more
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for hole in holes:
            os.close(hole)
        stranger.close()
    worker(peers, "slot2").close()
    link.close()


def test_rubbish_ends_its_link_and_nothing_else(peers: Peers) -> None:
    link = worker(peers)
    path = link_path(peers.workers)
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\xff" * 64, b"\1\0\0\0\1\0\0\0x"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(path)
            stranger.sendall(rubbish)
            peers.switch.turn()
            peers.switch.turn()
    client, ticket = ask(peers, link)
    link.send(reply(ticket, b"still here"))
    assert peers.receive(client)[1] == b"still here"
    link.close()


def test_a_worker_that_does_not_read_holds_up_nobody(peers: Peers) -> None:
    stuck, other = worker(peers, "slot1", credit=8), worker(peers, "slot2", credit=8)
    client = peers.socket(zmq.DEALER, peers.producers)
    large = bytes(1_000_000)
    for number in range(8):
        client.send_multipart(request(number, body=large, flags=heads.FLAG_BODY_LARGE))
    peers.turn_until(lambda: peers.core.load()[0] == 8)
    answered = 0
    until_s = time.monotonic() + DEADLINE_S
    while answered < 4:
        assert time.monotonic() < until_s
        peers.switch.turn()
        for parts in other.receive():
            for head, _ in heads.split_parcels(parts):
                if head[3] == heads.REQUEST:
                    other.send(reply(heads.unpack(head).request_id))
                    answered += 1
    assert stuck.receive() is not None
    stuck.close()
    other.close()


def test_a_broker_that_goes_takes_its_link_with_it(peers: Peers) -> None:
    path = link_path(peers.workers)
    assert path is not None
    assert Path(path).exists()
    assert peers.switch.links is not None
    peers.switch.links.close()
    assert not Path(path).exists()
