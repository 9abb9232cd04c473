"""The worker's end of the wire, driven through its doors with a virtual clock."""

import pytest

from protocol import control, head, native, status
from protocol import worker_session as ws
from protocol.values import MethodSignature

MS = ws.NS_PER_MS
READY = control.Ready(
    worker_id="add/1/device0",
    generation=1,
    service="add/1",
    credit=3,
    methods=(MethodSignature("add", "m", ("x",), ("y",)),),
    device=control.Device("CPU", 0),
    pid=1,
    servable="add",
)
OFFER = control.pack(READY)
DRAIN = control.pack(control.Drain())
BEAT = control.pack(control.Heartbeat())


@pytest.fixture
def session():
    made = ws.WorkerSession(ws.SessionSettings(READY, heartbeat_interval_ms=100, liveness=3))
    yield made
    made.check_invariants()


@pytest.fixture
def welcomed(session):
    session.connect(0)
    session.outbox.clear()
    session.receive(control.pack(control.Welcome(200, 4)), 0)
    return session


def request(ticket: int, body: bytes = b"body") -> list[bytes]:
    fields = head.Head(
        head.REQUEST, request_id=ticket, body_frames=1, service=b"add/1", method=b"m"
    )
    return [head.pack(fields), body]


def disconnect(reason: str) -> list[bytes]:
    return control.pack(control.Disconnect(reason))


def test_connecting_offers_the_worker_and_opens_the_first_epoch(session):
    session.connect(0)
    assert (session.state, session.epoch, session.outbox) == (ws.CONNECTING, 1, [OFFER])
    assert session.next_timer_ns() == 300 * MS


def test_welcome_makes_ready_and_sets_the_rhythm_of_both_ends(session):
    session.connect(0)
    session.receive(control.pack(control.Welcome(200, 4)), 5)
    assert session.state == ws.READY
    assert session.next_timer_ns() == 200 * MS + 5


def test_a_heartbeat_leaves_each_interval_and_tells_the_progress(welcomed):
    welcomed.receive(BEAT, 100 * MS)
    welcomed.handle_timer(199 * MS)
    assert welcomed.outbox == []
    welcomed.handle_timer(200 * MS)
    welcomed.batch = (7, 190 * MS)
    welcomed.handle_timer(400 * MS)
    assert welcomed.outbox == [
        control.pack(control.Heartbeat(0, 0)),
        control.pack(control.Heartbeat(7, 210)),
    ]


def test_requests_of_one_message_become_arrivals_in_order(welcomed):
    welcomed.receive([*request(1, b"a"), *request(2, b"b")], 9)
    assert welcomed.arrivals == [
        ws.Arrival(request(1)[0], [b"a"], 9),
        ws.Arrival(request(2)[0], [b"b"], 9),
    ]
    assert welcomed.in_flight == {1, 2}


def test_a_completed_ticket_leaves_the_table_and_its_message_the_worker(welcomed):
    welcomed.receive([*request(1), *request(2)], 0)
    welcomed.complete(1, [1, 2], [b"both"])
    assert (welcomed.in_flight, welcomed.outbox) == (set(), [[b"both"]])


def test_completing_a_ticket_twice_is_our_own_mistake(welcomed):
    welcomed.receive(request(1), 0)
    welcomed.complete(1, [1], [b"reply"])
    with pytest.raises(AssertionError):
        welcomed.complete(1, [1], [b"again"])
    with pytest.raises(AssertionError):
        welcomed.complete(1, [2, 2], [b"twice in one"])


def test_a_silent_broker_is_left_and_offered_a_new_connection_at_once(welcomed):
    welcomed.receive(request(1), 10 * MS)
    welcomed.handle_timer(809 * MS)
    assert (welcomed.state, welcomed.epoch) == (ws.READY, 1)
    welcomed.handle_timer(810 * MS)
    assert (welcomed.state, welcomed.epoch, welcomed.in_flight) == (ws.CONNECTING, 2, set())
    assert welcomed.outbox == [OFFER]


def test_any_message_of_the_broker_counts_as_a_heartbeat(welcomed):
    welcomed.receive(request(1), 700 * MS)
    welcomed.handle_timer(1_499 * MS)
    assert welcomed.epoch == 1
    welcomed.handle_timer(1_500 * MS)
    assert welcomed.epoch == 2


def test_an_unanswered_offer_is_repeated_on_a_new_connection(session):
    session.connect(0)
    session.handle_timer(300 * MS)
    assert (session.state, session.epoch, session.outbox) == (ws.CONNECTING, 2, [OFFER])


def test_replies_of_an_older_connection_are_dropped_and_counted(welcomed):
    welcomed.receive([*request(1), *request(2)], 0)
    welcomed.handle_timer(800 * MS)
    welcomed.receive(control.pack(control.Welcome(200, 4)), 801 * MS)
    welcomed.receive(request(1), 802 * MS)
    welcomed.outbox.clear()
    welcomed.complete(1, [1, 2], [b"old"])
    assert (welcomed.outbox, welcomed.in_flight, welcomed.stale_replies) == ([], {1}, 2)
    welcomed.complete(2, [1], [b"new"])
    assert (welcomed.outbox, welcomed.in_flight) == ([[b"new"]], set())


def test_after_disconnect_the_worker_pauses_longer_each_time(session):
    session.connect(0)
    now_ns, pauses_ms = 0, []
    for _ in range(8):
        session.receive(disconnect("no"), now_ns)
        due_ns = session.next_timer_ns()
        pauses_ms.append((due_ns - now_ns) // MS)
        session.handle_timer(due_ns - 1)
        assert session.outbox == []
        session.handle_timer(due_ns)
        assert session.outbox == [OFFER]
        now_ns = due_ns
    assert pauses_ms == [50, 100, 200, 400, 800, 1600, 2000, 2000]
    assert session.epoch == 9


def test_welcome_makes_the_next_pause_short_again(session):
    session.connect(0)
    session.receive(disconnect("no"), 0)
    session.handle_timer(50 * MS)
    session.receive(control.pack(control.Welcome(200, 4)), 51 * MS)
    session.receive(disconnect("restart"), 60 * MS)
    assert session.next_timer_ns() == 110 * MS


def test_between_two_connections_nothing_is_received_or_completed(welcomed):
    welcomed.receive(request(1), 0)
    welcomed.receive([*disconnect("bye"), *request(2)], 1)
    welcomed.receive(request(3), 2)
    welcomed.complete(1, [1], [b"late"])
    assert (welcomed.state, welcomed.in_flight, welcomed.outbox) == (ws.CONNECTING, set(), [])
    assert welcomed.stale_replies == 1


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (DRAIN, "DRAIN is unexpected: READY"),
        (control.pack(control.Welcome(1, 1)), "WELCOME is unexpected: READY"),
        (OFFER, "READY is unexpected: READY"),
        ([head.pack(head.Head(head.REPLY))], "REPLY is unexpected: READY"),
        ([head.pack(head.Head(head.HEARTBEAT))], "a control message has 1 body frame, not 0"),
        ([b"MS\x01\xff" + bytes(44)], "command 255 is unknown"),
        ([b"MS\x09\x03" + bytes(44)], "protocol version 9 is not 1"),
        ([*request(5), *request(5)], "ticket 5 is already in flight"),
        ([*request(1), *request(2), *request(3), *request(4)], "ticket 4 exceeds credit 3"),
    ],
)
def test_what_the_broker_may_not_say_is_answered_with_disconnect(welcomed, parts, reason):
    welcomed.receive(parts, 10)
    assert welcomed.outbox == [disconnect(reason)]
    assert (welcomed.state, welcomed.protocol_errors) == (ws.CONNECTING, 1)
    welcomed.handle_timer(10 + 50 * MS)
    assert (welcomed.epoch, welcomed.outbox) == (2, [OFFER])


def test_a_request_before_welcome_breaks_the_protocol(session):
    session.connect(0)
    session.receive(request(1), 0)
    assert session.outbox == [disconnect("REQUEST is unexpected: CONNECTING")]
    assert session.arrivals == []


@pytest.mark.parametrize("parts", [[b""], [b"garbage"], [b"x" * 100, b"y"], [b"MS\x01\x03"]])
def test_bytes_that_are_no_head_are_counted_and_survived(welcomed, parts):
    welcomed.receive([*request(1), *parts], 0)
    assert (welcomed.state, welcomed.protocol_errors, welcomed.in_flight) == (ws.READY, 1, {1})


def test_a_request_without_its_frames_is_answered_and_the_ones_before_it_served(welcomed):
    welcomed.receive([*request(1), request(2)[0]], 0)
    ((reply, body),) = welcomed.outbox
    fields = head.unpack(reply)
    assert (fields.command, fields.request_id) == (head.REPLY, 2)
    assert (fields.status, fields.dialect) == (status.INVALID_ARGUMENT, head.DIALECT_NATIVE)
    assert native.unpack_meta(body) == {
        "reason": "malformed",
        "message": "head promises 1 body frames, 0 came",
    }
    assert [arrival.head for arrival in welcomed.arrivals] == [request(1)[0]]


def test_a_drained_worker_leaves_when_acknowledged_and_everything_is_answered(welcomed):
    welcomed.receive(request(1), 0)
    welcomed.drain(1)
    welcomed.drain(2)
    assert (welcomed.state, welcomed.outbox) == (ws.DRAINING, [DRAIN])
    welcomed.receive([*request(2), *DRAIN], 3)
    welcomed.complete(1, [1], [b"one"])
    assert welcomed.state == ws.DRAINING
    welcomed.complete(1, [2], [b"two"])
    assert welcomed.state == ws.CLOSED
    assert welcomed.outbox == [DRAIN, [b"one"], [b"two"], disconnect("drained")]
    assert welcomed.next_timer_ns() is None


def test_an_idle_worker_leaves_on_the_acknowledgement_itself(welcomed):
    welcomed.drain(1)
    welcomed.receive(DRAIN, 2)
    assert (welcomed.state, welcomed.outbox) == (ws.CLOSED, [DRAIN, disconnect("drained")])


def test_a_draining_worker_beats_until_it_leaves(welcomed):
    welcomed.receive(request(1), 0)
    welcomed.drain(0)
    welcomed.outbox.clear()
    welcomed.handle_timer(200 * MS)
    assert welcomed.outbox == [BEAT]


@pytest.mark.parametrize("loss", ["silent", "disconnect"])
def test_a_draining_worker_whose_broker_is_lost_leaves(welcomed, loss):
    welcomed.receive(request(1), 0)
    welcomed.drain(1)
    if loss == "silent":
        welcomed.handle_timer(800 * MS)
    else:
        welcomed.receive(disconnect("stop"), 2)
    assert (welcomed.state, welcomed.in_flight) == (ws.CLOSED, set())
    welcomed.complete(1, [1], [b"late"])
    assert welcomed.stale_replies == 1


def test_a_worker_that_is_not_welcome_yet_leaves_at_once(session):
    session.connect(0)
    session.outbox.clear()
    session.drain(1)
    assert session.state == ws.CLOSED
    assert session.outbox == [disconnect("drained before WELCOME")]
    session.handle_timer(10_000 * MS)
    session.receive(control.pack(control.Welcome(1, 1)), 10_000 * MS)
    assert (session.state, session.epoch) == (ws.CLOSED, 1)


def test_a_worker_whose_offer_has_not_left_leaves_without_a_word(session):
    session.connect(0)
    session.drain(1)
    assert (session.state, session.outbox) == (ws.CLOSED, [])


def test_the_story_tells_each_transition_with_its_reason(welcomed):
    welcomed.receive(disconnect("server stops"), 5)
    assert welcomed.story() == "0 WELCOMED -> READY \n5 BROKER_LOST -> CONNECTING server stops"
