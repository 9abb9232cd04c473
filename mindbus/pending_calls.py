"""The calls of a synchronous client: on their way, or in the pause before another attempt."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from mindbus.bus_errors import BusError
from mindbus.retry import Attempts
from protocol.native import Buffer

#: What makes a result of a reply's head and body frames; it may raise BusError.
Decode = Callable[[bytes, Sequence[Buffer]], Any]


class Call:
    """One request: what to send, and where the result goes. attempts: None if it is made once."""

    __slots__ = ("attempts", "decode", "frames", "future", "head", "request_id")

    def __init__(
        self, head: bytes, frames: list[Buffer], decode: Decode, attempts: Attempts | None
    ) -> None:
        self.head = head
        self.frames = frames
        self.decode = decode
        self.attempts = attempts
        self.future: Future[Any] = Future()
        #: set when the client's thread has given it to the session
        self.request_id: int | None = None

    def finish(self, result: Any, failure: Exception | None) -> None:
        """Hand out the outcome, unless the call was cancelled."""
        # A future is marked as running only now, so that it can be cancelled until now.
        if not self.future.set_running_or_notify_cancel():
            return
        if failure is not None:
            self.future.set_exception(failure)
        else:
            self.future.set_result(result)


class Pauses:
    """Calls that are made again, each when its pause is over."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Call]] = []
        self._count = 0

    def add(self, call: Call, error: BusError, now_ns: int) -> bool:
        """Plan another attempt; False if there is to be none."""
        pause_ns = None if call.attempts is None else call.attempts.pause_ns(error, now_ns)
        if pause_ns is None:
            return False
        self._count += 1
        heapq.heappush(self._heap, (now_ns + pause_ns, self._count, call))
        return True

    def next_ns(self) -> int | None:
        """When the next pause is over."""
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_ns: int) -> list[Call]:
        """The calls whose pauses are over, their attempts begun; cancelled ones are left out."""
        due = []
        while self._heap and self._heap[0][0] <= now_ns:
            call = heapq.heappop(self._heap)[2]
            if call.attempts is not None and not call.future.cancelled():
                call.attempts.begin_next(now_ns)
                call.head = call.attempts.head
                due.append(call)
        return due

    def take_all(self) -> list[Call]:
        """Every call that waits for another attempt."""
        calls = [call for _, _, call in self._heap]
        self._heap.clear()
        return calls
