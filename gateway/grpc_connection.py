"""One client's connection to the gRPC door: its calls, each answered by a task of its own."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from gateway.exchange import Exchange
from gateway.grpc_calls import Inbox
from gateway.grpc_rpcs import GrpcService
from gateway.h2_call import Call, CallError
from gateway.h2_connection import Http2Connection
from gateway.h2_errors import Http2Error
from gateway.h2_headers import REASON_KEY, trailers
from gateway.journal import REQUEST_ID_KEY, TRACE_KEY
from gateway.requests import IDEMPOTENCY_KEY, PRIORITY_KEY
from gateway.stall_watch import StallWatch
from protocol import limits, status
from protocol.errors import RequestError
from protocol.native import Buffer

#: How long a client may take to say that it speaks HTTP/2; grpcio waits as long.
PREFACE_S = 120.0

#: What the last words of a connection that is given up may take to leave.
ABANDON_S = 0.2

#: A client that takes nothing of what is written for so long is given up; the REST door waits as
#: long.
STALL_S = 100.0

#: A client that does not read gets no answers to what it sends beyond this many bytes of them.
UNTAKEN_BYTES_MAX = 4 * limits.MIB

#: Headers of calls that say something here.
HEADERS_READ = frozenset((REQUEST_ID_KEY, TRACE_KEY, PRIORITY_KEY, IDEMPOTENCY_KEY))

NS_PER_S = 1_000_000_000


class GrpcConnection:
    """A connection; the door makes one per client. It is the `CallSink` of its own HTTP/2."""

    def __init__(self, service: GrpcService, connections: set[GrpcConnection]) -> None:
        """connections: has those that are open."""
        self._service = service
        self._connections = connections
        self._http2 = Http2Connection(self, service.message_bytes_max, HEADERS_READ)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._peer: object = ""
        self._is_leaving = False
        self._leaves_with_call = False
        self._is_more_planned = False
        self._is_flush_planned = False
        self._is_read_paused = False
        #: runs until the client has said that it speaks HTTP/2
        self._opening: asyncio.TimerHandle | None = None
        #: runs while more is unsent than the transport likes to hold, and at the end
        self._stall_watch = StallWatch(STALL_S, self._give_up)
        #: done when the connection is closed
        self.lost: asyncio.Future[None] = self._loop.create_future()

    # ---------------------------------------------------------------- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._peer = transport.get_extra_info("peername") or "unix:"
        self._connections.add(self)
        self._opening = self._loop.call_later(PREFACE_S, self._check_preface)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._transport is None or self._transport.is_closing():
            return
        try:
            self._http2.receive(data, time.monotonic_ns())
        except Http2Error as error:
            self._service.warn(peer=str(self._peer), error=error.text)
            self._http2.fail(error)
            self._flush()
            self._close()
            return
        if self._opening is not None and self._http2.has_begun:
            self._opening.cancel()
            self._opening = None
        self._flush()

    def pause_writing(self) -> None:
        """The client does not take what is written; see that it goes on."""
        self._http2.replies.is_paused = True
        assert self._transport is not None
        self._stall_watch.begin(self._transport)

    def resume_writing(self) -> None:
        """It takes it again."""
        self._http2.replies.is_paused = False
        self._stall_watch.stop()
        assert self._transport is not None
        if self._is_read_paused:
            self._is_read_paused = False
            self._transport.resume_reading()
        self._http2.go_on()
        self._flush()

    def _give_up(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def _close(self) -> None:
        """Close once everything is written; a client that takes nothing of it is given up."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._stall_watch.begin(self._transport)
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """The connection is closed, by whomever."""
        self._stall_watch.stop()
        if self._opening is not None:
            self._opening.cancel()
        self._connections.discard(self)
        for call in list(self._http2.calls.values()):
            call.is_closed = True
            self.drop(call)
        self._http2.calls.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    def eof_received(self) -> None:
        """The client sends no more, which is how it says that it goes: the transport closes."""

    def _check_preface(self) -> None:
        if not self._http2.has_begun and not self.lost.done():
            self._give_up()

    # ---------------------------------------------------------------- for the door

    def unread_bytes(self) -> int:
        """Bytes of replies that the client has not taken."""
        assert self._transport is not None
        if self.lost.done():
            return 0
        return self._http2.replies.unsent_bytes + self._transport.get_write_buffer_size()

    def leave(self, is_last_chance: bool = False) -> None:
        """Tell the client to open no more calls here; the connection ends with the last one.

        A client that has not called yet may just be connecting: gRPC's C core has been seen to
        wait for ever then. It is told with its first call. is_last_chance: nobody is waited for.
        """
        self._leaves_with_call = not (is_last_chance or self._http2.has_calls)
        if not (self._is_leaving or self._leaves_with_call):
            self._is_leaving = True
            self._http2.leave()
            self._flush()

    def abandon(self) -> None:
        """End all calls and the connection."""
        end = trailers(status.UNAVAILABLE, "the server is going down", ())
        for call in list(self._http2.calls.values()):
            self._http2.replies.drop(call)
            self._http2.finish(call, end)
            self.drop(call)
        self._flush()
        assert self._transport is not None
        self._transport.close()
        if not self.lost.done():
            self._loop.call_later(ABANDON_S, self._transport.abort)

    # ---------------------------------------------------------------- the sink

    def begin(self, call: Call) -> None:
        """A call came; its messages follow."""
        if self._leaves_with_call:
            self._loop.call_soon(self.leave)
        rpc = self._service.rpcs.get(call.head.path)
        if rpc is None:
            text = f"Method not found: {call.head.path:.300}"
            self._http2.finish(call, trailers(status.UNIMPLEMENTED, text, ()))
            return
        inbox = call.owner = Inbox(rpc)
        timeout_ns = call.head.timeout_ns
        if timeout_ns is not None:
            inbox.deadline_ns = time.monotonic_ns() + timeout_ns
            inbox.timer = self._loop.call_later(timeout_ns / NS_PER_S, self._expire, call)
        if rpc.takes_stream:
            self._start(call, inbox)

    def take_message(self, call: Call, body: Buffer) -> None:
        """A whole message of a call. Raises CallError if it is one too many."""
        inbox = cast(Inbox, call.owner)
        if inbox.messages and not inbox.rpc.takes_stream:
            raise CallError("malformed", "more messages came, the RPC takes one")
        inbox.messages.append(body)
        if inbox.news is not None:
            _wake(inbox.news)

    def end_messages(self, call: Call) -> None:
        """There are no more messages of a call."""
        inbox = cast(Inbox, call.owner)
        inbox.has_ended = True
        if inbox.task is not None:
            if inbox.news is not None:
                _wake(inbox.news)
        elif not inbox.messages:
            inbox.cancel_timer()
            text = "no message came, the RPC takes one"
            self._http2.finish(call, trailers(status.INTERNAL, text, ()))
        else:
            self._http2.note_taken(call, inbox.messages[0])
            self._start(call, inbox)

    def note_sent(self, call: Call) -> None:
        """Nothing of what a stream has sent waits any more."""
        _wake(cast(Inbox, call.owner).room)

    def drop(self, call: Call) -> None:
        """A call is over before its reply."""
        inbox = cast(Inbox, call.owner)
        inbox.cancel_timer()
        if inbox.task is not None:
            inbox.task.cancel()

    def _start(self, call: Call, inbox: Inbox) -> None:
        rpc = inbox.rpc
        if rpc.forward is None or not rpc.forward(self, call, inbox):
            inbox.task = self._loop.create_task(rpc.answer(self, call, inbox))

    def _expire(self, call: Call) -> None:
        if not call.is_closed:
            self._http2.replies.drop(call)
            text = "Deadline Exceeded"
            metadata = ((REASON_KEY, "deadline_exceeded"),)
            self._http2.finish(call, trailers(status.DEADLINE_EXCEEDED, text, metadata))
            cast(Inbox, call.owner).why_dropped = "deadline_exceeded"
            self.drop(call)
            self._flush()

    # ---------------------------------------------------------------- for the answering tasks

    def reply(self, call: Call, body: Buffer, end: bytes) -> None:
        """Send the only reply of a call, and its end."""
        if not call.is_closed:
            self._http2.reply(call, body, end)
            self._plan_flush()

    async def send(self, call: Call, body: Buffer) -> None:
        """Send one of several replies; back when the client's window has taken it."""
        self.check_reply(body)
        self._http2.send(call, body)
        self._plan_flush()
        if call.unsent:
            inbox = cast(Inbox, call.owner)
            inbox.room = self._loop.create_future()
            await inbox.room

    def finish(self, call: Call, end: bytes) -> None:
        """End a call after what was sent."""
        if not call.is_closed:
            self._http2.finish(call, end)
            self._plan_flush()

    def note_taken(self, call: Call, body: Buffer) -> None:
        """Somebody took a message of a call."""
        self._http2.note_taken(call, body)
        self._plan_flush()

    def begin_exchange(self, call: Call, request_bytes: int) -> Exchange:
        """Enter a call; what its client is told of it rides in the trailing metadata."""
        given = call.head.metadata
        exchange = self._service.journal.begin(
            "grpc", given.get(REQUEST_ID_KEY), given.get(TRACE_KEY), request_bytes
        )
        exchange.peer = self._peer
        exchange.priority, exchange.key = given.get(PRIORITY_KEY), given.get(IDEMPOTENCY_KEY)
        return exchange

    def check_reply(self, body: Buffer) -> None:
        """Raises RequestError if a reply is too large, or too much is unread already."""
        self._check_size(body)
        replies = self._http2.replies
        if replies.is_paused or replies.unsent_bytes:
            unread, unread_max = self.unread_bytes(), self._service.unread_bytes_max
            if unread and unread + len(body) > unread_max:
                raise RequestError(
                    "unread_bytes_full",
                    f"the reply is dropped: this client leaves {unread} B of replies unread, "
                    f"unread_bytes_max is {unread_max}",
                )

    def _check_size(self, body: Buffer) -> None:
        size, size_max = len(body), self._service.message_bytes_max
        if size > size_max:
            text = f"SERVER: Sent message larger than max ({size} vs. {size_max})"
            raise RequestError("body_too_large", text)

    def _plan_flush(self) -> None:
        """Write in this turn of the loop, once, what all calls have to say in it."""
        if not self._is_flush_planned:
            self._is_flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_planned = False
        out, transport = self._http2.out, self._transport
        assert transport is not None
        if out:
            if not transport.is_closing():
                transport.writelines(out)
            out.clear()
        if self._http2.replies.can_go_on:
            self._plan_go_on()
        elif self._http2.replies.is_paused:
            self._bound_answers(transport)
        if self._http2.has_left:
            self._close()

    def _bound_answers(self, transport: asyncio.Transport) -> None:
        """Who does not read gets no more answers, of whatever kind, before it takes some."""
        is_much = transport.get_write_buffer_size() > UNTAKEN_BYTES_MAX
        if is_much and not self._is_read_paused and not transport.is_closing():
            self._is_read_paused = True
            transport.pause_reading()

    def _plan_go_on(self) -> None:
        """Send more in the next turn of the loop: others shall have theirs."""
        if not self._is_more_planned:
            self._is_more_planned = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_more_planned = False
        self._http2.go_on()
        self._flush()


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
