"""What the REST door forwards to the bus, and how it is answered. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.exchange import Exchange
from gateway.forward import Forwarded, Forwarder
from gateway.http_messages import HttpAnswer
from gateway.journal import Journal

TakeAnswer = Callable[[HttpAnswer | None], None]


class ForwardedRequest(Forwarded):
    """One request. take_answer: takes its answer, or None after a bug, while that is handled."""

    __slots__ = ("_journal", "_take_answer")

    def __init__(
        self,
        forwarder: Forwarder,
        plan: Any,
        exchange: Exchange,
        journal: Journal,
        take_answer: TakeAnswer,
    ) -> None:
        super().__init__(forwarder, plan, exchange)
        self._journal = journal
        self._take_answer = take_answer

    def cancel(self) -> None:
        """Its client is gone."""
        super().cancel()
        self.exchange.fail("cancelled")
        self._journal.end(self.exchange, 0)

    def answer(self, outcome: Any) -> None:
        """Answer it; see `Forwarded`."""
        if outcome is None:
            self.exchange.fail("system_error")
            self._journal.end(self.exchange, 0)
            self._take_answer(None)
        else:
            self._journal.end(self.exchange, len(outcome.body))
            self._take_answer(with_keys(outcome, self._journal, self.exchange))


def with_keys(answer: HttpAnswer, journal: Journal, exchange: Exchange) -> HttpAnswer:
    """The answer, with what its client is told of the exchange."""
    keys = [(key.encode(), text.encode()) for key, text in journal.reply_keys(exchange)]
    return HttpAnswer(answer.status, answer.body, (*answer.headers, *keys), answer.content_type)
