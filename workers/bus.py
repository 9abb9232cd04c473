"""The bus thread: the socket around a worker session.

It receives while the main thread computes, beats, and connects again when the broker was lost.
What it passes to the main thread, through one queue and in this order: the number of each new
connection (int; whatever waits from older ones is void), the requests that came over it
(`Arrival`), and at the very end None. The main thread answers with `reply`, from any thread.
Other threads of the worker may put a `Wake` into the same queue.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol

import zmq

from protocol import control, limits
from protocol import worker_session as ws
from protocol.native import Buffer
from protocol.sockets import IN, OUT, Again, receive_frames, send_frames
from protocol.worker_session import Arrival, SessionSettings, WorkerSession
from telemetry.log import get_logger
from workers.progress_page import ProgressPage

log = get_logger("WORKER")

#: Messages that are received before the session's timers and the outbox get their turn.
RECEIVE_PER_WAKEUP_MAX = 256

#: How long a closing worker tries to get its last replies and its DISCONNECT out.
GOODBYE_MS = 1_000

#: Peers that stay mute in the ZMTP handshake (field survey: libzmq's 30 s is too patient).
HANDSHAKE_MS = 5_000

#: Longest sleep of a bus that must watch a plain `threading.Event`.
STOP_WATCH_MS = 100


class Wake:
    """Nothing came; the main thread shall see what there is to do."""


WAKE = Wake()

#: What the main thread finds in its queue.
Delivery = int | Arrival | Wake | None


class Signals(Protocol):
    """A descriptor that becomes readable when the process is signalled, and who reads it."""

    def fileno(self) -> int:
        """The descriptor to poll."""

    def read(self) -> None:
        """Take what is there and act, such as set the stop event. Must not block."""


class Bus:
    """One worker's connection to the broker, on a thread of its own.

    on_state: called on the bus thread with each new state of the session. stop: once it is set,
    the session drains. With `signals` the bus wakes up for it, without it looks often enough.
    page: where the supervisor looks whether this thread still comes round.
    """

    def __init__(
        self,
        address: str,
        settings: SessionSettings,
        stop: threading.Event,
        on_state: Callable[[str], None],
        signals: Signals | None = None,
        page: ProgressPage | None = None,
    ) -> None:
        #: What came, for the main thread alone.
        self.deliveries: SimpleQueue[Delivery] = SimpleQueue()
        #: (number, start) of the oldest work that runs; always replaced as a whole tuple.
        self.batch: tuple[int, int] = (0, 0)
        #: Until when it may take, because it compiles; 0 = as any other.
        self.patient_until_ns = 0
        #: What the worker has counted; asked for on the bus thread.
        self.read_numbers: Callable[[], control.Numbers] = tuple
        #: The thread ended by a bug of its own; why is in the log.
        self.has_failed = False
        self._address = address
        self._session = WorkerSession(settings)
        self._stop = stop
        self._on_state = on_state
        self._signals = signals
        self._page = page
        self._replies: deque[tuple[int, Sequence[int], list[Buffer]]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="bus", daemon=True)
        self._poller = zmq.Poller()
        self._epoch = 0
        self._state = self._session.state
        self._is_abandoned = False

    # ------------------------------------------------------------ for the main thread

    def start(self) -> None:
        """Connect and go on until the session is closed."""
        self._thread.start()

    def reply(self, epoch: int, tickets: Sequence[int], message: list[Buffer]) -> None:
        """Answer tickets of a connection with one message of REPLY parcels."""
        self._replies.append((epoch, tickets, message))
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """End the bus thread, if a drain has not ended it before, and wait for it."""
        self._is_abandoned = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        os.close(self._wake_fd)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        is_shared = self._address.startswith("inproc:")
        context = zmq.Context.instance() if is_shared else zmq.Context()
        socket = None
        try:
            socket = self._serve(context)
        except Exception:  # the shell's top: a bug here must end the worker, not hang it
            self.has_failed = True
            log.exception("bus thread failed", story=self._session.story())
        finally:
            if socket is not None:
                socket.close(linger=GOODBYE_MS)
            if not is_shared:
                context.destroy(linger=GOODBYE_MS)
            self.deliveries.put(None)

    def _serve(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        session = self._session
        session.read_numbers = self.read_numbers
        session.connect(time.monotonic_ns())
        socket = self._reopen(context, None)
        self._poller.register(self._wake_fd, zmq.POLLIN)
        if self._signals is not None:
            self._poller.register(self._signals.fileno(), zmq.POLLIN)
        while not self._is_abandoned:
            ready = self._poll(socket)
            now_ns = time.monotonic_ns()
            if self._page is not None:
                self._page.beat(now_ns)
            if socket in ready:
                self._receive(socket, now_ns)
            self._take_replies()
            session.batch = self.batch
            session.patient_until_ns = self.patient_until_ns
            session.handle_timer(now_ns)
            if self._stop.is_set():
                session.drain(now_ns)
            if session.epoch != self._epoch:
                socket = self._reopen(context, socket)
            self._deliver()
            self._flush(socket)
            if session.state != self._state:
                self._state = session.state
                self._on_state(self._state)
            if session.state == ws.CLOSED:
                self._flush_goodbye(socket)
                break
        return socket

    def _poll(self, socket: zmq.Socket[bytes]) -> set[object]:
        self._poller.modify(socket, IN | OUT if self._session.outbox else IN)
        ready: set[object] = {item for item, _ in self._poller.poll(self._timeout_ms())}
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        if self._signals is not None and self._signals.fileno() in ready:
            self._signals.read()
        return ready

    def _timeout_ms(self) -> int:
        timer_ns = self._session.next_timer_ns()
        assert timer_ns is not None, self._session.story()
        wait_ms = max(0, -(-(timer_ns - time.monotonic_ns()) // ws.NS_PER_MS))
        if self._page is not None:
            wait_ms = min(wait_ms, limits.HEARTBEAT_INTERVAL_MS)
        return wait_ms if self._signals is not None else min(wait_ms, STOP_WATCH_MS)

    def _reopen(
        self, context: zmq.Context[zmq.Socket[bytes]], old: zmq.Socket[bytes] | None
    ) -> zmq.Socket[bytes]:
        """A new socket for a new connection: a new routing id, and no message of the old one."""
        if old is not None:
            # One that says that it goes is followed by another one, or by our own end.
            is_orderly = self._session.lost_reason == control.GOODBYE
            say = log.info if is_orderly else log.warning
            say("broker lost", address=self._address, story=self._session.story())
            self._poller.unregister(old)
            old.close(linger=0)
        self._epoch = self._session.epoch
        self.deliveries.put(self._epoch)
        socket = context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, 0)
        # Not IMMEDIATE: libzmq then drops what was received and not yet read when a broker closes,
        # which would be its goodbye. READY is the first message, for every offer has a new socket.
        socket.set(zmq.SNDHWM, 2 * limits.CREDIT_MAX)
        socket.set(zmq.RCVHWM, 2 * limits.CREDIT_MAX)
        socket.set(zmq.MAXMSGSIZE, limits.BODY_BYTES_MAX)
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.set(zmq.HEARTBEAT_IVL, limits.HEARTBEAT_INTERVAL_MS)
        silence_ms = limits.HEARTBEAT_INTERVAL_MS * limits.HEARTBEAT_LIVENESS
        socket.set(zmq.HEARTBEAT_TIMEOUT, silence_ms)
        socket.set(zmq.HEARTBEAT_TTL, silence_ms)
        socket.set(zmq.TCP_KEEPALIVE, 1)
        socket.connect(self._address)
        self._poller.register(socket, zmq.POLLIN)
        return socket

    # ------------------------------------------------------------ in

    def _receive(self, socket: zmq.Socket[bytes], now_ns: int) -> None:
        receive, epoch = self._session.receive, self._session.epoch
        for _ in range(RECEIVE_PER_WAKEUP_MAX):
            try:
                parts = receive_frames(socket)
            except Again:
                return
            receive([part if type(part) is bytes else _view(part) for part in parts], now_ns)
            assert self._session.epoch == epoch  # only a timer opens a connection

    def _take_replies(self) -> None:
        replies, complete = self._replies, self._session.complete
        while replies:
            complete(*replies.popleft())

    def _deliver(self) -> None:
        arrivals = self._session.arrivals
        if arrivals:
            put = self.deliveries.put
            for arrival in arrivals:
                put(arrival)
            arrivals.clear()

    # ------------------------------------------------------------ out

    def _flush(self, socket: zmq.Socket[bytes]) -> None:
        outbox = self._session.outbox
        sent = 0
        try:
            for message in outbox:
                # Large frames are lent to libzmq instead of copied; small ones are cheaper copied.
                is_small = sum(map(len, message)) < limits.TENSOR_INLINE_BYTES_MAX
                send_frames(socket, message, is_small)
                sent += 1
        except Again:
            pass  # the poll waits for room
        del outbox[:sent]

    def _flush_goodbye(self, socket: zmq.Socket[bytes]) -> None:
        end_ns = time.monotonic_ns() + GOODBYE_MS * ws.NS_PER_MS
        while self._session.outbox and (left_ns := end_ns - time.monotonic_ns()) > 0:
            socket.poll(max(1, left_ns // ws.NS_PER_MS), zmq.POLLOUT)
            self._flush(socket)


def _view(part: bytes | zmq.Frame) -> Buffer:
    """A frame that came in a parcel with FLAG_BODY_LARGE: a view if it is worth one."""
    if isinstance(part, bytes):
        return part
    return part.buffer if len(part) >= limits.TENSOR_INLINE_BYTES_MAX else part.bytes
