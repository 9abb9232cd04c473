"""A bus whose broker is another process, reached through ZeroMQ from an asyncio event loop.

ZeroMQ's file descriptor is edge-triggered: it tells once that something changed, and any call on
the socket may swallow the sign. So a wake-up empties the socket, and every pass that sent
something looks again whether something came. This costs a fraction of what `zmq.asyncio` costs,
and needs nothing of the loop but `add_reader` (so it runs under uvloop as well).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import zmq

from gateway.bus import Done, Reply, request_by
from protocol import head as heads
from protocol import limits, native
from protocol.client_session import (
    ClientSession,
    ClientSettings,
    Completion,
    failure,
    is_refused_by_draining,
)
from protocol.dealer import Dealer
from protocol.native import Buffer

NS_PER_MS = 1_000_000


class _Submitted:
    """A request under way. until_ns: how long a broker that drains is not taken for an answer."""

    __slots__ = ("done", "frames", "head", "request_id", "until_ns")

    def __init__(self, head: bytes, frames: Sequence[Buffer], done: Done, until_ns: int) -> None:
        self.head = head
        self.frames = frames
        self.done: Done | None = done
        self.until_ns = until_ns
        #: the session's number for it; another one with the next broker
        self.request_id = 0


class RemoteBus:
    """A `Bus` over one DEALER. Make it, use it and close it on one running event loop.

    address: the producers' address of a broker, `ipc://path` or `tcp://host:port`. It need not be
    there yet, and may come and go: requests then wait a little, or fail with `broker_lost`.
    settings.is_patient: what a broker refuses because it drains goes to the next broker, as long as
    its budget lasts; else the caller is told. Raises: ValueError if the address is not one.
    """

    def __init__(self, address: str, settings: ClientSettings | None = None) -> None:
        self.address = address
        self.session = ClientSession(settings or ClientSettings())
        self._loop = asyncio.get_running_loop()
        self._submitted: dict[int, _Submitted] = {}
        self._connected = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._turn_due = False
        self._is_closed = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._dealer = Dealer(self._context, address)
        except ValueError:
            self._context.destroy(linger=0)
            raise
        self._fds = [self._dealer.socket.fileno(), self._dealer.monitor.fileno()]
        for fd in self._fds:
            self._loop.add_reader(fd, self._turn)
        self._ask_for_turn()

    def submit(self, head: bytes, frames: Sequence[Buffer], done: Done) -> object:
        """Send one request; see `gateway.bus.Bus`."""
        until_ns = 0
        if self.session.settings.is_patient:
            until_ns = time.monotonic_ns() + _budget_ms(head) * NS_PER_MS
        submitted = _Submitted(head, frames, done, until_ns)
        self._submit(submitted, head)
        return submitted

    def _submit(self, submitted: _Submitted, head: bytes) -> None:
        if self._is_closed:
            closed = failure(0, "broker_lost", "the connection to the broker is closed")
            self._loop.call_soon(self._take, submitted, closed.head, closed.frames)
            return
        request_id = self.session.submit(head, submitted.frames, time.monotonic_ns())
        submitted.request_id = request_id
        self._submitted[request_id] = submitted
        self._ask_for_turn()

    def cancel(self, submitted: object) -> None:
        """Nobody waits for a reply any more; see `gateway.bus.Bus`."""
        assert isinstance(submitted, _Submitted)
        submitted.done = None
        if self._submitted.pop(submitted.request_id, None) is None:
            return
        if not (self.session.settings.is_patient and heads.is_keyed(submitted.head)):
            self.session.cancel(submitted.request_id)
            self._ask_for_turn()

    def _reply(self, submitted: _Submitted, head: bytes, frames: Sequence[Buffer]) -> None:
        if submitted.until_ns and is_refused_by_draining(head, frames):
            left_ms = (submitted.until_ns - time.monotonic_ns()) // NS_PER_MS
            if left_ms > 0:
                self._submit(submitted, heads.restamp(submitted.head, 0, left_ms))
                return
        self._take(submitted, head, frames)

    def _take(self, submitted: _Submitted, head: bytes, frames: Sequence[Buffer]) -> None:
        done, submitted.done = submitted.done, None
        if done is not None:
            try:
                done(head, frames)
            except Exception as error:  # a bug, of that one request
                bug = {"message": "a reply was not taken", "exception": error}
                self._loop.call_exception_handler(bug)

    def request(self, head: bytes, frames: Sequence[Buffer]) -> Awaitable[Reply]:
        """Send one request and wait for its reply; see `gateway.bus.Bus`."""
        return request_by(self, head, frames)

    async def stats(self) -> dict[str, Any]:
        """What the broker tells about its services, workers and counters.

        Raises: RequestError if the broker cannot be asked; RemoteProtocolError if it answers in
        another way than it must.
        """
        head, frames = await self.request(heads.pack(heads.Head(heads.STATS)), [])
        if head[3] != heads.STATS:
            raise native.decode_failure(frames)
        return native.unpack_meta(frames[0] if frames else b"")

    async def wait_connected(self, timeout_s: float) -> bool:
        """Wait until there is a connection to the broker; False if none came in time."""
        try:
            await asyncio.wait_for(self._connected.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Fail what is outstanding with `broker_lost` and close the connection. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for fd in self._fds:
            self._loop.remove_reader(fd)
        self.session.close("the connection to the broker was closed before the reply came")
        self._hand_out()
        self._dealer.close(self.session)
        self._context.term()

    # ------------------------------------------------------------ one turn

    def _ask_for_turn(self) -> None:
        # Requests of one iteration of the loop leave together.
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Receive, let the session act, hand out replies, send; then look again."""
        self._turn_due = False
        if self._is_closed:
            return
        session, dealer = self.session, self._dealer
        more = dealer.receive_into(session)
        if session.is_connected != self._connected.is_set():
            (self._connected.set if session.is_connected else self._connected.clear)()
        if session.completed:
            self._hand_out()
        all_sent = dealer.send_from(session) if session.outbox else True
        if more or dealer.can_receive() or not (all_sent or not dealer.can_send()):
            self._ask_for_turn()
        self._set_timer()

    def _hand_out(self) -> None:
        completed: list[Completion] = self.session.completed
        self.session.completed = []
        for request_id, head, frames in completed:
            submitted = self._submitted.pop(request_id, None)
            if submitted is not None:
                self._reply(submitted, head, frames)

    def _set_timer(self) -> None:
        next_ns = self.session.next_timer_ns()
        if next_ns is None:
            return  # a timer that is still set finds nothing to do
        if self._timer is not None:
            if self._timer_ns <= next_ns:
                return
            self._timer.cancel()
        self._timer_ns = next_ns
        delay_s = max(0, next_ns - time.monotonic_ns()) / 1e9
        self._timer = self._loop.call_later(delay_s, self._wake_by_timer)

    def _wake_by_timer(self) -> None:
        self._timer = None
        self.session.handle_timer(time.monotonic_ns())
        self._turn()


def _budget_ms(head: bytes) -> int:
    budget_ms: int = heads.RESTAMP.unpack_from(head, heads.REQUEST_ID_OFFSET)[1]
    return budget_ms or limits.BUDGET_MS_DEFAULT
