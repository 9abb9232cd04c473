"""The broker inside the gateway's event loop: the shortest way from a door to a worker.

The core treats the doors as one more client, whose replies are handed over instead of sent. The
sockets' descriptors are edge-triggered (zmq_getsockopt, ZMQ_FD): after each turn the sockets are
asked whether they hold more, because a send can swallow the edge of an arrival. The links of
workers have none of that: while requests come from doors only, no socket is looked at.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import zmq

from broker.stats import describe
from broker.switch import Switch
from gateway.bus import Done, Reply, request_by
from protocol import head as heads
from protocol import limits, native, status
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.sockets import IN, events_of
from telemetry.log import get_logger

log = get_logger("BROKER")

#: Never sleep longer than this on a timer: it bounds what a clock anomaly can cost.
TIMER_S_MAX = 60.0

GOING_DOWN = RequestError("draining", "the server is going down")
FAILED = RequestError("broker_lost", "the broker failed, details are in its log")


class EmbeddedBus:
    """A `gateway.bus.Bus` around a switch in this process. Belongs to the loop that made it."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._core = switch.core
        self._loop = asyncio.get_running_loop()
        self._request_ids = itertools.count(1)
        self._waiting: dict[int, Done] = {}
        #: those of them that have an idempotency key
        self._keyed: set[int] = set()
        #: replies that are still to be handed over
        self._came: list[tuple[bytes, list[Any]]] = []
        self._turn_planned = False
        self._sockets_are_due = False
        self._links_are_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._is_closed = False
        #: set when the broker is no more: it was closed, or a bug ended it
        self.ended = asyncio.Event()
        self._sockets = switch.sockets
        for socket in self._sockets:
            self._loop.add_reader(socket.fileno(), self._plan_turn)
        if switch.links is not None:
            self._loop.add_reader(switch.links.fileno(), self._plan_receive)
        self._plan_turn()

    def submit(self, head: bytes, frames: Sequence[Buffer], done: Done) -> int:
        """Send one request; see `gateway.bus.Bus`."""
        request_id = next(self._request_ids)
        self._waiting[request_id] = done
        if self._is_closed:
            self._loop.call_soon(self._take, *failure_reply(request_id, GOING_DOWN))
            return request_id
        stamped = head[:8] + heads.REQUEST_ID.pack(request_id) + head[16:]
        flags = head[heads.FLAGS_LOW_BYTE]
        if flags & heads.FLAG_KEYED:
            self._keyed.add(request_id)
        if flags & heads.FLAG_BODY_LARGE:
            frames = [_without_copy(frame) for frame in frames]
        self._core.receive_from_client(self, [stamped, *frames], time.monotonic_ns())
        self._plan_flush()
        return request_id

    def cancel(self, submitted: object) -> None:
        """Nobody waits for a reply any more; see `gateway.bus.Bus`."""
        assert isinstance(submitted, int)
        is_waiting = self._waiting.pop(submitted, None) is not None
        is_keyed = submitted in self._keyed
        self._keyed.discard(submitted)
        if is_waiting and not is_keyed and not self._is_closed:
            cancel = heads.pack(heads.Head(heads.CANCEL, request_id=submitted))
            self._core.receive_from_client(self, [cancel], time.monotonic_ns())
            self._plan_flush()

    def request(self, head: bytes, frames: Sequence[Buffer]) -> Awaitable[Reply]:
        """Send one request and wait for its reply; see `gateway.bus.Bus`."""
        return request_by(self, head, frames)

    async def stats(self) -> dict[str, Any]:
        """What the broker tells about its services, workers and counters."""
        return describe(self._core, time.monotonic_ns())

    def deliver(self, parts: list[Any]) -> None:
        """Take replies of the core (`broker.switch.LocalClient`)."""
        at = 0
        while at < len(parts):
            head = parts[at]
            end = at + 1 + head[heads.BODY_FRAMES_OFFSET]
            self._came.append((head, parts[at + 1 : end]))
            at = end

    def _hand_out(self) -> None:
        """Hand over the replies that came. Whoever takes one may ask for more."""
        came, self._came = self._came, []
        for head, frames in came:
            self._take(head, [_as_buffer(frame) for frame in frames])

    def _take(self, head: bytes, frames: Sequence[Buffer]) -> None:
        (request_id,) = heads.REQUEST_ID.unpack_from(head, heads.REQUEST_ID_OFFSET)
        done = self._waiting.pop(request_id, None)
        if done is None:
            return
        if self._keyed:
            self._keyed.discard(request_id)
        try:
            done(head, frames)
        except Exception:  # of that one request
            log.exception("bug in the gateway", request_id=request_id)

    def _plan_turn(self) -> None:
        """Look at the sockets in this iteration of the loop, once for all that happens in it."""
        self._sockets_are_due = True
        self._plan_flush()

    def _plan_receive(self) -> None:
        """Look at the links in this iteration of the loop."""
        self._links_are_due = True
        self._plan_flush()

    def _plan_flush(self) -> None:
        """Send in this iteration of the loop what the core has ready then."""
        if not self._turn_planned:
            self._turn_planned = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_planned = False
        if self._is_closed:
            return
        sockets_are_due, self._sockets_are_due = self._sockets_are_due, False
        links_are_due, self._links_are_due = self._links_are_due, False
        more = False
        try:
            if sockets_are_due or links_are_due:
                more = self._switch.turn(sockets_are_due)
            else:
                self._switch.flush()
        except (
            Exception
        ):  # the broker's top: tables that a bug left half done are not to be trusted
            log.exception("broker failed")
            self._end(FAILED)
            return
        if self._came:
            self._hand_out()
        if self._switch.is_touched:
            self._switch.is_touched = False
            # Each is asked, whatever another said: that is what arms its descriptor again.
            events = [events_of(socket) & IN for socket in self._sockets]
            if more or any(events):
                self._plan_turn()
        self._arm()

    def _arm(self) -> None:
        next_ns = self._switch.next_timer_ns()
        if next_ns is None or (self._timer is not None and self._timer_ns <= next_ns):
            return  # an early call is harmless: the timer arms itself again
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = next_ns
        delay_s = max(0.0, (next_ns - time.monotonic_ns()) / 1e9)
        self._timer = self._loop.call_later(min(delay_s, TIMER_S_MAX), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._sockets_are_due = True
        self._turn()

    def drain(self) -> None:
        """Refuse new requests from every door and producer; running ones finish."""
        self._core.drain()

    def requests(self) -> int:
        """Requests that the broker holds."""
        return self._core.load()[0]

    def set_requests_max(self, requests_max: int) -> None:
        """Change the broker's limit of requests."""
        self._core.admission.set_requests_max(requests_max)

    async def close(self) -> None:
        """Leave the loop and close the sockets; whoever still waits is told so. Idempotent."""
        if not self._is_closed:
            self._end(GOING_DOWN)

    def _end(self, why: RequestError) -> None:
        self._is_closed = True
        self.ended.set()
        for socket in self._sockets:
            self._loop.remove_reader(socket.fileno())
        if self._switch.links is not None:
            self._loop.remove_reader(self._switch.links.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._hand_out()
        for request_id in list(self._waiting):
            self._take(*failure_reply(request_id, why))
        self._switch.close()


def failure_reply(request_id: int, error: RequestError) -> tuple[bytes, list[Buffer]]:
    """A reply of the bus that fails as a whole."""
    frames = native.encode_failure(None, error.reason, error.message)
    code = status.REASONS[error.reason].grpc
    head = heads.Head(heads.REPLY, status=code, request_id=request_id, body_frames=len(frames))
    return heads.pack(head), frames


def _without_copy(frame: Buffer) -> Any:
    if len(frame) < limits.TENSOR_INLINE_BYTES_MAX:
        return frame
    return zmq.Frame(frame, copy=False)


def _as_buffer(part: Any) -> Buffer:
    if type(part) is bytes:
        return part
    return part.bytes if isinstance(part, zmq.Frame) else part
