"""One HTTP/1.1 connection of the REST door: httptools' parser, and one answer after the other.

A request is handed on when its body is complete. While it is answered the next one may arrive, and
is kept until then; further ones are not read. Beside that:
- the request target is handed on as the client sent it, which the URL grammar of MindSpore Serving
  wants; of a body over the limit nothing is kept, but it is read to its end, so that the client
  gets to read the answer;
- a limit on bytes that bring a request no further (heads, trailers, chunk extensions), for the
  parser has none; a time limit on a head, and on silence within a body and between requests;
- a client that takes nothing of its reply for as long is given up;
- verbs that the parser does not know are answered 501, as libevent's server does;
- an offer to change the protocol (`Upgrade: h2c`, which Java's client makes with every request) is
  declined by leaving it unread; the parser alone would drop the body of such a request;
- the task that answers a request is cancelled when its client goes away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

import httptools

from gateway.http_arriving import ArrivingRequest
from gateway.http_forward import ForwardedRequest
from gateway.http_messages import HttpAnswer, HttpRequest
from gateway.http_replies import BROKEN, CONTINUE, REFUSALS, reply_head
from gateway.http_service import RestService
from gateway.stall_watch import StallWatch
from telemetry.log import get_logger

log = get_logger("GATEWAY")

#: Bytes of request line and headers together: nginx takes 4 buffers of 8 KiB, Apache 100 fields of
#: 8 KiB. Checked once per read, so that one read (up to 256 KiB) may go beyond it.
HEAD_BYTES_MAX = 64 * 1024

#: Replies up to this size are written as one piece with their heads.
JOINED_BYTES_MAX = 16 * 1024

#: What a TLS connection is given before it is seen whether the client takes it: it encrypts all.
TLS_BYTES_MAX = 256 * 1024


class HttpConnection:
    """A connection; the door makes one per client."""

    def __init__(self, service: RestService, connections: set[HttpConnection]) -> None:
        """connections: has those that are open."""
        self._service = service
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        #: done when the connection is closed and everything written has left or is lost
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._client: object = None
        self._is_encrypted = False
        self._parser = self._new_parser()
        #: the one whose head, or whose body, comes now; None between requests
        self._arriving: ArrivingRequest | None = None
        self._in_head = True
        #: complete requests that wait for the one that is answered
        self._waiting: deque[ArrivingRequest] = deque()
        self._answering: asyncio.Task[None] | ForwardedRequest | None = None
        #: nothing is answered any more: the connection is given up
        self._is_abandoned = False
        #: the last reply of those that are owed, or else the next one, ends the connection
        self._ends = False
        #: what came last was no HTTP, and nothing behind it is read
        self._is_deaf = False
        self._is_read_paused = False
        self._declines_upgrade = False
        #: the client waits to be told that it may send its body
        self._expects_continue = False
        self._read = b""  #: the read that the request begins with
        #: bytes since the request last got further
        self._stagnant_bytes = 0
        self._idle_since_s = 0.0
        #: runs while a request is incomplete
        self._incomplete: asyncio.TimerHandle | None = None
        #: runs all the time; looks whether the connection is idle
        self._idle: asyncio.TimerHandle | None = None
        #: runs while more of a reply is unsent than the transport likes to hold, and at the end
        self._stall_watch = StallWatch(service.patience.idle_s, self.abandon)
        #: who waits until it likes to hold more
        self._drained: asyncio.Future[None] | None = None

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Whoever sends more behind `Connection: close` gets an answer to what came before it.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    # ------------------------------------------------------------ the connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected; one that never says anything is treated as one that is idle."""
        self._transport = cast(asyncio.Transport, transport)
        self._ends = self._service.is_leaving
        self._client = transport.get_extra_info("peername")
        self._is_encrypted = transport.get_extra_info("sslcontext") is not None
        self._connections.add(self)
        self._idle_since_s = self._loop.time()
        self._idle = self._loop.call_later(self._service.patience.idle_s, self._check_idle)

    def connection_lost(self, _error: Exception | None) -> None:
        """The connection is closed, by whichever end."""
        self._is_abandoned = True
        self._connections.discard(self)
        self._stop_incomplete()
        self.resume_writing()
        self._waiting.clear()
        if self._idle is not None:
            self._idle.cancel()
        if self._answering is not None:
            self._answering.cancel()
        self.lost.set_result(None)

    def eof_received(self) -> None:
        """The client sends no more, which is how it says that it goes: the transport closes."""

    def abandon(self) -> None:
        """Drop the connection without an answer."""
        self._is_abandoned = True
        self._transport.abort()

    def end_after_next(self) -> None:
        """Close after the replies that are owed, or else after the next one; it says so."""
        self._ends = True

    def shutdown(self) -> None:
        """Close now if no request has come, else after its reply."""
        self._ends = True
        if self._answering is None and (self._arriving is None or self._in_head):
            self._is_abandoned = True
            self._close()

    def _close(self) -> None:
        """Close once everything is written; a client that takes nothing of it is given up."""
        self._stall_watch.begin(self._transport)
        self._transport.close()

    def _check_idle(self) -> None:
        """The timer goes off once in a while, rather than be set with each reply."""
        idle_s = self._service.patience.idle_s
        left_s = idle_s
        if self._answering is None and self._arriving is None:
            left_s = self._idle_since_s + idle_s - self._loop.time()
            if left_s <= 0:
                self._close()
                return
        self._idle = self._loop.call_later(left_s, self._check_idle)

    # ------------------------------------------------------------ bytes out

    def pause_writing(self) -> None:
        """The client takes its reply more slowly than it is written; see that it goes on."""
        self._drained = self._loop.create_future()
        self._stall_watch.begin(self._transport)

    def resume_writing(self) -> None:
        """Most of the reply has left, or none of it ever will."""
        self._stall_watch.stop()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    # ------------------------------------------------------------ answers

    def _begin_answer(self, arriving: ArrivingRequest) -> None:
        service = self._service
        request = arriving.complete(service.body_bytes_max, self._loop.time())
        if arriving.known is not None and service.forwarding is not None:
            forwarded = service.forwarding.begin(request, self._client, self._take_answer)
            if forwarded is not None:
                if not forwarded.is_over:
                    self._answering = forwarded
                return
        self._answering = self._loop.create_task(self._answer(request, arriving.is_kept_alive))

    async def _answer(self, request: HttpRequest, is_kept_alive: bool) -> None:
        try:
            answer = await self._service.answer(request, self._client)
        except asyncio.CancelledError:
            if self._is_abandoned:
                return
            raise
        except Exception:
            log.exception("bug in the gateway", target=request.target[:300])
            answer, is_kept_alive = BROKEN, False
        self._give(answer, is_kept_alive, request.verb == "HEAD")

    def _take_answer(self, answer: HttpAnswer | None) -> None:
        """The answer to a request that was forwarded. Its connection goes on, for that is known."""
        if answer is None:
            log.exception("bug in the gateway")
        self._give(answer or BROKEN, is_kept_alive=answer is not None)

    def _give(self, answer: HttpAnswer, is_kept_alive: bool, is_for_head: bool = False) -> None:
        self._answering = None
        if self._is_abandoned:
            return
        body = b"" if is_for_head else answer.body
        is_large = len(body) > JOINED_BYTES_MAX
        if self._drained or (is_large and self._is_encrypted):
            self._answering = self._loop.create_task(self._give_slowly(answer, body, is_kept_alive))
            return
        is_last = self._is_last(is_kept_alive)
        head = reply_head(answer, is_last)
        if is_large:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head + body)
        self._end_answer(is_last)

    async def _give_slowly(self, answer: HttpAnswer, body: bytes, is_kept_alive: bool) -> None:
        """As the client takes it. What is encrypted lies below of what tells us of that."""
        if self._drained is not None:
            await self._drained
        is_last = self._is_last(is_kept_alive)
        rest = memoryview(body)
        if not self._is_abandoned:
            self._transport.write(reply_head(answer, is_last))
        while rest and not self._is_abandoned:
            self._transport.write(rest[:TLS_BYTES_MAX])
            rest = rest[TLS_BYTES_MAX:]
            if self._drained is not None:
                await self._drained
        if not self._is_abandoned:
            self._end_answer(is_last)

    def _is_last(self, is_kept_alive: bool) -> bool:
        return not is_kept_alive or (self._ends and not self._waiting)

    def _end_answer(self, is_last: bool) -> None:
        self._answering = None
        if is_last:
            self._is_abandoned = True
            return self._close()
        self._idle_since_s = self._loop.time()
        if self._waiting:
            self._begin_answer(self._waiting.popleft())
        elif self._expects_continue:
            self._tell_to_continue()
        if self._is_read_paused and not self._waiting and not self._is_deaf:
            self._is_read_paused = False
            self._transport.resume_reading()
        return None

    def _tell_to_continue(self) -> None:
        self._expects_continue = False
        self._transport.write(CONTINUE)

    # ------------------------------------------------------------ bytes in

    def data_received(self, data: bytes) -> None:
        """Parse what came; requests begin to be answered while this runs."""
        if self._ignores_client():
            return
        if self._arriving is None and not self._stagnant_bytes:
            self._read = data
            known = self._service.find_known(data, self._loop.time())
            if known is not None:
                self._hand_on(known)
                return
        self._stagnant_bytes += len(data)
        try:
            while data:
                data = self._feed(data)
        except httptools.HttpParserInvalidMethodError:
            self._refuse(501)
        except httptools.HttpParserError:
            self._refuse(400)
        if self._ignores_client() or (self._arriving is None and not self._stagnant_bytes):
            return
        patience = self._service.patience
        if self._stagnant_bytes > HEAD_BYTES_MAX:
            self._refuse(431 if self._in_head else 400)
        elif not self._in_head:
            self._stop_incomplete()
            self._incomplete = self._loop.call_later(patience.idle_s, self._give_up)
        elif self._incomplete is None:
            self._incomplete = self._loop.call_later(patience.head_s, self._give_up)

    def _ignores_client(self) -> bool:
        return self._is_abandoned or self._is_deaf

    def _feed(self, data: bytes) -> bytes:
        """Returns what is to be parsed again. Raises httptools.HttpParserError."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._decline_upgrade(data[upgrade.args[0] :])
        return b""

    def _give_up(self) -> None:
        self._incomplete = None
        if self._answering is not None:  # the silence is our own
            self._incomplete = self._loop.call_later(self._service.patience.idle_s, self._give_up)
        else:
            self.abandon()

    def _decline_upgrade(self, rest: bytes) -> bytes:
        """The request and all behind it as if its client had not offered another protocol."""
        method, version = self._parser.get_method(), self._parser.get_http_version()
        if method == b"CONNECT":
            self._refuse(501)
            return b""
        assert self._arriving is not None
        self._parser = self._new_parser()
        return self._arriving.declined(method, version, rest)

    def _refuse(self, status: int) -> None:
        """Answer bytes that are no HTTP request, and close."""
        if self._answering is not None:
            # Earlier requests still have their replies to come; then the connection ends.
            self._ends = self._is_deaf = True
            self._pause_reading()
            return
        self._is_abandoned = True
        self._transport.write(REFUSALS[status])
        self._close()

    # ------------------------------------------------------------ the parser's callbacks

    def on_message_begin(self) -> None:
        """The first byte of a request line."""
        self._arriving = ArrivingRequest()
        self._in_head, self._declines_upgrade = True, False

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        assert self._arriving is not None
        self._arriving.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind a chunked body."""
        if self._in_head:  # else a trailer, which nobody reads
            assert self._arriving is not None
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self._expects_continue = True
            self._arriving.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete, the body may still come."""
        request, parser = self._arriving, self._parser
        assert request is not None
        self._stagnant_bytes = 0
        self._in_head = False
        self._stop_incomplete()
        if parser.should_upgrade():
            self._declines_upgrade = True
            return
        request.begin_s = self._loop.time()
        request.verb = parser.get_method().decode("ascii")
        request.is_kept_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        if self._expects_continue and self._answering is None:
            self._tell_to_continue()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        request = self._arriving
        assert request is not None
        self._stagnant_bytes = 0
        self._expects_continue = False
        request.add_body(body, self._service.body_bytes_max)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._declines_upgrade:
            return
        request = self._arriving
        assert request is not None
        self._arriving = None
        self._stagnant_bytes = 0
        self._expects_continue = False
        self._in_head = True
        self._stop_incomplete()
        read, self._read = self._read, b""
        self._service.heads.learn(read, request)
        self._hand_on(request)

    def _hand_on(self, request: ArrivingRequest) -> None:
        if self._answering is None:
            self._begin_answer(request)
        else:
            self._waiting.append(request)
            self._pause_reading()

    def _pause_reading(self) -> None:
        if not self._is_read_paused:
            self._is_read_paused = True
            self._transport.pause_reading()

    def _stop_incomplete(self) -> None:
        if self._incomplete is not None:
            self._incomplete.cancel()
            self._incomplete = None
