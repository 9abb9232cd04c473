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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from protocol import head, limits, serving_texts, status
from protocol.dialects import Dialect
from protocol.errors import RemoteProtocolError, RequestError
from protocol.layouts import JSON_STYLES, LayoutMemo
from protocol.native import Buffer
from protocol.values import EchoedInstances, Instance, MethodSignature, RequestSpec, Result
from protocol.worker_session import Arrival
from workers.stages.rows import PackedResult, PendingRequest, Trace

NS_PER_MS = 1_000_000

#: What a client learns of a bug in the worker; everything else is in the worker's log.
BUG_TEXT = "internal error of the worker, details are in its log"


#: Services, methods and dialects that are asked for together and are remembered.
ROUTES_MAX = 256

_READ_HEAD = head.REQUEST_READ.unpack_from


class Addressee(NamedTuple):
    """Where a reply goes, in which dialect, and what it echoes."""

    ticket: int
    dialect: int
    trace_id: bytes
    spec: RequestSpec | None


class Route(NamedTuple):
    """What is asked for, in which dialect, and the requests for it that look alike."""

    spec: RequestSpec
    method: MethodSignature
    memo: LayoutMemo


class RequestDesk:
    """Everything that happens to a request on the main thread, except computing it.

    service: `servable/version`, for texts. methods: signatures by name.
    add: takes what is to be computed.
    dialects: modules by the number in the head; number 0 must be there.
    packable: methods that compute instances which are not decoded.
    """

    def __init__(
        self,
        service: str,
        methods: Mapping[str, MethodSignature],
        add: Callable[[PendingRequest], None],
        dialects: Mapping[int, Dialect],
        packable: Collection[str] = (),
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
        self._packable = packable
        #: By the dialect, and by what follows the fixed part of a head and how it is split.
        self._routes: dict[tuple[int, int, bytes], Route] = {}
        #: Requests with all results, and without budget, still to be answered.
        self._finished: deque[PendingRequest] = deque()
        self._expired: deque[PendingRequest] = deque()
        #: Whom a bug would cost the reply right now.
        self._in_hand: Addressee | PendingRequest | None = None

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
        if not self._receive_alike(arrival):
            self._receive_other(arrival)

    def _receive_alike(self, arrival: Arrival) -> bool:
        """Take a request in that looks like one before. Returns False if it does not."""
        frame = arrival.head
        if frame[:4] != head.REQUEST_PREFIX or len(frame) < head.FIXED_BYTES:
            return False
        flags, dialect, ticket, budget_ms, service_size, trace_id = _READ_HEAD(frame)
        route = self._routes.get((dialect, service_size, frame[head.FIXED_BYTES :]))
        if route is None:
            return False
        self._in_hand = Addressee(ticket, dialect, trace_id, route.spec)
        packed = route.memo.cut(arrival.frames)
        if packed is None:
            return False
        received_ns = arrival.received_ns
        request = PendingRequest(
            ticket,
            dialect,
            route.spec,
            route.method,
            [],
            received_ns + (budget_ms or limits.BUDGET_MS_DEFAULT) * NS_PER_MS,
            bool(flags & head.FLAG_REDELIVERED),
            trace_id,
            received_ns,
            packed,
        )
        if self.is_tracing and flags & head.FLAG_SAMPLED:
            request.trace = Trace(trace_id, head.span_id_of(frame), [])
        self._add(request)
        self._in_hand = None
        return True

    def _receive_other(self, arrival: Arrival) -> None:
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
        if spec.method in self._packable:
            self._remember(spec, method, fields, arrival, instances)
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

    def _remember(
        self,
        spec: RequestSpec,
        method: MethodSignature,
        fields: head.Head,
        arrival: Arrival,
        instances: list[Instance],
    ) -> None:
        """Let the next request like this one go without a decode."""
        number = fields.dialect
        key = (number, len(fields.service), fields.service + fields.method)
        route = self._routes.get(key)
        if route is None:
            memo = LayoutMemo(self._dialects[number], JSON_STYLES.get(number), spec, method)
            if not memo.is_usable:
                return
            if len(self._routes) >= ROUTES_MAX:
                self._routes.clear()
            route = self._routes[key] = Route(spec, method, memo)
        route.memo.learn(arrival.frames, instances)

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
            self._in_hand = request = self._finished.popleft()
            if not self._fill(request):
                self._encode(_addressee(request), request)
            if request.trace is not None:
                self.traced.append((request, True))
        self._in_hand = None

    def _fill(self, request: PendingRequest) -> bool:
        """Write the reply of a request as one before. Returns False if it has to be encoded."""
        packed, result = request.packed, request.results[0]
        if packed is None or not isinstance(result, PackedResult):
            return False
        body = packed.fill(result.batch, result.row)
        if body is None:
            return False
        size = sum(map(len, body))
        if size > limits.BODY_BYTES_MAX:
            return False
        flags = head.FLAG_BODY_LARGE if size >= limits.TENSOR_INLINE_BYTES_MAX else 0
        self.tickets.append(request.ticket)
        self.replies.append(
            head.pack_reply(
                flags, request.dialect, status.OK, request.ticket, 1, len(body), request.trace_id
            )
        )
        self.replies += body
        return True

    def _encode(self, to: Addressee, request: PendingRequest) -> None:
        spec = request.spec
        if request.packed is not None:
            spec = spec._replace(echo=request.packed.echo())
        results: list[Result] = [
            result.batch.instance(result.row) if isinstance(result, PackedResult) else result
            for result in request.results
            if result is not None
        ]
        assert len(results) == len(request.results), request.spec
        try:
            body = self._dialects[to.dialect].encode_reply(spec, request.method, results)
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
        if isinstance(in_hand, PendingRequest):
            in_hand = _addressee(in_hand)
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
        flags = head.FLAG_BODY_LARGE if size >= limits.TENSOR_INLINE_BYTES_MAX else 0
        self.tickets.append(to.ticket)
        self.replies.append(
            head.pack_reply(
                flags, to.dialect, code, to.ticket, instance_count, len(body), to.trace_id
            )
        )
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
