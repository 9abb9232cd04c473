"""The worker's end of a group: its socket, its clock and its thread around the pure `Group`.

Any thread may have batches computed; the link's own thread does everything else. When the group
ends while the worker serves, so does the worker (`on_lost`): see rule 1 of `group`.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import zmq

from protocol import limits
from protocol.group import Array, Graph
from protocol.native import Buffer
from telemetry.log import get_logger
from workers.backends.base import BackendError, GroupError
from workers.distributed.group import ENDED, FORMING, NS_PER_MS, Group
from workers.distributed.members import GroupSettings

log = get_logger("WORKER")

#: Messages taken in one wake-up.
_RECEIVE_MAX = 256

#: Messages that may wait for one peer.
_QUEUED_MAX = 1_000

#: How long goodbyes, and the answer to a batch that was failed last, have to get out.
_GOODBYE_MS = 1_000


class _Call:
    """A batch that somebody waits for."""

    __slots__ = ("arrays", "outcome", "subgraph", "wait_ns")

    def __init__(self, subgraph: int, arrays: tuple[Array, ...], wait_ns: int) -> None:
        self.subgraph = subgraph
        self.arrays = arrays
        self.wait_ns = wait_ns
        self.outcome: SimpleQueue[tuple[tuple[Array, ...], str]] = SimpleQueue()


class GroupLink:
    """A group at an address, from the bind to the end of the process."""

    def __init__(self, settings: GroupSettings, address: str) -> None:
        """address: `ip:port` to bind. Raises: BackendError if that is not possible."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._bind(address)
        self._group = Group(settings, time.monotonic_ns())
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._calls: deque[_Call] = deque()
        self._running: dict[int, _Call] = {}
        self._numbers = 0
        self._formed: SimpleQueue[str] = SimpleQueue()
        self._is_forming = True
        self._leave_reason = ""
        # Guards what follows: who serves, or wants a batch, must not miss the end.
        self._lock = threading.Lock()
        self._failure = ""
        self._on_lost: Callable[[str], None] | None = None
        self._thread = threading.Thread(target=self._run, name="group", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ for other threads

    def wait_formed(self) -> tuple[Graph, ...]:
        """Wait until every rank has registered; what they compute together, by subgraph.

        Raises: BackendError with the reason if the group ends before.
        """
        failure = self._formed.get()
        if failure:
            raise BackendError(failure)
        return self._group.signature

    def serve(self, on_lost: Callable[[str], None]) -> None:
        """From now on the end of the group is the end of the worker.

        on_lost: called with the reason, on the link's thread; it ends the process.
        """
        with self._lock:
            self._on_lost = on_lost
            failure = self._failure
        if failure:
            on_lost(failure)

    def predict(self, subgraph: int, arrays: Sequence[Array], wait_ns: int) -> tuple[Array, ...]:
        """Have the ranks compute a batch, and wait for it.

        Raises: GroupError with the text for clients. Does not return if the group ends before it
        is answered: then the process ends.
        """
        call = _Call(subgraph, tuple(arrays), wait_ns)
        with self._lock:
            if self._failure:
                raise GroupError(self._failure)
            self._calls.append(call)
        self._wake()
        outputs, error = call.outcome.get()
        if error:
            raise GroupError(error)
        return outputs

    def close(self, reason: str) -> None:
        """Tell launchers and agents to go, and end the thread."""
        self._leave_reason = reason
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    # ------------------------------------------------------------ the thread

    def _bind(self, address: str) -> None:
        socket = self._socket
        socket.set(zmq.LINGER, 0)
        # A peer that is gone is an error, at once, instead of a message that vanishes.
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.SNDHWM, _QUEUED_MAX)
        socket.set(zmq.RCVHWM, _QUEUED_MAX)
        socket.set(zmq.MAXMSGSIZE, limits.BODY_BYTES_MAX)
        socket.set(zmq.TCP_KEEPALIVE, 1)
        try:
            socket.bind(f"tcp://{address}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise BackendError(
                f"Distributed server start failed, bind to the address {address} failed, {error}"
            ) from None

    def _run(self) -> None:
        failure = "the worker's link to its group has failed; the log says why"
        try:
            failure = self._serve()
        except Exception:  # the shell's top: a bug here must end the worker, not hang it
            log.exception("group link failed")
        finally:
            self._context.destroy(linger=_GOODBYE_MS)
            self._end(failure)

    def _serve(self) -> str:
        """Returns why the group ended."""
        group = self._group
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_fd, zmq.POLLIN)
        while group.state != ENDED:
            wait_ns = group.next_timer_ns() - time.monotonic_ns()
            ready = dict(poller.poll(max(0, -(-wait_ns // NS_PER_MS))))
            now_ns = time.monotonic_ns()
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
            if self._socket in ready:
                self._receive(now_ns)
            if self._leave_reason:
                group.leave(self._leave_reason)
            self._submit(now_ns)
            group.handle_timer(now_ns)
            self._flush()
            self._tell()
        return group.failure

    def _receive(self, now_ns: int) -> None:
        for _ in range(_RECEIVE_MAX):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            parts: list[Buffer] = [
                frame.buffer if len(frame) >= limits.TENSOR_INLINE_BYTES_MAX else frame.bytes
                for frame in frames
            ]
            self._group.receive(bytes(parts[0]), parts[1:], now_ns)

    def _submit(self, now_ns: int) -> None:
        while self._calls and self._group.state != ENDED:
            call = self._calls.popleft()
            self._numbers += 1
            self._running[self._numbers] = call
            self._group.predict(self._numbers, call.subgraph, call.arrays, now_ns, call.wait_ns)

    def _flush(self) -> None:
        group = self._group
        while group.outbox:
            messages, group.outbox = group.outbox, []
            for message in messages:
                routing_id = bytes(message[0])
                is_small = sum(map(len, message)) < limits.TENSOR_INLINE_BYTES_MAX
                try:
                    self._socket.send_multipart(message, zmq.DONTWAIT, copy=is_small)
                except (zmq.Again, zmq.ZMQError):
                    # Gone, or it has not read a thousand messages.
                    group.lose(routing_id)

    def _tell(self) -> None:
        """Hand out what the group has finished, and what a log should say."""
        group = self._group
        for text, is_warning in group.notes:
            (log.warning if is_warning else log.info)(text)
        group.notes.clear()
        for number, arrays, error in group.finished:
            self._running.pop(number).outcome.put((arrays, error))
        has_failed_batch = any(prediction.error for prediction in group.finished)
        group.finished.clear()
        if self._is_forming and group.state != FORMING:
            self._is_forming = False
            self._formed.put(group.failure)
        if group.state == ENDED and has_failed_batch and self._on_lost is not None:
            # The answer goes through other threads; the process must not end before it is out.
            threading.Event().wait(_GOODBYE_MS / 1_000)

    def _end(self, failure: str) -> None:
        """The group is over: so is the worker, or its boot, unless it leaves by itself."""
        with self._lock:
            self._failure = failure
            on_lost = self._on_lost
        if on_lost is not None and not self._leave_reason:
            on_lost(failure)
        self._formed.put(failure)
        for call in [*self._running.values(), *self._calls]:
            call.outcome.put(((), failure))
