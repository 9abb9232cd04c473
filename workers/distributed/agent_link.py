"""An agent's socket, clock and thread around the pure `AgentSession`; the main thread computes."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

import zmq

from protocol import limits
from protocol.group import Outcome, Predict
from telemetry.log import get_logger
from workers.distributed.agent_session import NS_PER_MS, AgentSession

log = get_logger("WORKER")

#: Messages that may wait for the worker: more than it ever asks for at once.
_QUEUED_MAX = 10_000


class AgentLink:
    """One agent's connection to the worker of its group.

    on_member: called once, when the worker knows the rank. on_end: called with the reason when the
    agent has to end; both on the link's thread.
    """

    def __init__(
        self,
        session: AgentSession,
        address: str,
        on_member: Callable[[], None],
        on_end: Callable[[str], None],
    ) -> None:
        #: Batches to compute, in order, for the main thread.
        self.batches: SimpleQueue[Predict] = SimpleQueue()
        self._session = session
        self._on_member = on_member
        self._on_end = on_end
        self._outcomes: deque[Outcome] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._context = zmq.Context()
        self._socket = open_dealer(self._context, address, _QUEUED_MAX)
        threading.Thread(target=self._run, name="group", daemon=True).start()

    def answer(self, outcome: Outcome) -> None:
        """Send what became of a batch. From the main thread."""
        self._outcomes.append(outcome)
        os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        reason = "the agent's link failed; its log says why"
        try:
            reason = self._serve()
        except Exception:  # the shell's top: a bug here must end the agent, not hang it
            log.exception("agent link failed")
        finally:
            self._context.destroy(linger=0)
        self._on_end(reason)

    def _serve(self) -> str:
        session = self._session
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_fd, zmq.POLLIN)
        is_member = False
        while not session.end_reason:
            wait_ns = session.next_timer_ns() - time.monotonic_ns()
            ready = dict(poller.poll(max(0, -(-wait_ns // NS_PER_MS))))
            now_ns = time.monotonic_ns()
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
            if self._socket in ready:
                frames = self._socket.recv_multipart(copy=False)
                session.receive([frame.buffer for frame in frames], now_ns)
            while self._outcomes:
                session.complete(self._outcomes.popleft())
            session.handle_timer(now_ns)
            self._flush()
            for batch in session.arrivals:
                self.batches.put(batch)
            session.arrivals.clear()
            if session.is_member and not is_member:
                is_member = True
                self._on_member()
        return session.end_reason

    def _flush(self) -> None:
        outbox = self._session.outbox
        for message in outbox:
            try:
                self._socket.send_multipart(message, zmq.DONTWAIT)
            except zmq.Again:
                break  # the worker has not read for long: silence will tell both ends
        outbox.clear()


def open_dealer(
    context: zmq.Context[zmq.Socket[bytes]], address: str, queued_max: int
) -> zmq.Socket[bytes]:
    """A socket to the worker of a group. Raises: zmq.ZMQError.

    address: `ip:port`. queued_max: messages that may wait for the worker.
    """
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    # Not IMMEDIATE: it drops what was received and not read yet when the worker closes, which is
    # its goodbye. What waits for a worker that is gone is of an epoch that the next one ignores.
    socket.set(zmq.SNDHWM, queued_max)
    socket.set(zmq.MAXMSGSIZE, limits.BODY_BYTES_MAX)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.connect(f"tcp://{address}")
    return socket
