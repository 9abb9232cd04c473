"""Workers without models, many in one process: `python -m bench.fake_workers JSON`.

They speak to the broker as real ones do (`protocol.worker_session`), give every request the answer
of W1 after a delay, or none at all, and show what the broker and the gateway cost when there are
many. The document: {"address", "workers", "services", "delay_ms", "credit", "name", "is_mute"}.
"""

from __future__ import annotations

import heapq
import json
import os
import signal
import sys
import time
from typing import Any

import zmq

from bench import bodies
from protocol import control, native
from protocol import head as heads
from protocol.values import MethodSignature
from protocol.worker_session import READY, Arrival, SessionSettings, WorkerSession

#: Messages of one worker that are received before the next one has its turn.
RECEIVE_MAX = 64
#: Longest sleep, ms: timers of hundreds of sessions are looked at so often.
SLEEP_MS_MAX = 200


class FakeWorker:
    """One session and its socket; the caller says when something can be read."""

    def __init__(self, context: zmq.Context[Any], document: dict[str, Any], number: int) -> None:
        service = f"{document['name']}{number % document['services']}"
        method = MethodSignature(service, "add", ("x1", "x2"), ("y",))
        ready = control.Ready(
            f"{service}/1/fake{number}",
            1,
            f"{service}/1",
            document["credit"],
            (method,),
            control.Device("CPU", number),
            os.getpid(),
            service,
        )
        self._context = context
        self._address = document["address"]
        self._delay_ns = int(document["delay_ms"] * 1e6)
        self._is_mute = document["is_mute"]
        self._bodies = reply_bodies(method)
        #: When a request has been computed, and the request.
        self.due: list[tuple[int, int, Arrival]] = []
        self._count = 0
        self.session = WorkerSession(SessionSettings(ready))
        self.session.connect(time.monotonic_ns())
        self._epoch = 0
        self.socket: zmq.Socket[Any] = self._connect()

    def _connect(self) -> zmq.Socket[Any]:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        socket.connect(self._address)
        self._epoch = self.session.epoch
        return socket

    def receive(self, now_ns: int) -> None:
        """Take what is there, and answer what is due."""
        for _ in range(RECEIVE_MAX):
            try:
                parts = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            self.session.receive(parts, now_ns)
        for arrival in self.session.arrivals:
            self._count += 1
            if not self._is_mute:
                heapq.heappush(self.due, (now_ns + self._delay_ns, self._count, arrival))
        self.session.arrivals.clear()

    def work(self, now_ns: int) -> None:
        """Answer what is due, beat, and send."""
        tickets, message = [], []
        while self.due and self.due[0][0] <= now_ns:
            asked = heads.unpack(heapq.heappop(self.due)[2].head)
            body = self._bodies[asked.dialect]
            reply = heads.Head(
                heads.REPLY,
                dialect=asked.dialect,
                request_id=asked.request_id,
                instance_count=1,
                body_frames=len(body),
                trace_id=asked.trace_id,
            )
            tickets.append(asked.request_id)
            message += [heads.pack(reply), *body]
        if tickets:
            self.session.complete(self.session.epoch, tickets, message)
        timer_ns = self.session.next_timer_ns()
        if timer_ns is not None and timer_ns <= now_ns:
            self.session.handle_timer(now_ns)
        if self.session.epoch != self._epoch:
            self.socket.close()
            self.socket = self._connect()
        for parts in self.session.outbox:
            self.socket.send_multipart(parts)
        self.session.outbox.clear()


def reply_bodies(method: MethodSignature) -> dict[int, list[Any]]:
    """The answer of W1 in each dialect that the load speaks."""
    reply = native.encode_reply(None, method, [(bodies.SUM,)])  # type: ignore[arg-type]
    return {
        heads.DIALECT_NATIVE: [bytes(frame) for frame in reply],
        heads.DIALECT_MS_SERVICE: [bodies.ms_reply(bodies.SUM)],
    }


def main() -> None:
    """Work until a signal comes; say `ready` once the broker knows every worker."""
    document = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = document["workers"] + 16
    workers = [FakeWorker(context, document, number) for number in range(document["workers"])]
    poller = zmq.Poller()
    of_socket: dict[Any, FakeWorker] = {}
    timers_ns = 0
    is_announced = False
    while True:
        for socket in [socket for socket in of_socket if socket.closed]:
            poller.unregister(socket)
            del of_socket[socket]
        for worker in workers:
            if worker.socket not in of_socket:
                of_socket[worker.socket] = worker
                poller.register(worker.socket, zmq.POLLIN)
        if not is_announced and all(worker.session.state == READY for worker in workers):
            print("ready", flush=True)
            is_announced = True
        now_ns = time.monotonic_ns()
        due_ns = min((worker.due[0][0] for worker in workers if worker.due), default=now_ns + 10**9)
        sleep_ms = min(SLEEP_MS_MAX, max(0, (due_ns - now_ns) / 1e6))
        ready = poller.poll(sleep_ms)
        now_ns = time.monotonic_ns()
        for socket, _ in ready:
            of_socket[socket].receive(now_ns)
        if now_ns >= timers_ns:
            timers_ns = now_ns + SLEEP_MS_MAX * 1_000_000
            turn = workers
        else:
            answered = {id(of_socket[socket]) for socket, _ in ready}
            turn = [
                worker
                for worker in workers
                if id(worker) in answered or (worker.due and worker.due[0][0] <= now_ns)
            ]
        for worker in turn:
            worker.work(now_ns)


if __name__ == "__main__":
    main()
