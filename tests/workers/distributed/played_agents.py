"""Agents that a test plays: real sockets and sessions, and the test computes the batches."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import numpy as np
import zmq

from protocol import group as wire
from protocol.group import Claim, Exit, Graph, Outcome, Plan, Predict, RankLost, TensorForm
from workers.distributed.agent_link import open_dealer
from workers.distributed.agent_session import AgentSession

DEADLINE_S = 30

X = TensorForm("x", np.dtype("float32"), (1, 2))
GRAPH = Graph((X,), (X,))


class PlayedAgent:
    """One rank. A thread keeps its session; batches wait in `batches` until the test answers."""

    def __init__(self, address: str, epoch: str, rank: int, graph: Graph = GRAPH) -> None:
        self.epoch = epoch
        self.batches: SimpleQueue[Predict] = SimpleQueue()
        self.session = AgentSession(epoch, rank, (graph,), address, time.monotonic_ns())
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(address,))
        self._thread.start()

    def _run(self, address: str) -> None:
        context = zmq.Context()
        socket = open_dealer(context, address, 100)
        session = self.session
        while not self._is_over.is_set() and not session.end_reason:
            if socket.poll(20):
                session.receive(socket.recv_multipart(), time.monotonic_ns())
            while not self._outcomes.empty():
                session.complete(self._outcomes.get())
            session.handle_timer(time.monotonic_ns())
            for message in session.outbox:
                socket.send_multipart(message)
            session.outbox.clear()
            for batch in session.arrivals:
                self.batches.put(batch)
            session.arrivals.clear()
        context.destroy(linger=0)

    def close(self) -> None:
        """End the thread."""
        self._is_over.set()
        self._thread.join(DEADLINE_S)

    def end_reason(self) -> str:
        """Wait until the worker has told the agent to end; why."""
        self._thread.join(DEADLINE_S)
        return self.session.end_reason

    def batch(self) -> Predict:
        """The next batch."""
        return self.batches.get(timeout=DEADLINE_S)

    @property
    def has_batch(self) -> bool:
        """Whether one has come."""
        return not self.batches.empty()

    def answer(self, batch: Predict, error: str = "") -> None:
        """Give the input times 10, where a result is wanted, or an error."""
        arrays = tuple(array * 10 for array in batch.arrays) if batch.has_result else ()
        self._outcomes.put(Outcome(self.epoch, batch.number, error, () if error else arrays))


class PlayedLauncher:
    """Asks the worker for its plan, and says what the test wants."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = open_dealer(self._context, address, 100)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=0)

    def say(self, message: wire.Message) -> None:
        """Send a message."""
        self._socket.send_multipart(wire.pack(message))

    def hear(self) -> wire.Message:
        """The next message of the worker."""
        assert self._socket.poll(DEADLINE_S * 1000), "the worker says nothing"
        return wire.unpack(self._socket.recv_multipart())

    def epoch(self) -> str:
        """Ask for the group's epoch."""
        self.say(Claim("", (), ""))
        plan = self.hear()
        assert isinstance(plan, Plan)
        return plan.epoch

    def claim(self, epoch: str, *ranks: int) -> None:
        """Claim ranks."""
        self.say(Claim(epoch, ranks, ""))
        assert isinstance(self.hear(), Plan)

    def lose(self, epoch: str, rank: int) -> None:
        """Say that an agent is dead."""
        self.say(RankLost(epoch, rank, "killed by SIGKILL"))

    def goodbye(self) -> str:
        """Wait for the worker's EXIT; its reason."""
        while not isinstance(message := self.hear(), Exit):
            pass
        return message.reason
