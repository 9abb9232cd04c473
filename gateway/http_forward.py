"""What the REST door enters into its journal and forwards to the bus. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.exchange import Exchange
from gateway.forward import Forwarded, Forwarder
from gateway.http_messages import HttpAnswer, HttpRequest
from gateway.journal import REQUEST_ID_KEY, TRACE_KEY, Journal
from gateway.requests import IDEMPOTENCY_KEY, PRIORITY_KEY

_REQUEST_ID = REQUEST_ID_KEY.encode()
_TRACE = TRACE_KEY.encode()
_PRIORITY = PRIORITY_KEY.encode()
_IDEMPOTENCY = IDEMPOTENCY_KEY.encode()
#: Headers that say something of any request.
_GIVEN = frozenset((_REQUEST_ID, _TRACE, _PRIORITY, _IDEMPOTENCY))

TakeAnswer = Callable[[HttpAnswer | None], None]


class ForwardedRequest(Forwarded):
    """One request. take_answer: takes its answer, or None after a bug, while that is handled."""

    __slots__ = ("_take_answer",)

    def __init__(
        self,
        forwarder: Forwarder,
        plan: Any,
        exchange: Exchange,
        journal: Journal,
        take_answer: TakeAnswer,
    ) -> None:
        super().__init__(forwarder, plan, exchange, journal)
        self._take_answer = take_answer

    def cancel(self) -> None:
        """Its client is gone."""
        self._take_answer = _nobody  # the connection knows this request, and would be known by it
        self.drop("cancelled")

    def answer(self, outcome: Any) -> None:
        """Answer it; see `Forwarded`."""
        if outcome is None:
            self.exchange.fail("system_error")
            self.journal.end(self.exchange, 0)
            self._take_answer(None)
        else:
            self.journal.end(self.exchange, len(outcome.body))
            self._take_answer(with_keys(outcome, self.journal, self.exchange))


def _nobody(_answer: HttpAnswer | None) -> None:
    """Takes no answer."""


class Forwarding:
    """Forwards the requests of one door. forwarder: of its handler."""

    def __init__(self, forwarder: Forwarder, journal: Journal) -> None:
        self._forwarder = forwarder
        self._journal = journal

    def begin(
        self, request: HttpRequest, client: object, take_answer: TakeAnswer
    ) -> ForwardedRequest | None:
        """Forward a request, if it needs no more than that; None: it does.

        client: its address. take_answer: takes its answer, None after a bug; it may do so before
        this returns.
        """
        plan = self._forwarder.look(request)
        if plan is None:
            return None
        exchange = begin_exchange(self._journal, request, client)
        forwarded = ForwardedRequest(self._forwarder, plan, exchange, self._journal, take_answer)
        forwarded.begin(request, None)
        return forwarded


def begin_exchange(journal: Journal, request: HttpRequest, client: object) -> Exchange:
    """Enter a request of a client, whose address is given."""
    given = _given(request)
    body_bytes = 0 if request.body is None else len(request.body)
    exchange = journal.begin(
        "rest", given.get(_REQUEST_ID), given.get(_TRACE), body_bytes, request.reading_ms
    )
    exchange.peer = client
    exchange.priority, exchange.key = given.get(_PRIORITY), given.get(_IDEMPOTENCY)
    return exchange


def _given(request: HttpRequest) -> dict[bytes, str]:
    """The headers that say something here."""
    known = request.known
    if known is not None and isinstance(known.for_door, dict):
        return known.for_door
    given: dict[bytes, str] = {}
    for name, value in request.headers:
        if name in _GIVEN:
            text = value.decode("latin-1")
            # One that comes again is one value with the first, as in `HttpRequest.header`.
            given[name] = f"{given[name]}, {text}" if name in given else text
    if known is not None:
        known.for_door = given
    return given


def with_keys(answer: HttpAnswer, journal: Journal, exchange: Exchange) -> HttpAnswer:
    """The answer, with what its client is told of the exchange."""
    keys = [(key.encode(), text.encode()) for key, text in journal.reply_keys(exchange)]
    return HttpAnswer(answer.status, answer.body, (*answer.headers, *keys), answer.content_type)
