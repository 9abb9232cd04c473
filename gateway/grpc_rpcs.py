"""The RPCs of the gRPC door: each call is answered by a coroutine of its kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple, Protocol

from gateway.forward import Forwarder
from gateway.grpc_calls import (
    CodeOf,
    Connection,
    Inbox,
    budget_ms_of,
    fail,
    fail_by_bug,
    forward_call,
)
from gateway.h2_call import Call
from gateway.h2_headers import trailers
from gateway.journal import Journal
from gateway.rare_warning import RareWarning
from gateway.rpcs import BothStreams, Rpcs, ServerStream, Unary
from protocol import status
from protocol.errors import RequestError
from protocol.status import REASONS

PREDICT = "/mindspore.serving.proto.MSService/Predict"

#: Statuses of refused calls of `Predict`; others are INVALID_ARGUMENT.
_PREDICT_CODES = {
    "unread_bytes_full": status.RESOURCE_EXHAUSTED,
    "body_too_large": status.RESOURCE_EXHAUSTED,
}


class PredictHandler(Protocol):
    """What the door asks of a handler; `MsServiceHandler` is one."""

    def predict(self, body: bytes, budget_ms: int | None) -> Awaitable[bytes]:
        """Answer one message. Raises RequestError for bytes that are none."""

    @property
    def forwarder(self) -> Forwarder | None:
        """What forwards messages that need no more than that; None = there are none."""


class Rpc(NamedTuple):
    """How an RPC is answered. takes_stream: from its first message on, else once it is there.

    forward: answers a call without a task, if it can.
    """

    answer: Callable[[Connection, Call, Inbox], Coroutine[Any, Any, None]]
    takes_stream: bool = False
    forward: Callable[[Connection, Call, Inbox], bool] | None = None


class GrpcService:
    """What all connections of a door have in common: limits, journal, and RPCs by their names."""

    def __init__(
        self,
        handler: PredictHandler,
        rpcs: Rpcs,
        message_bytes_max: int,
        unread_bytes_max: int,
        journal: Journal,
    ) -> None:
        self.message_bytes_max = message_bytes_max
        self.unread_bytes_max = unread_bytes_max
        self.journal = journal
        #: of a client that broke the protocol
        self.warn = RareWarning("gRPC connection ended")
        self.rpcs: dict[str, Rpc] = {
            PREDICT: self._unary(handler.predict, handler.forwarder, _predict_code_of)
        }
        for name, unary in rpcs.unary.items():
            self.rpcs[name] = self._unary(unary, rpcs.forwarders.get(name), _code_of)
        for name, stream in rpcs.server_streams.items():
            self.rpcs[name] = Rpc(partial(_answer_one, journal, stream))
        for name, both in rpcs.both_streams.items():
            self.rpcs[name] = Rpc(partial(_answer_stream, journal, both), takes_stream=True)

    def _unary(self, answer: Unary, forwarder: Forwarder | None, code_of: CodeOf) -> Rpc:
        forward = None
        if forwarder is not None:
            forward = partial(forward_call, self.journal, forwarder, code_of)
        return Rpc(partial(_answer_unary, self.journal, answer, code_of), forward=forward)


async def _answer_unary(
    journal: Journal,
    answer: Unary,
    code_of: CodeOf,
    connection: Connection,
    call: Call,
    inbox: Inbox,
) -> None:
    body = bytes(inbox.messages.popleft())
    exchange = connection.begin_exchange(call, len(body))
    size = 0
    try:
        reply = await answer(body, budget_ms_of(inbox))
        connection.check_reply(reply)
        end = trailers(status.OK, "", journal.reply_keys(exchange))
        connection.reply(call, reply, end)
        size = len(reply)
    except asyncio.CancelledError:
        exchange.fail(inbox.why_dropped)
    except RequestError as error:
        fail(journal, connection, call, exchange, error, code_of(error))
    except Exception:
        fail_by_bug(journal, connection, call, exchange)
    finally:
        inbox.cancel_timer()
        journal.end(exchange, size)


async def _answer_one(
    journal: Journal, answer: ServerStream, connection: Connection, call: Call, inbox: Inbox
) -> None:
    body = bytes(inbox.messages.popleft())
    await _carry(journal, connection, call, inbox, answer(body), len(body))


async def _answer_stream(
    journal: Journal, answer: BothStreams, connection: Connection, call: Call, inbox: Inbox
) -> None:
    replies = answer(_messages(connection, call, inbox), budget_ms_of(inbox))
    await _carry(journal, connection, call, inbox, replies, 0)


async def _messages(connection: Connection, call: Call, inbox: Inbox) -> AsyncIterator[bytes]:
    """The messages of a call, as they come; what is not taken is not asked for."""
    while True:
        if inbox.messages:
            body = inbox.messages.popleft()
            connection.note_taken(call, body)
            yield bytes(body)
        elif inbox.has_ended:
            return
        else:
            inbox.news = asyncio.get_running_loop().create_future()
            await inbox.news
            inbox.news = None


async def _carry(
    journal: Journal,
    connection: Connection,
    call: Call,
    inbox: Inbox,
    replies: AsyncIterator[bytes],
    request_bytes: int,
) -> None:
    """A stream is one exchange; what its client does not take is not asked for."""
    exchange = connection.begin_exchange(call, request_bytes)
    exchange.key = None  # it would be that of all requests of a stream
    size = 0
    try:
        async with aclosing(replies):  # type: ignore[type-var]
            async for reply in replies:
                await connection.send(call, reply)
                size += len(reply)
        connection.finish(call, trailers(status.OK, "", journal.reply_keys(exchange)))
    except asyncio.CancelledError:
        exchange.fail(inbox.why_dropped)
    except RequestError as error:
        fail(journal, connection, call, exchange, error, _code_of(error))
    except Exception:
        fail_by_bug(journal, connection, call, exchange)
    finally:
        inbox.cancel_timer()
        journal.end(exchange, size)


def _code_of(error: RequestError) -> int:
    """The code of an error's reason (`protocol.status`)."""
    return REASONS[error.reason].grpc


def _predict_code_of(error: RequestError) -> int:
    return _PREDICT_CODES.get(error.reason, status.INVALID_ARGUMENT)
