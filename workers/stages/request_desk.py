"""The desk: takes requests in, hands them to the scheduler, and writes the replies.

    receive ─► decode ─► add ──(scheduler, executor)──► take_back ─► write_replies ─► replies

Rule 1: each ticket is answered exactly once; what cannot be decoded, has no such method or has no
budget left is answered without being computed.
Rule 2: a bug while one request is decoded or encoded costs only what is in hand: the shell
catches it, logs it, and calls `fail_in_hand`.
No I/O, no clock, no logging.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from protocol import head, limits, serving_texts, status
from protocol.dialects import Dialect
from protocol.errors import RemoteProtocolError, RequestError
from protocol.native import Buffer
from protocol.values import EchoedInstances, MethodSignature, RequestSpec
from protocol.worker_session import Arrival
from workers.stages.rows import PendingRequest, Trace

NS_PER_MS = 1_000_000

#: What a client learns of a bug in the worker; everything else is in the worker's log.
BUG_TEXT = "internal error of the worker, details are in its log"


class Addressee(NamedTuple):
    """Where a reply goes, in which dialect, and what it echoes."""

    ticket: int
    dialect: int
    trace_id: bytes
    spec: RequestSpec | None


class RequestDesk:
    """Everything that happens to a request on the main thread, except computing it.

    service: `servable/version`, for texts. methods: signatures by name.
    add: takes what is to be computed.
    dialects: modules by the number in the head; number 0 must be there.
    """

    def __init__(
        self,
        service: str,
        methods: Mapping[str, MethodSignature],
        add: Callable[[PendingRequest], None],
        dialects: Mapping[int, Dialect],
    ) -> None:
        #: Tickets that are answered, and their REPLY parcels; the shell sends and clears both.
        self.tickets: list[int] = []
        self.replies: list[Buffer] = []
        #: Whether requests whose trace is recorded are remembered; the shell sets it.
        self.is_tracing = False
        #: Those that are answered, and whether they were computed; the shell takes and clears them.
        self.traced: list[tuple[PendingRequest, bool]] = []
        self._service = service
        self._methods = methods
        self._dialects = dialects
        self._add = add
        #: Requests with all results, and without budget, still to be answered.
        self._finished: deque[PendingRequest] = deque()
        self._expired: deque[PendingRequest] = deque()
        #: Whom a bug would cost the reply right now.
        self._in_hand: Addressee | None = None

    @property
    def is_idle(self) -> bool:
        """No reply is to be written."""
        return not (self._finished or self._expired)

    def clear(self) -> None:
        """The connection is gone and with it whoever waited."""
        self._finished.clear()
        self._expired.clear()
        self.tickets.clear()
        self.replies.clear()

    # ------------------------------------------------------------ in

    def receive(self, arrival: Arrival) -> None:
        """Take a request in; what is wrong with it is answered at once."""
        ticket = head.REQUEST_ID.unpack_from(arrival.head, head.REQUEST_ID_OFFSET)[0]
        self._in_hand = to = Addressee(ticket, head.DIALECT_NATIVE, head.NO_TRACE, None)
        try:
            fields = head.unpack(arrival.head)
            servable, version = head.split_service_key(fields.service)
            spec = RequestSpec(servable, _method_name(fields.method), version)
            dialect = self._dialects.get(fields.dialect)
            if dialect is None:
                raise RequestError("unsupported", f"dialect {fields.dialect} is not spoken")
            self._in_hand = to = Addressee(ticket, fields.dialect, fields.trace_id, spec)
            self._add(self._decode(to, spec, dialect, fields, arrival))
        except RequestError as error:
            self._fail(to, error.reason, error.message)
        except RemoteProtocolError as error:
            self._fail(to, "malformed", f"head of the request: {error}")
        self._in_hand = None

    def _decode(
        self,
        to: Addressee,
        spec: RequestSpec,
        dialect: Dialect,
        fields: head.Head,
        arrival: Arrival,
    ) -> PendingRequest:
        method = self._methods.get(spec.method)
        if method is None:
            raise RequestError("unknown_method", serving_texts.method_not_available(spec))
        budget_ms = fields.budget_ms or limits.BUDGET_MS_DEFAULT
        instances = dialect.decode_request(arrival.frames, method)
        if isinstance(instances, EchoedInstances):
            spec = spec._replace(echo=instances.echo)
        request = PendingRequest(
            to.ticket,
            to.dialect,
            spec,
            method,
            instances,
            arrival.received_ns + budget_ms * NS_PER_MS,
            bool(fields.flags & head.FLAG_REDELIVERED),
            to.trace_id,
            arrival.received_ns,
        )
        if self.is_tracing and fields.flags & head.FLAG_SAMPLED:
            request.trace = Trace(fields.trace_id, fields.span_id, [])
        return request

    # ------------------------------------------------------------ out

    def take_back(
        self, finished: Iterable[PendingRequest], expired: Iterable[PendingRequest]
    ) -> None:
        """Take requests that have all their results, or no budget any more."""
        self._finished.extend(finished)
        self._expired.extend(expired)

    def write_replies(self) -> None:
        """Write the replies of all requests that were taken back."""
        while self._expired:
            request = self._expired.popleft()
            self._in_hand = to = _addressee(request)
            self._fail(
                to,
                "deadline_exceeded",
                f"the budget ran out, waiting in the worker ({self._service}, "
                f"method {request.method.name})",
            )
            if request.trace is not None:
                self.traced.append((request, False))
        while self._finished:
            request = self._finished.popleft()
            self._in_hand = to = _addressee(request)
            self._encode(to, request)
            if request.trace is not None:
                self.traced.append((request, True))
        self._in_hand = None

    def _encode(self, to: Addressee, request: PendingRequest) -> None:
        results = [result for result in request.results if result is not None]
        assert len(results) == len(request.instances), request.spec
        try:
            body = self._dialects[to.dialect].encode_reply(request.spec, request.method, results)
        except TypeError as error:
            self._fail(to, "failed", serving_texts.reply_failed(str(error)))
            return
        except RequestError as error:  # a dialect that knows one error per request
            self._fail(to, error.reason, error.message)
            return
        size = _bytes_of(body)
        if size > limits.BODY_BYTES_MAX:
            self._fail(
                to,
                "body_too_large",
                f"reply of {size} B exceeds body_bytes_max {limits.BODY_BYTES_MAX} "
                f"({self._service}, method {request.method.name})",
            )
            return
        self._append(to, status.OK, len(results), body, size)

    def fail_in_hand(self) -> bool:
        """Answer what was in hand when a bug showed. Returns False if nothing was."""
        in_hand, self._in_hand = self._in_hand, None
        if in_hand is not None:
            # In the native dialect: the request's own may be what is broken.
            self._fail(in_hand._replace(dialect=head.DIALECT_NATIVE), "system_error", BUG_TEXT)
        return in_hand is not None

    def _fail(self, to: Addressee, reason: str, message: str) -> None:
        body = self._dialects[to.dialect].encode_failure(to.spec, reason, message)
        self._append(to, status.REASONS[reason].grpc, 0, body, _bytes_of(body))

    def _append(
        self, to: Addressee, code: int, instance_count: int, body: list[Buffer], size: int
    ) -> None:
        reply = head.Head(
            head.REPLY,
            flags=head.FLAG_BODY_LARGE if size >= limits.TENSOR_INLINE_BYTES_MAX else 0,
            dialect=to.dialect,
            status=code,
            request_id=to.ticket,
            instance_count=instance_count,
            body_frames=len(body),
            trace_id=to.trace_id,
        )
        self.tickets.append(to.ticket)
        self.replies.append(head.pack(reply))
        self.replies.extend(body)


def _method_name(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"method name {name!r} is not UTF-8") from None


def _addressee(request: PendingRequest) -> Addressee:
    return Addressee(request.ticket, request.dialect, request.trace_id, request.spec)


def _bytes_of(frames: Sequence[Buffer]) -> int:
    return sum(memoryview(frame).nbytes for frame in frames)
