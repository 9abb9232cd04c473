"""The broker's core: a pure machine that queues requests and load-balances them over workers.

Doors: `receive_from_client`, `receive_from_worker`, `client_lost`, `worker_lost`, `handle_timer`;
`next_timer_ns` tells when to call again; the shell sends what `outbox.take` hands over. No sockets,
no clock, no logging: monotonic time comes in as `now_ns`.

Rules
  - Every accepted request gets exactly one final reply, or none if its client cancelled or left, or
    wanted none (ONE_WAY); then it is counted as answered or failed all the same.
  - A request is executed at most `attempts_max` times. When a worker is lost, requests that it had
    not started go back to the head of the backlog, in their order; the others are suspects: each is
    dispatched again to a worker that holds nothing else, or fails with `worker_lost`.
  - A deadline answers on time whether the request waits or runs; the token of a running one comes
    home with the late reply, which is dropped.
  - Version 0 of a servable is an alias: the highest version that has a worker which takes work;
    if none has, the highest version known. SHARE splits it between versions. A label in the place
    of a version is that version, or else version 0. A request for one of these is bound to a
    version only as long as that version takes work.
  - A service without device workers keeps its backlog for `service_grace_ns`: workers restart.
  - A request with a key that is known is not executed again (`keys.py`).
  - An extra worker gets only methods that it offers; a device worker gets every method.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any

from broker import service as states
from broker.admission import Admission, Settings
from broker.book import Book, enter
from broker.client_commands import ClientCommands
from broker.deadlines import Deadlines
from broker.dispatcher import Dispatcher
from broker.invariants import check
from broker.keys import Keys
from broker.outbox import Outbox
from broker.quarantine import Quarantine
from broker.registration import Registration
from broker.service import Frame, Request, Service, Worker
from broker.stats import Counters
from broker.watchers import Watchers
from protocol import control, limits, status
from protocol import head as heads
from protocol.errors import RemoteProtocolError
from protocol.head import FIXED_BYTES, FLAGS_LOW_BYTE, SERVICE_SIZE_OFFSET

NS_PER_MS = 1_000_000

#: What makes a request one that is looked at more closely.
FLAGS_RARE = heads.FLAG_KEYED | heads.FLAGS_PRIORITY

#: How often a request may come back from a dead worker that had not started it, before it is a
#: suspect all the same: it may kill while it is decoded.
UNSTARTED_RETURNS_MAX = 2

#: How long after its connection a worker is lost, if its supervisor says nothing.
UNREACHABLE_GRACE_NS = 500 * NS_PER_MS


class Core:
    """The state of one broker. `check_invariants` holds between any two calls."""

    def __init__(self, settings: Settings) -> None:
        self.admission = Admission(settings)
        self.book = Book()
        self.outbox = Outbox()
        self.counters = Counters()
        self.registration = Registration(self)
        self._clients: dict[Hashable, dict[int, Request]] = {}
        self._deadlines = Deadlines()
        self._dispatcher = Dispatcher(self.outbox)
        self._quarantine = Quarantine(settings.quarantine_ms, settings.attempts_max)
        self.watchers = Watchers(self.outbox)
        self._story: deque[tuple[Any, ...]] = deque(maxlen=256)
        self.keys = Keys(self)
        self._keyed = self.keys.running
        self._commands = ClientCommands(self)

    @property
    def settings(self) -> Settings:
        """The limits as they are now."""
        return self.admission.settings

    # ------------------------------------------------------------ from clients

    def receive_from_client(self, client: Hashable, parts: list[Frame], now_ns: int) -> None:
        """Take one message of a client: its parcels, without routing id and empty delimiter.

        What breaks the protocol is answered where a request id can be read, else counted.
        """
        at, count = 0, len(parts)
        while at < count:
            head = parts[at]
            if len(head) < heads.FIXED_BYTES or head[:2] != heads.MAGIC:
                self.counters.malformed += 1
                return
            end = at + 1 + head[heads.BODY_FRAMES_OFFSET]
            if end > count or len(head) > heads.HEAD_BYTES_MAX:
                self.refuse(client, head, "malformed", heads.broken_rule(head, count - at - 1))
                return
            if head[:4] == heads.REQUEST_PREFIX:
                self.receive_request(client, head, parts[at + 1 : end], now_ns)
            else:
                self._commands.receive(client, head, now_ns)
            at = end

    def receive_request(
        self, client: Hashable, head: bytes, frames: list[Frame], now_ns: int
    ) -> None:
        """Take one request: refuse it, let it wait, or dispatch it."""
        flags = head[FLAGS_LOW_BYTE] & FLAGS_RARE
        if flags:
            if flags & heads.FLAG_KEYED:
                return self.keys.receive(client, head, frames, now_ns)
            if flags == heads.FLAGS_PRIORITY:
                return self.refuse(client, head, "malformed", "flags HIGH and LOW are both set")
        request_id, budget_ms = heads.RESTAMP.unpack_from(head, heads.REQUEST_ID_OFFSET)
        outstanding = self._clients.get(client)
        if outstanding is not None and request_id in outstanding:
            self.counters.duplicates += 1  # the running one will answer both
            return None
        key = head[FIXED_BYTES : FIXED_BYTES + head[SERVICE_SIZE_OFFSET]]
        service = self.registration.routes.get(key)
        if self.registration.splits:
            service = self.registration.resolve(key)
        service = service or self.registration.resolve_label(key)
        if service is None:
            return self.refuse(client, head, *self.registration.why_not(key))
        if self._quarantine:
            poison = self._quarantine.refusal(service.key, head, frames, now_ns)
            if poison is not None:
                return self.refuse(client, head, *poison)
        body_bytes = sum(map(len, frames))
        refusal = self.admission.refusal(head, body_bytes, service)
        if refusal is not None:
            return self.refuse(client, head, *refusal)
        budget_ms = budget_ms or self.admission.settings.budget_ms_default
        if budget_ms > limits.BUDGET_MS_MAX:
            budget_ms = limits.BUDGET_MS_MAX
        deadline_ns = now_ns + budget_ms * NS_PER_MS
        request = Request(
            client, request_id, head, frames, body_bytes, service, now_ns, deadline_ns
        )
        if outstanding is None:
            outstanding = self._clients[client] = {}
        outstanding[request_id] = request
        self.admission.take(request.body_bytes)
        self._deadlines.add(request)
        self.counters.accepted += 1
        worker = request.lane.tokens.least_loaded()
        if worker is None:
            request.lane.backlog.add(request)
        else:
            self._dispatcher.dispatch(request, worker, now_ns)
        return None

    def cancel(self, client: Hashable, request_id: int, now_ns: int) -> None:
        """The client takes a request back: it gets no reply."""
        request = self.request_of(client, request_id)
        if request is not None:
            self._cancel(request, now_ns)

    def client_lost(self, client: Hashable, now_ns: int) -> None:
        """The client is gone: its waiting requests are taken out, its running ones dropped.

        Those to which it never wanted a reply stay: it may have left because it was done. Those
        with a key stay: it may come back and ask for them.
        """
        self.watchers.forget(client)
        for request in list(self._clients.get(client, {}).values()):
            if not self.outlives_client(request):
                self._cancel(request, now_ns)

    def _cancel(self, request: Request, now_ns: int) -> None:
        self.counters.cancelled += 1
        enter(request, status.CANCELLED, now_ns)
        self._finish(request)

    def outlives_client(self, request: Request) -> bool:
        """Whether a request stays when its client leaves."""
        is_one_way = request.head[heads.FLAGS_LOW_BYTE] & heads.FLAG_ONE_WAY
        return bool(is_one_way) or request in self.keys.running

    def request_of(self, client: Hashable, request_id: int) -> Request | None:
        """The request that a client has outstanding under a number."""
        return self._clients.get(client, {}).get(request_id)

    # ------------------------------------------------------------ from workers

    def receive_from_worker(self, routing_id: bytes, parts: list[Frame], now_ns: int) -> None:
        """Take one message from the workers' side: replies, registration, heartbeats."""
        worker = self.registration.workers.get(routing_id)
        if worker is not None:
            worker.heard_ns = now_ns
        at, count = 0, len(parts)
        while at < count:
            head = parts[at]
            if len(head) < heads.FIXED_BYTES or head[:2] != heads.MAGIC:
                return self._end_broken(routing_id, f"frame {at} is not a head", now_ns)
            end = at + 1 + head[heads.BODY_FRAMES_OFFSET]
            if end > count or len(head) > heads.HEAD_BYTES_MAX:
                return self._end_broken(routing_id, heads.broken_rule(head, count - at - 1), now_ns)
            if worker is not None and head[:4] == heads.REPLY_PREFIX:
                self._receive_reply(worker, head, parts[at + 1 : end], now_ns)
            else:
                self._receive_control(routing_id, head, parts[at + 1 : end], now_ns)
                worker = self.registration.workers.get(routing_id)
            at = end
        return None

    def _receive_reply(self, worker: Worker, head: bytes, frames: list[Frame], now_ns: int) -> None:
        (ticket,) = heads.REQUEST_ID.unpack_from(head, heads.REQUEST_ID_OFFSET)
        if ticket not in worker.in_flight:
            self.counters.replies_stale += 1
            return
        worker.moved_ns = now_ns
        takes_work = worker.state == states.READY
        if takes_work:
            worker.service.withdraw(worker)
        request = worker.in_flight.pop(ticket)
        if takes_work:
            worker.service.offer(worker)
        if request.done:
            self.counters.replies_late += 1
        else:
            at = heads.INSTANCE_COUNT_OFFSET
            instances = head[at] << 8 | head[at + 1]
            waited_us = enter(request, head[heads.STATUS_OFFSET], now_ns, instances)
            if self._keyed:
                self.keys.remember(request, head, frames, now_ns)
            answer = heads.restamp(head, request.request_id, waited_us)
            self.outbox.reply(request.client, request.head, answer, frames)
            self._finish(request)
        self.serve_backlog(worker.service, now_ns)

    def _receive_control(
        self, routing_id: bytes, head: bytes, frames: list[Frame], now_ns: int
    ) -> None:
        try:
            self.registration.receive(routing_id, heads.unpack(bytes(head)), frames, now_ns)
        except RemoteProtocolError as error:
            self._end_broken(routing_id, str(error), now_ns)

    def _end_broken(self, routing_id: bytes, rule: str, now_ns: int) -> None:
        """A peer of the workers' side broke the protocol. A worker is given up, for what it said
        may have been the reply that a client waits for."""
        self.counters.malformed += 1
        self.note("malformed", now_ns, routing_id, rule)
        self.outbox.control(routing_id, control.Disconnect(rule))
        worker = self.registration.workers.get(routing_id)
        if worker is not None:
            self.worker_lost(worker, now_ns, f"it broke the protocol: {rule}")

    def worker_unreachable(self, worker: Worker, now_ns: int) -> None:
        """The worker's connection is gone, and most likely the process. The supervisor will say so
        in a moment, and which requests had been started; it is waited for a little."""
        if worker.lost_ns is None:
            self.registration.withdraw(worker)
            worker.lost_ns = now_ns + UNREACHABLE_GRACE_NS
            self.serve_backlog(worker.service, now_ns)
            self.registration.rehome(worker.service, now_ns)
            self.note("unreachable", now_ns, worker.worker_id, worker.generation)

    def worker_lost(
        self,
        worker: Worker,
        now_ns: int,
        reason: str,
        started: frozenset[int] | None = None,
        is_blameless: bool = False,
    ) -> None:
        """The worker is gone: its tickets are dispatched again, or fail with `worker_lost`.

        started: tickets that it had begun to compute, None if nobody knows. What it had not begun
        goes back as if it had never left; each other request is a suspect, unless the death was
        somebody's order (is_blameless).
        """
        assert worker.state != states.GONE, worker.worker_id
        service = worker.service
        self.registration.forget_worker(worker, now_ns, reason)
        orphans = [request for request in worker.in_flight.values() if not request.done]
        worker.in_flight.clear()
        for request in reversed(orphans):
            request.worker = None
            request.lane = service.lane_of(request.head)
            is_unstarted = started is not None and request.ticket not in started
            if is_unstarted and request.returns < UNSTARTED_RETURNS_MAX:
                request.attempt -= 1
                request.returns += 1
                self._wait_again(request)
                continue
            request.deaths += not is_blameless
            if request.attempt < self.settings.attempts_max:
                self._wait_again(request)
                continue
            message = (
                f"{request.attempt} workers of {service.key.decode()} were lost while they "
                f"computed this request (attempts_max {self.settings.attempts_max}; "
                f"last: {worker.worker_id}, {reason})"
            )
            if request.deaths == request.attempt:
                self._quarantine.add(service.key, request.head, request.frames, now_ns)
            self._fail(request, "worker_lost", message, now_ns)
        self.serve_backlog(service, now_ns)
        self.registration.rehome(service, now_ns)

    def _wait_again(self, request: Request) -> None:
        """Its worker is lost; it waits before all others, as a suspect if it may be the cause."""
        self.counters.redispatched += 1
        lane = request.lane
        (lane.suspects if request.deaths else lane.backlog).add_first(request)

    def serve_backlog(self, service: Service, now_ns: int) -> None:
        """Give waiting requests to free tokens, as far as they go."""
        self._dispatcher.serve(service, now_ns)

    # ------------------------------------------------------------ endings

    def _fail(self, request: Request, reason: str, message: str, now_ns: int) -> None:
        enter(request, status.REASONS[reason].grpc, now_ns)
        self.counters.reasons[reason] += 1
        self.outbox.fail(request.client, request.head, reason, message)
        self._finish(request)

    def refuse(self, client: Hashable, head: bytes, reason: str, message: str) -> None:
        """Answer a request that was not accepted."""
        self.counters.refused += 1
        self.counters.reasons[reason] += 1
        service = self.registration.routes.get(heads.service_of(head))
        self.book.refusals[b"" if service is None else service.key, reason] += 1
        self.outbox.fail(client, head, reason, message)

    def _finish(self, request: Request) -> None:
        """Take a request out of every table but the in-flight one of its worker."""
        assert not request.done, request.request_id
        request.done = True
        outstanding = self._clients[request.client]
        del outstanding[request.request_id]
        if not outstanding:
            del self._clients[request.client]
        self._deadlines.discard(request)
        self.admission.release(request.body_bytes)
        request.frames = []
        if self._keyed:
            self.keys.end(request)
        if request.waits_in is not None:
            request.waits_in.leave(request)

    # ------------------------------------------------------------ time

    def next_timer_ns(self) -> int | None:
        """When `handle_timer` wants to be called, or None while nothing is watched."""
        times = (self._deadlines.next_ns(), self.registration.next_timer_ns())
        return min((time for time in times if time is not None), default=None)

    def handle_timer(self, now_ns: int) -> None:
        """Fire what is due: deadlines, heartbeats, silent workers, abandoned services."""
        for request in self._deadlines.expired(now_ns):
            waited_ms = (now_ns - request.since_ns) // NS_PER_MS
            where = "running" if request.waits_in is None else "waiting"
            key = request.service.key.decode()
            message = f"the budget ran out after {waited_ms} ms, {where} ({key})"
            self._fail(request, "deadline_exceeded", message, now_ns)
        self.registration.handle_timer(now_ns)

    # ------------------------------------------------------------ for registration and lamps

    def fail_backlog(self, service: Service, reason: str, message: str, now_ns: int) -> None:
        """Answer every waiting request of a service with a failure."""
        for lane in service.lanes:
            for request in (*lane.suspects.take_all(), *lane.backlog.take_all()):
                self._fail(request, reason, message, now_ns)

    def note(self, *event: Any) -> None:
        """Remember a transition for `story`."""
        self._story.append(event)

    def story(self) -> list[tuple[Any, ...]]:
        """The last 256 transitions, oldest first."""
        return list(self._story)

    def load(self) -> tuple[int, int]:
        """Requests and body bytes that are held."""
        return self.admission.requests, self.admission.request_bytes

    def drain(self) -> None:
        """Refuse new requests from now on, and tell who asked; what is held is finished."""
        if not self.admission.is_draining:
            self.admission.is_draining = True
            self.watchers.tell()

    def check_invariants(self) -> None:
        """Assert I1 to I7 and I10 of the simulator's list. Slow; for tests."""
        check(self)
