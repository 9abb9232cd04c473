"""The bus: a worker session on its connection to the broker, and the thread that sees to both.

The main thread receives and sends by itself whenever it comes round, so a request and its reply are
handed from thread to thread nowhere. The bus thread beats, watches signals and timers, and connects
again when the broker was lost; at each beat it receives, too, for the main thread may compute.
Whoever touches the session or the connection holds the lock.
What the main thread is given, in this order: the number of each new connection (int; whatever waits
from older ones is void), the requests that came over it (`Arrival`), and at the very end None.
Other threads of the worker may `wake` it.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from protocol import control, limits
from protocol import worker_session as ws
from protocol.errors import RemoteProtocolError
from protocol.link_socket import LinkLostError
from protocol.native import Buffer
from protocol.worker_session import Arrival, SessionSettings, WorkerSession
from telemetry.log import get_logger
from workers.connections import Connection, Opening
from workers.progress_page import ProgressPage

log = get_logger("WORKER")

#: How long a closing worker tries to get its last replies and its DISCONNECT out.
GOODBYE_MS = 1_000

#: Between two tries to send what a connection did not take that cannot tell when it will.
SEND_AGAIN_MS = 10

#: Between two tries to connect where no broker is: it costs little, and a broker that comes back
#: has its workers at once.
CONNECT_AGAIN_MS = 20

#: Longest sleep of a bus that must watch a plain `threading.Event`.
STOP_WATCH_MS = 100


class Wake:
    """Nothing came; the main thread shall see what there is to do."""


WAKE = Wake()

#: What the main thread is given.
Delivery = int | Arrival | Wake | None


class Signals(Protocol):
    """A descriptor that becomes readable when the process is signalled, and who reads it."""

    def fileno(self) -> int:
        """The descriptor to poll."""

    def read(self) -> None:
        """Take what is there and act, such as set the stop event. Must not block."""


class Bus:
    """What a worker has of the broker.

    opening: what connects to it. on_state: called on the bus thread with each new state of the
    session. stop: once it is set, the session drains. With `signals` the bus wakes up for it,
    without it looks often enough. page: where the supervisor looks whether the bus thread still
    comes round.
    """

    def __init__(
        self,
        opening: Opening,
        settings: SessionSettings,
        stop: threading.Event,
        on_state: Callable[[str], None],
        signals: Signals | None = None,
        page: ProgressPage | None = None,
    ) -> None:
        #: (number, start) of the oldest work that runs; always replaced as a whole tuple.
        self.batch: tuple[int, int] = (0, 0)
        #: Until when it may take, because it compiles; 0 = as any other.
        self.patient_until_ns = 0
        #: What the worker has counted; asked for on the bus thread.
        self.read_numbers: Callable[[], control.Numbers] = tuple
        #: The thread ended by a bug of its own; why is in the log.
        self.has_failed = False
        self._opening = opening
        self._session = WorkerSession(settings)
        self._stop = stop
        self._on_state = on_state
        self._signals = signals
        self._page = page
        self._deliveries: deque[Delivery] = deque()
        #: Held by who touches the session or the connection.
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        #: It is to be opened, once a broker is there.
        self._is_connecting = False
        #: It has ended, which the bus thread has still to see to.
        self._is_lost = False
        #: The main thread waits, or is about to.
        self._is_main_here = False
        self._main_wake = _Wake()
        self._main_poll = select.poll()
        self._main_poll.register(self._main_wake.descriptor, select.POLLIN)
        #: The connection whose descriptor is in the main thread's poll.
        self._polled: Connection | None = None
        self._bus_wake = _Wake()
        self._bus_poll = select.poll()
        self._thread = threading.Thread(target=self._run, name="bus", daemon=True)
        self._epoch = 0
        #: The last state of the session that was noted, and those that are to be told.
        self._state = self._session.state
        self._states: deque[str] = deque()
        self._is_abandoned = False

    # ------------------------------------------------------------ for the main thread

    def start(self) -> None:
        """Connect and go on until the session is closed."""
        self._thread.start()

    def take(self, is_idle: bool) -> deque[Delivery]:
        """What has come, for the caller to pop. is_idle: wait for something."""
        deliveries = self._deliveries
        self._is_main_here = True
        self._receive_now(False)
        while is_idle and not deliveries:
            self._receive_now(self._wait())
        self._is_main_here = False
        return deliveries

    def has_more(self) -> bool:
        """Something came while the main thread was busy."""
        if not self._deliveries:
            self._receive_now(False)
        return bool(self._deliveries)

    def reply(self, epoch: int, tickets: Sequence[int], message: list[Buffer]) -> None:
        """Answer tickets of a connection with one message of REPLY parcels."""
        with self._lock:
            self._session.complete(epoch, tickets, message)
            self._flush()
            self._say_news()

    def wake(self) -> None:
        """There is something for the main thread to see. From any thread."""
        self._deliver(WAKE)

    def close(self) -> None:
        """End the bus thread, if a drain has not ended it before, and wait for it."""
        self._is_abandoned = True
        self._bus_wake.write()
        self._thread.join()
        self._bus_wake.close()
        self._main_wake.close()

    def _receive_now(self, is_there: bool) -> None:
        with self._lock:
            self._receive(is_there)
            self._say_news()

    def _wait(self) -> bool:
        """Returns whether the connection woke us."""
        if self._polled is not (None if self._is_lost else self._connection):
            self._watch_connection()
        is_there = False
        for descriptor, _ in self._main_poll.poll():
            if descriptor == self._main_wake.descriptor:
                self._main_wake.read()
            else:
                is_there = True
        return is_there

    def _watch_connection(self) -> None:
        self._main_poll = select.poll()
        self._main_poll.register(self._main_wake.descriptor, select.POLLIN)
        with self._lock:  # so that it is not closed meanwhile
            self._polled = None if self._is_lost else self._connection
            if self._polled is not None:
                self._main_poll.register(self._polled.fileno(), select.POLLIN)

    # ------------------------------------------------------------ on either thread

    def _receive(self, is_there: bool = False) -> None:
        """Hand over what has come. is_there: something has, most likely. REQUIRES: the lock."""
        connection, session = self._connection, self._session
        if connection is None or self._is_lost:
            return
        try:
            messages = connection.receive(is_there)
            if messages:
                now_ns = time.monotonic_ns()
                for parts in messages:
                    session.receive(parts, now_ns)
                if connection.may_have_more:
                    self._main_wake.write()
        except LinkLostError:
            self._is_lost = True
        except RemoteProtocolError as error:
            self._is_lost = True
            log.error("connection broken", error=str(error))
        if session.arrivals:
            self._deliveries.extend(session.arrivals)
            session.arrivals.clear()
        self._note_state()

    def _note_state(self) -> None:
        """REQUIRES: the lock."""
        if self._session.state != self._state:
            self._state = self._session.state
            self._states.append(self._state)

    def _flush(self) -> None:
        """Send what is ready. REQUIRES: the lock."""
        outbox, connection = self._session.outbox, self._connection
        if connection is None or self._is_lost or not (outbox or connection.has_unsent):
            return
        connection.send(outbox)

    def _say_news(self) -> None:
        """Let the bus thread see what the main thread has changed. REQUIRES: the lock."""
        self._note_state()
        if self._states or self._is_lost or self._has_unsent or self._session.is_refused:
            self._bus_wake.write()

    @property
    def _has_unsent(self) -> bool:
        connection = self._connection
        return connection is not None and (bool(self._session.outbox) or connection.has_unsent)

    def _deliver(self, delivery: Delivery) -> None:
        self._deliveries.append(delivery)
        if self._is_main_here:
            self._main_wake.write()

    # ------------------------------------------------------------ the bus thread

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:  # the shell's top: a bug here must end the worker, not hang it
            self.has_failed = True
            log.exception("bus thread failed", story=self._session.story())
        finally:
            with self._lock:
                self._close_connection(GOODBYE_MS)
            self._opening.close()
            self._deliver(None)

    def _serve(self) -> None:
        session = self._session
        session.read_numbers = self.read_numbers
        self._bus_poll.register(self._bus_wake.descriptor, select.POLLIN)
        if self._signals is not None:
            self._bus_poll.register(self._signals.fileno(), select.POLLIN)
        with self._lock:
            session.connect(time.monotonic_ns())
        while not self._is_abandoned:
            with self._lock:
                self._turn(time.monotonic_ns())
                is_closed = session.state == ws.CLOSED
            while self._states:
                self._on_state(self._states.popleft())
            if is_closed:
                self._flush_goodbye()
                return
            self._sleep()

    def _turn(self, now_ns: int) -> None:
        """Look at everything. REQUIRES: the lock."""
        session = self._session
        if self._page is not None:
            self._page.beat(now_ns)
        session.batch = self.batch
        session.patient_until_ns = self.patient_until_ns
        self._receive()
        if self._is_lost:
            session.lose_connection(now_ns)
            self._close_connection(0)
        session.handle_timer(now_ns)
        if self._stop.is_set():
            session.drain(now_ns)
        self._note_state()
        if session.epoch != self._epoch:
            self._begin_connection()
        if self._is_connecting:
            self._connect()
        self._flush()
        self._receive()  # for who has used a ZeroMQ socket has taken its edge
        if self._deliveries and self._is_main_here:
            self._main_wake.write()

    def _sleep(self) -> None:
        descriptor, events = self._what_to_watch()
        if events:
            self._bus_poll.register(descriptor, events)
        for ready, _ in self._bus_poll.poll(self._timeout_ms()):
            if ready == self._bus_wake.descriptor:
                self._bus_wake.read()
            elif self._signals is not None and ready == self._signals.fileno():
                self._signals.read()
        if events:
            self._bus_poll.unregister(descriptor)

    def _what_to_watch(self) -> tuple[int, int]:
        """The connection's descriptor, which only this thread closes, and events; 0 = none.

        What has begun to come is received to its end also while the main thread computes: it may
        be large, and what the broker says of itself is behind it.
        """
        connection = self._connection
        if connection is None or self._is_lost:
            return -1, 0
        events = select.POLLOUT if connection.has_unsent else 0
        if connection.is_within_message and not self._is_main_here:
            events |= select.POLLIN
        return connection.fileno() if events else -1, events

    def _timeout_ms(self) -> int:
        with self._lock:
            timer_ns = self._session.next_timer_ns()
            has_unsent = self._connection is not None and bool(self._session.outbox)
        if timer_ns is None:
            return 0  # it was closed meanwhile
        wait_ms = max(0, -(-(timer_ns - time.monotonic_ns()) // ws.NS_PER_MS))
        if self._page is not None:
            wait_ms = min(wait_ms, limits.HEARTBEAT_INTERVAL_MS)
        if has_unsent:
            wait_ms = min(wait_ms, SEND_AGAIN_MS)
        if self._is_connecting:
            wait_ms = min(wait_ms, CONNECT_AGAIN_MS)
        return wait_ms if self._signals is not None else min(wait_ms, STOP_WATCH_MS)

    def _begin_connection(self) -> None:
        """Each offer has a connection of its own, so that no message of an older one comes.

        REQUIRES: the lock.
        """
        if self._epoch:
            # One that says that it goes is followed by another one, or by our own end.
            is_orderly = self._session.lost_reason == control.GOODBYE
            say = log.info if is_orderly else log.warning
            say("broker lost", address=self._opening.address, story=self._session.story())
        self._close_connection(0)
        self._epoch = self._session.epoch
        self._is_connecting = True
        self._deliver(self._epoch)

    def _connect(self) -> None:
        """REQUIRES: the lock."""
        try:
            self._connection = self._opening.connect()
        except OSError:
            return  # no broker is there; it is tried again
        self._is_connecting = False
        self._main_wake.write()  # it has another descriptor to wait for

    def _close_connection(self, linger_ms: int) -> None:
        """REQUIRES: the lock."""
        connection, self._connection = self._connection, None
        self._is_lost = False
        if connection is not None:
            connection.close(linger_ms)

    def _flush_goodbye(self) -> None:
        end_ns = time.monotonic_ns() + GOODBYE_MS * ws.NS_PER_MS
        while self._has_unsent and not self._is_lost and time.monotonic_ns() < end_ns:
            with self._lock:
                self._flush()
            if self._has_unsent:
                time.sleep(SEND_AGAIN_MS / 1000)


class _Wake:
    """A descriptor by which a thread that polls is woken."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def write(self) -> None:
        """Wake the thread, or the next time that it polls. From any thread."""
        os.eventfd_write(self.descriptor, 1)

    def read(self) -> None:
        """The thread is awake."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def close(self) -> None:
        """Nobody polls any more."""
        os.close(self.descriptor)
