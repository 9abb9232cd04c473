"""The worker's end of the worker leg: when to offer itself, what to serve, when it is free to go.

Rule 1: a *connection* is one READY and all that follows it. Its number is `epoch`; when `epoch`
grows, the shell closes its socket and connects a new one before it sends from `outbox` again.
Rule 2: a ticket belongs to its epoch. A broker that was lost has given the ticket to another
worker, and a restarted broker counts from the start: a reply of an older epoch must never leave.
Rule 3: the broker is lost when it was silent for interval x liveness, when it says DISCONNECT, or
when it breaks the protocol; then the worker says so (DISCONNECT), waits a little and offers itself
again. A worker never gives up: it is the supervisor's business to end it.
Rule 4: a drained worker leaves only when the broker acknowledged DRAIN (so nothing is on the way)
and every ticket is answered. If the broker is lost meanwhile there is nobody to answer: it leaves.

    CONNECTING -- WELCOME --> READY -- drain --> DRAINING -- acknowledged and answered --> CLOSED

The credit that READY announced is a promise of the broker, too: a request beyond it, or a ticket
that is already in flight, breaks the protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from protocol import control, head, limits, native, status
from protocol.errors import RemoteProtocolError
from protocol.native import Buffer

CONNECTING = "CONNECTING"
READY = "READY"
DRAINING = "DRAINING"
CLOSED = "CLOSED"

WELCOMED = "WELCOMED"
BROKER_LOST = "BROKER_LOST"
DRAIN_ASKED = "DRAIN_ASKED"
DRAINED = "DRAINED"

#: Rule: every transition is in this table; no other code assigns `state`.
TRANSITIONS = {
    (CONNECTING, WELCOMED): READY,
    (CONNECTING, BROKER_LOST): CONNECTING,
    (CONNECTING, DRAIN_ASKED): CLOSED,  # not welcomed: nothing was promised to anybody
    (READY, BROKER_LOST): CONNECTING,
    (READY, DRAIN_ASKED): DRAINING,
    (DRAINING, BROKER_LOST): CLOSED,
    (DRAINING, DRAINED): CLOSED,
}

#: States in which tickets are valid.
SERVING = (READY, DRAINING)

_read_ticket = head.REQUEST_ID.unpack_from

STORY_LENGTH = 256
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class SessionSettings:
    """What a session is told once.

    ready: the offer, the same for each connection. The heartbeat numbers hold until WELCOME brings
    the broker's own. Pauses before a new offer double from `_min` to `_max`, as libzmq's own
    RECONNECT_IVL and RECONNECT_IVL_MAX do, so that a broker that refuses is not asked in a loop.
    """

    ready: control.Ready
    heartbeat_interval_ms: int = limits.HEARTBEAT_INTERVAL_MS
    liveness: int = limits.HEARTBEAT_LIVENESS
    reconnect_ms_min: int = 50
    reconnect_ms_max: int = 2_000


class Arrival(NamedTuple):
    """A request for the main thread. received_ns: from here its budget counts."""

    head: bytes
    frames: Sequence[Buffer]
    received_ns: int


class WorkerSession:
    """One worker's conversation with the broker, without sockets and clock."""

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        #: One of CONNECTING, READY, DRAINING, CLOSED.
        self.state = CONNECTING
        #: Number of the connection; 0 before `connect`.
        self.epoch = 0
        #: Messages for the broker, oldest first; the shell removes what it has sent.
        self.outbox: list[list[Buffer]] = []
        #: Requests for the main thread, oldest first; the shell takes them all at once.
        self.arrivals: list[Arrival] = []
        #: (number, start) of the oldest batch that runs, set by the shell; start 0 = idle.
        self.batch: tuple[int, int] = (0, 0)
        #: Until when that batch may take, because it compiles; set by the shell, 0 = as any other.
        self.patient_until_ns = 0
        #: What the worker has counted since its start, for heartbeats; set by the shell.
        self.read_numbers: Callable[[], control.Numbers] = tuple
        #: Tickets that the broker waits for. Empty outside of READY and DRAINING.
        self.in_flight: set[int] = set()
        #: Why the broker was lost last.
        self.lost_reason = ""
        #: Messages that broke the protocol.
        self.protocol_errors = 0
        #: Replies that were dropped because their connection is gone.
        self.stale_replies = 0
        self._interval_ns = settings.heartbeat_interval_ms * NS_PER_MS
        self._liveness = settings.liveness
        self._is_offered = False
        self._is_acknowledged = False
        self._offers_failed = 0
        self._offer_due_ns = 0
        self._heartbeat_due_ns = 0
        self._heard_ns = 0
        self._story: deque[tuple[int, str, str, str]] = deque(maxlen=STORY_LENGTH)

    # ------------------------------------------------------------ doors

    def connect(self, now_ns: int) -> None:
        """Offer the worker for the first time. REQUIRES: never called before."""
        assert self.epoch == 0, self.story()
        self._offer(now_ns)

    def receive(self, parts: Sequence[Buffer], now_ns: int) -> None:
        """A message came from the broker; any message counts as a heartbeat."""
        if not self._is_offered or self.state == CLOSED:
            return  # the tail of a connection that is already given up
        self._heard_ns = now_ns
        try:
            parcels = head.split_parcels(parts)  # type: ignore[arg-type]
        except RemoteProtocolError:
            self._receive_malformed(parts, now_ns)
            return
        in_flight, arrivals, credit = self.in_flight, self.arrivals, self._settings.ready.credit
        for head_frame, frames in parcels:
            if head_frame[:4] == head.REQUEST_PREFIX and self.state in SERVING:
                ticket = _read_ticket(head_frame, head.REQUEST_ID_OFFSET)[0]
                if ticket in in_flight or len(in_flight) >= credit:
                    self._refuse_request(ticket, now_ns)
                    continue
                in_flight.add(ticket)
                arrivals.append(Arrival(head_frame, frames, now_ns))
            else:
                self._receive_control(head_frame, frames, now_ns)

    def complete(self, epoch: int, tickets: Sequence[int], message: list[Buffer]) -> None:
        """The main thread answers tickets of a connection, all in one message of REPLY parcels."""
        if epoch != self.epoch or self.state not in SERVING:
            self.stale_replies += len(tickets)
            return
        assert len(set(tickets)) == len(tickets), (tickets, self.story())
        assert self.in_flight.issuperset(tickets), (tickets, self.story())
        self.in_flight.difference_update(tickets)
        self.outbox.append(message)
        self._leave_if_drained()

    def drain(self, now_ns: int) -> None:
        """Ask the broker for no more work and leave when what is here is done. Idempotent.

        READY -> DRAINING; CONNECTING -> CLOSED.
        """
        if self.state == READY:
            self._move(DRAIN_ASKED, "", now_ns)
            self.outbox.append([*control.pack(control.Drain())])
        elif self.state == CONNECTING:
            self._move(DRAIN_ASKED, "", now_ns)
            if self._is_offered and not self.outbox:  # READY has left, so somebody knows us
                self._say_goodbye("drained before WELCOME")
            else:
                self.outbox.clear()

    def lose_connection(self, now_ns: int) -> None:
        """The shell's connection has ended; nothing was said of why. Idempotent."""
        if self._is_offered and self.state != CLOSED:
            self._lose_broker("connection closed", now_ns)

    def handle_timer(self, now_ns: int) -> None:
        """Beat, notice a silent broker, offer again. Early calls are harmless."""
        if self.state == CLOSED:
            return
        if self._is_offered and now_ns >= self._expiry_ns():
            self._lose_broker("silent", now_ns)
            self._offer_due_ns = now_ns  # the silence was pause enough
        if self.state in SERVING:
            if now_ns >= self._heartbeat_due_ns:
                self._beat(now_ns)
        elif self.state == CONNECTING and not self._is_offered and now_ns >= self._offer_due_ns:
            self._offer(now_ns)

    @property
    def is_refused(self) -> bool:
        """The broker is lost, or has sent us away: the next offer waits for its time."""
        return self.state == CONNECTING and not self._is_offered

    def next_timer_ns(self) -> int | None:
        """When `handle_timer` has something to do; None when CLOSED."""
        if self.state == CLOSED:
            return None
        if not self._is_offered:
            return self._offer_due_ns
        if self.state == CONNECTING:
            return self._expiry_ns()
        return min(self._heartbeat_due_ns, self._expiry_ns())

    # ------------------------------------------------------------ lamps

    def check_invariants(self) -> None:
        """Assert what holds between any two calls."""
        assert self.state in (CONNECTING, READY, DRAINING, CLOSED), self.state
        assert not self.in_flight or self.state in SERVING, self.story()
        assert len(self.in_flight) <= self._settings.ready.credit, self.story()
        assert self._is_offered or self.state in (CONNECTING, CLOSED), self.story()
        assert not self._is_acknowledged or self.state in (DRAINING, CLOSED), self.story()

    def story(self) -> str:
        """The last transitions, one per line: when, event, state after it, detail."""
        return "\n".join(f"{at} {event} -> {to} {detail}" for at, event, to, detail in self._story)

    # ------------------------------------------------------------ parcels

    def _refuse_request(self, ticket: int, now_ns: int) -> None:
        if ticket in self.in_flight:
            self._refuse(f"ticket {ticket} is already in flight", now_ns)
        else:
            self._refuse(f"ticket {ticket} exceeds credit {self._settings.ready.credit}", now_ns)

    def _receive_control(self, head_frame: bytes, frames: Sequence[Buffer], now_ns: int) -> None:
        if self.state == CLOSED or not self._is_offered:
            return  # a parcel before this one in the same message ended the connection
        try:
            command = head.unpack(head_frame).command
            if command == head.HEARTBEAT:
                control.unpack_heartbeat(frames)
            elif command == head.WELCOME and self.state == CONNECTING:
                self._accept_welcome(control.unpack_welcome(frames), now_ns)
            elif command == head.DRAIN and self.state == DRAINING:
                control.unpack_drain(frames)
                self._is_acknowledged = True
                self._leave_if_drained()
            elif command == head.DISCONNECT:
                self._lose_broker(control.unpack_disconnect(frames).reason, now_ns)
            else:
                raise RemoteProtocolError(f"{head.COMMANDS[command]} is unexpected: {self.state}")
        except RemoteProtocolError as error:
            self._refuse(str(error), now_ns)

    def _accept_welcome(self, welcome: control.Welcome, now_ns: int) -> None:
        self._interval_ns = welcome.heartbeat_interval_ms * NS_PER_MS
        self._liveness = welcome.liveness
        self._heartbeat_due_ns = now_ns + self._interval_ns
        self._offers_failed = 0
        self._move(WELCOMED, "", now_ns)

    def _receive_malformed(self, parts: Sequence[Buffer], now_ns: int) -> None:
        """Serve the parcels before the broken one; answer that one if its ticket can be read."""
        self.protocol_errors += 1
        at = 0
        while at < len(parts):
            head_frame = bytes(parts[at])
            if len(head_frame) < head.FIXED_BYTES or head_frame[:2] != head.MAGIC:
                return  # where the next parcel begins is unknown, so the rest is lost
            end = at + 1 + head_frame[head.BODY_FRAMES_OFFSET]
            if end > len(parts):
                if head_frame[:4] == head.REQUEST_PREFIX and self.state in SERVING:
                    self._answer_malformed(head_frame, end - at - 1, len(parts) - at - 1)
                return
            self.receive(parts[at:end], now_ns)
            at = end

    def _answer_malformed(self, head_frame: bytes, promised: int, came: int) -> None:
        ticket = head.REQUEST_ID.unpack_from(head_frame, head.REQUEST_ID_OFFSET)[0]
        if ticket in self.in_flight:
            return  # its own reply will come
        body = native.encode_failure(
            None, "malformed", f"head promises {promised} body frames, {came} came"
        )
        reply = head.Head(
            head.REPLY,
            status=status.REASONS["malformed"].grpc,
            request_id=ticket,
            body_frames=len(body),
        )
        self.outbox.append([head.pack(reply), *body])

    # ------------------------------------------------------------ steps

    def _move(self, event: str, detail: str, now_ns: int) -> None:
        assert (self.state, event) in TRANSITIONS, (self.state, event, self.story())
        self.state = TRANSITIONS[self.state, event]
        self._story.append((now_ns, event, self.state, detail))

    def _offer(self, now_ns: int) -> None:
        self.epoch += 1
        self._is_offered = True
        self._heard_ns = now_ns
        self.outbox[:] = [[*control.pack(self._settings.ready)]]

    def _beat(self, now_ns: int) -> None:
        batch_seq, started_ns = self.batch
        busy_ms = (now_ns - started_ns) // NS_PER_MS if started_ns else 0
        patience_ms = max(0, self.patient_until_ns - now_ns) // NS_PER_MS
        heartbeat = control.Heartbeat(batch_seq, max(busy_ms, 0), patience_ms, self.read_numbers())
        self.outbox.append([*control.pack(heartbeat)])
        self._heartbeat_due_ns = now_ns + self._interval_ns

    def _expiry_ns(self) -> int:
        return self._heard_ns + self._interval_ns * self._liveness

    def _refuse(self, reason: str, now_ns: int) -> None:
        """The broker broke the protocol: say so, and begin anew."""
        self.protocol_errors += 1
        self._lose_broker(reason, now_ns)
        self._say_goodbye(reason)

    def _lose_broker(self, reason: str, now_ns: int) -> None:
        self._move(BROKER_LOST, reason, now_ns)
        self.lost_reason = reason
        self.in_flight.clear()
        self.arrivals.clear()
        self.outbox.clear()
        self._is_offered = False
        pause_ms = min(
            self._settings.reconnect_ms_min << self._offers_failed, self._settings.reconnect_ms_max
        )
        self._offers_failed = min(self._offers_failed + 1, 16)  # the pause is at its limit by then
        self._offer_due_ns = now_ns + pause_ms * NS_PER_MS

    def _leave_if_drained(self) -> None:
        if self.state == DRAINING and self._is_acknowledged and not self.in_flight:
            self._move(DRAINED, "", self._heard_ns)
            numbers = self.read_numbers()
            if numbers:
                last = control.Heartbeat(self.batch[0], numbers=numbers)
                self.outbox.append([*control.pack(last)])
            self._say_goodbye("drained")

    def _say_goodbye(self, reason: str) -> None:
        self.outbox.append([*control.pack(control.Disconnect(reason))])
