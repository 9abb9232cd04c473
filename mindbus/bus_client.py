"""A synchronous client of the bus, for producers that want neither gRPC nor HTTP in between.

    from mindbus.bus_client import BusClient

    with BusClient("ipc:///run/mindbus/producers.ipc") as client:
        results = client.infer("add", "add_common", [{"x1": x1, "x2": x2}])
        results[0]["y"]                                   # numpy.ndarray

        futures = [client.submit("add", "add_common", {"x1": a, "x2": b}) for a, b in pairs]
        answers = [future.result() for future in futures]  # many requests in flight at once

        client.send("add", "add_common", {"x1": x1, "x2": x2})  # nobody waits for the answer

Values go in as numpy arrays and scalars, str, bytes, bool, int (int64) and float (float64); they
come out as numpy arrays (read-only; `.copy()` one to change it), str and bytes. Failures are the
exceptions of `mindbus.bus_errors`. docs/clients.md has it all, with retries, priorities and keys.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

import zmq

from mindbus.bus_calls import (
    SETTINGS,
    TIMEOUT_DEFAULT,
    Instances,
    Options,
    decode_results,
    decode_sent,
    decode_stats,
    encode_call,
    encode_stats,
)
from mindbus.bus_errors import BusError, error_of
from mindbus.pending_calls import Call, Decode, Pauses
from mindbus.retry import Attempts, Retry
from protocol.client_session import ClientSession
from protocol.dealer import Dealer
from protocol.native import Buffer

#: `close` waits so long for the client's thread.
CLOSE_TIMEOUT_S = 5.0


class BusClient:
    """A connection to a broker, to be shared by any number of threads.

    address: the broker's address for producers, `ipc://path` or `tcp://host:port`; the server
    writes it into `server.json`. The broker need not be there yet: a call then waits up to two
    seconds for it. After a break the client connects again by itself.
    timeout: seconds that a call may take where it does not say so itself, up to 24 hours.
    retry: make calls again that failed for a reason which may pass, within their timeout; None, as
    by default, for no call to be made twice.

    Not for use across `fork`: a child that uses its parent's client gets a RuntimeError; make a
    client in the child. Close a client when done with it, or use it in a `with` block.
    Raises: ValueError if the address is not one.
    """

    def __init__(
        self, address: str, *, timeout: float = TIMEOUT_DEFAULT, retry: Retry | None = None
    ) -> None:
        if not isinstance(address, str):
            raise TypeError(f"address must be a str, not {address!r}")
        encode_stats(timeout)  # an impossible timeout is an error now, not at the first call
        self.address = address
        self.timeout = timeout
        self.retry = retry
        self._dice = random.Random()  # noqa: S311 - for pauses
        self._pid = os.getpid()
        self._session = ClientSession(SETTINGS)
        #: new calls, and cancelled ones for the second time; only the client's thread takes them
        self._inbox: deque[Call] = deque()
        #: request id -> the call that it belongs to; the client's thread's own
        self._calls: dict[int, Call] = {}
        #: calls that are made again in a moment; the client's thread's own
        self._pauses = Pauses()
        self._lock = threading.Lock()
        self._is_closed = False
        #: whether the client's thread is bound to look into the inbox
        self._is_awake = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._dealer = Dealer(self._context, address)
        except ValueError:
            self._context.destroy(linger=0)
            raise
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="mindbus-client", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ calls

    def infer(
        self,
        servable: str,
        method: str,
        instances: Instances,
        version: int = 0,
        timeout: float | None = None,
        return_errors: bool = False,
        priority: str = "normal",
        key: str | bytes | None = None,
    ) -> list[dict[str, Any]]:
        """Compute a method over instances and wait for the results.

        instances: a dict from input name to value, or a list of such dicts; up to 512 MiB.
        version: of the servable; 0 stands for the latest. timeout: seconds.
        return_errors: put a BusError into the place of an instance that failed, instead of raising.
        priority: `high`, `normal` or `low`, among requests that wait. key: an idempotency key, 1 to
        64 bytes that no other call uses; who calls again with it gets the first call's answer.
        Returns: one dict from output name to value per instance, in the same order.
        Raises: BusError of a class that says what to do (see `mindbus.bus_errors`), its `results`
        holding the outcome of each instance if only some failed; TypeError or ValueError, at once,
        for arguments that cannot be sent; RuntimeError after `close`.
        """
        future = self.submit(
            servable, method, instances, version, timeout, return_errors, priority, key
        )
        try:
            return future.result()
        except BaseException:
            future.cancel()  # on KeyboardInterrupt the server need not go on either
            raise

    def submit(
        self,
        servable: str,
        method: str,
        instances: Instances,
        version: int = 0,
        timeout: float | None = None,
        return_errors: bool = False,
        priority: str = "normal",
        key: str | bytes | None = None,
    ) -> Future[list[dict[str, Any]]]:
        """Send a request and return at once; the future will have what `infer` returns or raises.

        The values are read when this is called or a little later: do not change an array of 64 KiB
        or more before the future is done. `future.cancel()` takes the request back from the
        server. Callbacks of the future run on the client's thread and must not block.
        Raises: what `infer` raises at once.
        """
        timeout = self.timeout if timeout is None else timeout
        options = Options(priority, key)
        head, frames = encode_call(servable, method, instances, version, timeout, options)
        return self._send(
            [(head, frames)], lambda h, f: decode_results(h, f, return_errors), self.retry
        )[0]

    def submit_many(
        self,
        servable: str,
        method: str,
        requests: Iterable[Instances],
        version: int = 0,
        timeout: float | None = None,
        return_errors: bool = False,
        priority: str = "normal",
    ) -> list[Future[list[dict[str, Any]]]]:
        """Send many requests in one go; each has a future, an answer and a failure of its own.

        Nothing is sent if one of them is wrong: raises what `infer` raises at once.
        """
        timeout = self.timeout if timeout is None else timeout
        options = Options(priority)
        encoded = [
            encode_call(servable, method, instances, version, timeout, options)
            for instances in requests
        ]
        return self._send(encoded, lambda h, f: decode_results(h, f, return_errors), self.retry)

    def send(
        self,
        servable: str,
        method: str,
        instances: Instances,
        version: int = 0,
        timeout: float | None = None,
        priority: str = "normal",
    ) -> None:
        """Send a request whose answer nobody waits for; the server computes it within the timeout.

        Returns once it is on its way. What becomes of it is not told: whether it was refused,
        failed or computed is in the server's counters only.
        Raises: Unavailable if there is no connection; what `infer` raises at once.
        """
        timeout = self.timeout if timeout is None else timeout
        options = Options(priority, is_one_way=True)
        call = encode_call(servable, method, instances, version, timeout, options)
        self._send([call], decode_sent, self.retry)[0].result()

    def stats(self, timeout: float | None = None) -> dict[str, Any]:
        """What the broker tells about its services, workers and counters.

        Raises: BusError if it cannot be asked; RuntimeError after `close`.
        """
        head = encode_stats(self.timeout if timeout is None else timeout)
        result: dict[str, Any] = self._send([(head, [])], decode_stats, None)[0].result()
        return result

    def close(self) -> None:
        """End the connection; calls that are still running fail with Unavailable. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._is_closed = True
            self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_TIMEOUT_S)

    def __enter__(self) -> BusClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------ the callers' threads

    def _send(
        self, requests: list[tuple[bytes, list[Buffer]]], decode: Decode, retry: Retry | None
    ) -> list[Future[Any]]:
        if self._pid != os.getpid():
            raise RuntimeError("a BusClient cannot be used across fork: make one in the child")
        now_ns = time.monotonic_ns()
        calls = []
        for head, frames in requests:
            attempts = None if retry is None else Attempts(retry, head, now_ns, self._dice)
            calls.append(Call(head, frames, decode, attempts))
        self._put(calls)
        for call in calls:
            call.future.add_done_callback(partial(self._take_back, call))
        return [call.future for call in calls]

    def _take_back(self, call: Call, future: Future[Any]) -> None:
        if future.cancelled():
            with suppress(RuntimeError):  # closed meanwhile: nothing is outstanding any more
                self._put([call])

    def _put(self, calls: list[Call]) -> None:
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"the client of {self.address} is closed")
            self._inbox.extend(calls)
            self._wake()

    def _wake(self) -> None:
        # Under the lock: the thread closes the descriptor under it, too.
        if not self._is_awake:
            self._is_awake = True
            os.eventfd_write(self._wake_fd, 1)

    # ------------------------------------------------------------ the client's thread

    def _run(self) -> None:
        text = f"the client of {self.address} was closed before the reply came"
        try:
            poller = zmq.Poller()
            for source in (self._dealer.socket, self._dealer.monitor, self._wake_fd):
                poller.register(source, zmq.POLLIN)
            timeout_ms: int | None = 0
            while not self._is_closed:
                if self._wake_fd in dict(poller.poll(timeout_ms)):
                    os.eventfd_read(self._wake_fd)
                timeout_ms = self._turn(poller)
        except Exception as error:  # the thread's top: no caller may be left waiting
            text = f"the client of {self.address} failed: {error!r}"
            raise
        finally:
            self._end(text)

    def _turn(self, poller: zmq.Poller) -> int | None:
        """Do all that is due. Returns for how many ms there is nothing more to do."""
        session, dealer = self._session, self._dealer
        self._is_awake = False  # before the inbox is emptied: what is put now wakes us again
        while self._inbox:
            self._take(self._inbox.popleft())
        for call in self._pauses.take_due(time.monotonic_ns()):
            self._submit(call)
        more = dealer.receive_into(session)
        session.handle_timer(time.monotonic_ns())
        self._hand_out()
        all_sent = dealer.send_from(session)
        poller.modify(dealer.socket, zmq.POLLIN if all_sent else zmq.POLLIN | zmq.POLLOUT)
        times = (session.next_timer_ns(), self._pauses.next_ns())
        next_ns = min((each for each in times if each is not None), default=None)
        if more:
            return 0
        if next_ns is None:
            return None
        return max(0, -(-(next_ns - time.monotonic_ns()) // 1_000_000))

    def _take(self, call: Call) -> None:
        if call.request_id is not None:  # seen before: it comes back because it was cancelled
            self._session.cancel(call.request_id)
            self._calls.pop(call.request_id, None)
        elif not call.future.cancelled():
            self._submit(call)

    def _submit(self, call: Call) -> None:
        call.request_id = self._session.submit(call.head, call.frames, time.monotonic_ns())
        self._calls[call.request_id] = call

    def _hand_out(self) -> None:
        completed = self._session.completed
        self._session.completed = []
        for request_id, head, frames in completed:
            call = self._calls.pop(request_id, None)
            if call is None:
                continue
            result, failure = None, None
            try:
                result = call.decode(head, frames)
            except BusError as error:
                if not self._is_closed and self._pauses.add(call, error, time.monotonic_ns()):
                    continue
                failure = error
            except Exception as error:  # a bug: that costs its own call only
                failure = error
            call.finish(result, failure)

    def _end(self, text: str) -> None:
        with self._lock:
            self._is_closed = True
            os.close(self._wake_fd)
            self._is_awake = True  # nobody writes to the descriptor's number any more
        while self._inbox:
            self._take(self._inbox.popleft())
        self._session.close(text)
        self._hand_out()
        for call in self._pauses.take_all():
            call.finish(None, error_of("broker_lost", text))
        self._dealer.close(self._session)
        self._context.term()
