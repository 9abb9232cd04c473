"""A worker's connection to a broker of the same host, over a link (`protocol.link_socket`).

The main thread receives and sends by itself whenever it comes round, so a request costs one wake-up
and its reply none. The bus thread beats, watches signals and timers, and connects; while the main
thread computes for long, it looks at each beat what the broker said. Both are a `WorkerSession`'s
shell, one at a time: whoever touches the session or the socket holds the lock.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from protocol import control, limits
from protocol import worker_session as ws
from protocol.errors import RemoteProtocolError
from protocol.link_socket import LinkLostError, LinkSocket
from protocol.native import Buffer
from protocol.worker_session import SessionSettings, WorkerSession
from telemetry.log import get_logger
from workers.bus import GOODBYE_MS, STOP_WATCH_MS, WAKE, Delivery, Signals
from workers.progress_page import ProgressPage

log = get_logger("WORKER")

#: Between two tries to connect while no broker is there: it costs little, and a broker that comes
#: back has its workers at once.
CONNECT_INTERVAL_MS = 20


class LinkBus:
    """One worker's link to the broker that listens at `path`.

    on_state: called on the bus thread with each new state of the session. stop: once it is set,
    the session drains. With `signals` the bus wakes up for it, without it looks often enough. page:
    where the supervisor looks whether the bus thread still comes round.
    """

    def __init__(
        self,
        path: str,
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
        self._path = path
        self._session = WorkerSession(settings)
        self._stop = stop
        self._on_state = on_state
        self._signals = signals
        self._page = page
        self._lock = threading.Lock()
        self._link: LinkSocket | None = None
        #: it ended; the bus thread has still to see to it
        self._is_lost = False
        self._is_connecting = False
        self._deliveries: deque[Delivery] = deque()
        self._main = _Sleeper()
        self._bus = _Sleeper()
        #: what the main thread waits for; made anew when there is another link
        self._main_poll = select.poll()
        self._main_poll.register(self._main.fileno(), select.POLLIN)
        self._polled: LinkSocket | None = None
        #: the main thread is in `take`, or on its way into it
        self._is_main_here = False
        self._epoch = 0
        self._state = self._session.state
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name="bus", daemon=True)

    # ------------------------------------------------------------ for the main thread

    def start(self) -> None:
        """Connect and go on until the session is closed."""
        self._thread.start()

    def take(self, is_idle: bool) -> deque[Delivery]:
        """What has come; the caller pops it. is_idle: wait for something."""
        self._is_main_here = True
        self._receive_now()
        while is_idle and not self._deliveries:
            self._wait()
            self._receive_now()
        self._is_main_here = False
        return self._deliveries

    def has_more(self) -> bool:
        """Something came while the main thread was busy."""
        if not self._deliveries:
            self._receive_now()
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
        self._bus.wake()
        self._thread.join()
        self._bus.close()
        self._main.close()

    def _receive_now(self) -> None:
        with self._lock:
            self._receive(time.monotonic_ns())
            self._say_news()

    def _wait(self) -> None:
        link = None if self._is_lost else self._link
        if link is not self._polled:
            self._watch()
        for descriptor, _ in self._main_poll.poll():
            if descriptor == self._main.fileno():
                self._main.read()

    def _watch(self) -> None:
        self._main_poll = select.poll()
        self._main_poll.register(self._main.fileno(), select.POLLIN)
        with self._lock:  # so that it is not closed meanwhile
            self._polled = None if self._is_lost else self._link
            if self._polled is not None:
                self._main_poll.register(self._polled.fileno(), select.POLLIN)

    # ------------------------------------------------------------ on either thread

    def _receive(self, now_ns: int) -> None:
        """Hand over what has come. REQUIRES: the lock."""
        link, session = self._link, self._session
        if link is None or self._is_lost:
            return
        try:
            for parts in link.receive():
                session.receive(parts, now_ns)
        except LinkLostError:
            self._is_lost = True
        except RemoteProtocolError as error:
            self._is_lost = True
            log.error("link broken", error=str(error))
        if session.arrivals:
            self._deliveries.extend(session.arrivals)
            session.arrivals.clear()

    def _flush(self) -> None:
        """Send what is ready. REQUIRES: the lock."""
        outbox, link = self._session.outbox, self._link
        if link is None or self._is_lost:
            return
        try:
            for message in outbox:
                link.send(message)
        except LinkLostError:
            self._is_lost = True
        outbox.clear()

    def _say_news(self) -> None:
        """Let the bus thread see what the main thread has changed. REQUIRES: the lock."""
        is_unsent = self._link is not None and self._link.has_unsent
        if self._is_lost or is_unsent or self._session.state != self._state:
            self._bus.wake()

    def _deliver(self, delivery: Delivery) -> None:
        self._deliveries.append(delivery)
        if self._is_main_here:
            self._main.wake()

    # ------------------------------------------------------------ the bus thread

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:  # the shell's top: a bug here must end the worker, not hang it
            self.has_failed = True
            log.exception("bus thread failed", story=self._session.story())
        finally:
            if self._link is not None:
                self._link.close()
            self._deliver(None)

    def _serve(self) -> None:
        session = self._session
        session.read_numbers = self.read_numbers
        with self._lock:
            session.connect(time.monotonic_ns())
        while not self._is_abandoned:
            with self._lock:
                is_closed = self._turn(time.monotonic_ns())
                state = session.state
            if state != self._state:
                self._state = state
                self._on_state(state)
            if is_closed:
                self._flush_goodbye()
                return
            self._sleep()

    def _turn(self, now_ns: int) -> bool:
        """Look at everything. Returns whether the session is over. REQUIRES: the lock."""
        session = self._session
        if self._page is not None:
            self._page.beat(now_ns)
        if not self._is_main_here:
            self._receive(now_ns)
        if self._is_lost:
            session.lose_connection(now_ns)
            self._close_link()
        session.batch = self.batch
        session.patient_until_ns = self.patient_until_ns
        session.handle_timer(now_ns)
        if self._stop.is_set():
            session.drain(now_ns)
        if session.epoch != self._epoch:
            self._begin_connection()
        if self._is_connecting:
            self._connect()
        if self._link is not None and self._link.has_unsent:
            self._send_rest(self._link)
        self._flush()
        return session.state == ws.CLOSED

    def _send_rest(self, link: LinkSocket) -> None:
        try:
            link.send_rest()
        except LinkLostError:
            self._is_lost = True

    def _begin_connection(self) -> None:
        """Each has a link of its own, so that no message of the one before comes."""
        if self._epoch:
            self._say_lost()
        self._close_link()
        self._epoch = self._session.epoch
        self._is_connecting = True
        self._deliver(self._epoch)

    def _connect(self) -> None:
        try:
            self._link = LinkSocket.connect(self._path)
        except OSError:
            return  # no broker is there; it is tried again
        self._is_connecting = False
        self._main.wake()  # it has another descriptor to wait for

    def _close_link(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None
        self._is_lost = False

    def _say_lost(self) -> None:
        # One that says that it goes is followed by another one, or by our own end.
        is_orderly = self._session.lost_reason == control.GOODBYE
        say = log.info if is_orderly else log.warning
        say("broker lost", address=self._path, story=self._session.story())

    def _sleep(self) -> None:
        poll = select.poll()
        poll.register(self._bus.fileno(), select.POLLIN)
        if self._signals is not None:
            poll.register(self._signals.fileno(), select.POLLIN)
        link = self._link
        if link is not None and link.has_unsent and not self._is_lost:
            poll.register(link.fileno(), select.POLLOUT)
        for descriptor, _ in poll.poll(self._timeout_ms()):
            if descriptor == self._bus.fileno():
                self._bus.read()
            elif self._signals is not None and descriptor == self._signals.fileno():
                self._signals.read()

    def _timeout_ms(self) -> int:
        timer_ns = self._session.next_timer_ns()
        if timer_ns is None:
            return 0  # it was closed meanwhile
        wait_ms = max(0, -(-(timer_ns - time.monotonic_ns()) // ws.NS_PER_MS))
        if self._page is not None:
            wait_ms = min(wait_ms, limits.HEARTBEAT_INTERVAL_MS)
        if self._is_connecting:
            wait_ms = min(wait_ms, CONNECT_INTERVAL_MS)
        return wait_ms if self._signals is not None else min(wait_ms, STOP_WATCH_MS)

    def _flush_goodbye(self) -> None:
        link = self._link
        end_ns = time.monotonic_ns() + GOODBYE_MS * ws.NS_PER_MS
        while link is not None and link.has_unsent and not self._is_lost:
            left_ms = (end_ns - time.monotonic_ns()) // ws.NS_PER_MS
            if left_ms <= 0:
                return
            poll = select.poll()
            poll.register(link.fileno(), select.POLLOUT)
            poll.poll(left_ms)
            self._send_rest(link)


class _Sleeper:
    """A descriptor by which a thread that waits is woken."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """What to poll."""
        return self._descriptor

    def wake(self) -> None:
        """From any thread."""
        os.eventfd_write(self._descriptor, 1)

    def read(self) -> None:
        """Take the sign."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Nobody waits any more."""
        os.close(self._descriptor)
