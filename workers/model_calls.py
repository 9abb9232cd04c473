"""Model calls of an extra worker: the socket around a client session, used by one thread at a time.

The device thread of an extra worker has no device: it sends what waits for a model to the device
workers of its own service, over the broker's door for producers, and waits for the replies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import zmq

from protocol import head as heads
from protocol import limits
from protocol.client_session import ClientSession, ClientSettings, Completion
from protocol.dealer import Dealer
from workers.stages.remote_model import Call

NS_PER_MS = 1_000_000


class ModelCalls:
    """Sends calls of hidden methods to one service and waits for all of their replies.

    address: the broker's, for producers. service: the key `servable/version`.
    """

    def __init__(self, address: str, service: bytes) -> None:
        self._service = service
        self._session = ClientSession(ClientSettings())
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealer = Dealer(self._context, address)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_abandoned = False
        self._poller = zmq.Poller()
        for source in (self._dealer.socket, self._dealer.monitor, self._wake_fd):
            self._poller.register(source, zmq.POLLIN)

    def send(self, calls: Sequence[Call], deadline_ns: int) -> list[Completion]:
        """Send calls and wait until each has ended, one way or another; in their order.

        deadline_ns: monotonic; the broker ends what is not answered by then.
        """
        now_ns = time.monotonic_ns()
        budget_ms = min(max(1, (deadline_ns - now_ns) // NS_PER_MS), limits.BUDGET_MS_MAX)
        numbers = []
        for method, frames, count in calls:
            is_large = sum(map(len, frames)) >= limits.TENSOR_INLINE_BYTES_MAX
            flags = heads.FLAG_COALESCE | (heads.FLAG_BODY_LARGE if is_large else 0)
            head = heads.Head(
                heads.REQUEST,
                flags=flags,
                budget_ms=budget_ms,
                instance_count=count,
                body_frames=len(frames),
                service=self._service,
                method=method.encode(),
            )
            numbers.append(self._session.submit(heads.pack(head), frames, now_ns))
        ended: dict[int, Completion] = {}
        while len(ended) < len(numbers):
            self._turn(ended)
        return [ended[number] for number in numbers]

    def abandon(self) -> None:
        """End what is waited for, from any thread: nobody wants the replies any more."""
        self._is_abandoned = True
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Close the connection. REQUIRES: no call is under way."""
        self._session.close("the worker ends")
        self._dealer.close(self._session)
        self._context.term()
        os.close(self._wake_fd)

    def _turn(self, ended: dict[int, Completion]) -> None:
        """Receive, send and, if nothing ended by it, wait."""
        session, dealer = self._session, self._dealer
        if self._is_abandoned:
            session.close("the worker ends")
        else:
            more = dealer.receive_into(session)
            session.handle_timer(time.monotonic_ns())
            all_sent = dealer.send_from(session)
            if not (session.completed or more):
                events = zmq.POLLIN if all_sent else zmq.POLLIN | zmq.POLLOUT
                self._poller.modify(dealer.socket, events)
                self._poller.poll(self._timeout_ms())
        for completion in session.completed:
            ended[completion.request_id] = completion
        session.completed.clear()

    def _timeout_ms(self) -> int:
        next_ns = self._session.next_timer_ns()
        assert next_ns is not None, self._session.story()
        return max(0, -(-(next_ns - time.monotonic_ns()) // NS_PER_MS))
