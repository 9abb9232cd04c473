"""Requests that a door forwards to the bus at once, without a task of their own. Pure.

Most requests need no waiting before they leave, and their replies need none either. Everything else
is answered by a handler's coroutine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from gateway.bus import Bus
from gateway.exchange import Exchange, enter
from gateway.journal import Journal
from protocol.errors import RequestError
from protocol.native import Buffer


class Forwarder(Protocol):
    """What is asked of a handler whose requests may be forwarded.

    A request is what the door has: a body, or an `HttpRequest`. A plan is the handler's own.
    """

    @property
    def bus(self) -> Bus:
        """Where they go."""

    def look(self, request: Any) -> Any:
        """The plan for a request; None: it cannot be forwarded, or is wrong, and a coroutine will
        say so."""

    def ask(self, request: Any, plan: Any, budget_ms: int | None) -> tuple[bytes, list[Buffer]]:
        """What the bus is asked for. budget_ms: the client's, None = it said nothing of it.

        Raises: RequestError.
        """

    def told(self, head: bytes, frames: Sequence[Buffer]) -> Any:
        """What the door answers, from a reply of the bus. Raises RequestError."""

    def failed(self, plan: Any, error: RequestError) -> Any:
        """What the door answers to a request that failed; the error itself where it knows that."""


class Forwarded(ABC):
    """A request on its way through the bus. The base of each door's own.

    exchange: what is told of it, and what everybody who works on it finds as the current one.
    """

    __slots__ = ("_forwarder", "_plan", "_submitted", "exchange", "is_over", "journal")

    def __init__(
        self, forwarder: Forwarder, plan: Any, exchange: Exchange, journal: Journal
    ) -> None:
        self.journal = journal
        self._forwarder = forwarder
        self._plan = plan
        self._submitted: object = None
        self.exchange = exchange
        #: it was answered, perhaps at once
        self.is_over = False

    def begin(self, request: Any, budget_ms: int | None) -> None:
        """Forward it. REQUIRES: its exchange is the current one, which it is not any more then."""
        try:
            head, frames = self._forwarder.ask(request, self._plan, budget_ms)
            self._submitted = self._forwarder.bus.submit(head, frames, self._take)
        except RequestError as error:
            self._end(self._forwarder.failed(self._plan, error))
        except Exception:
            self._end(None)
        finally:
            enter(None)

    def drop(self, why: str) -> None:
        """Nobody waits for its answer any more, for one of `status.REASONS`."""
        self._forwarder.bus.cancel(self._submitted)
        self.is_over = True
        self.exchange.fail(why)
        self.journal.end(self.exchange, 0)

    def _take(self, head: bytes, frames: Sequence[Buffer]) -> None:
        enter(self.exchange)
        try:
            self._end(self._forwarder.told(head, frames))
        except RequestError as error:
            self._end(self._forwarder.failed(self._plan, error))
        except Exception:
            self._end(None)
        finally:
            enter(None)

    def _end(self, outcome: Any) -> None:
        self.is_over = True
        self.answer(outcome)

    @abstractmethod
    def answer(self, outcome: Any) -> None:
        """Answer its client. outcome: what the forwarder gave, or None after a bug, while that is
        handled.
        """
