"""One HTTP/1.1 connection of the REST door: uvicorn's, with what a public port needs besides.

What is added to `HttpToolsProtocol` (written against uvicorn 0.54):
- the request target as the client sent it, which the URL grammar of MindSpore Serving wants;
- a limit on bytes that bring a request no further (heads, trailers, chunk extensions), for the
  parser has none; a time limit on a head, and on silence within a body;
- a client that takes nothing of its reply for as long is given up: a connection holds one reply
  that is being sent and computes at most one more, but it would hold them for ever;
- verbs that the parser does not know are answered 501, as libevent's server does;
- an offer to change the protocol (`Upgrade: h2c`, which Java's client makes with every request) is
  declined by leaving it unread; the parser alone would drop the body of such a request;
- the task that answers a request is cancelled when its client goes away.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

#: Bytes of request line and headers together: nginx takes 4 buffers of 8 KiB, Apache 100 fields of
#: 8 KiB. Checked once per read, so that one read (up to 256 KiB) may go beyond it.
HEAD_BYTES_MAX = 64 * 1024

#: Headers with which a client offers another protocol.
UPGRADE_HEADERS = (b"upgrade", b"http2-settings")


@dataclass(frozen=True)
class Patience:
    """How long a client is waited for.

    head_s: from the first byte of a request to the end of its head, against clients that send a
    byte now and then. idle_s: silence within a body, between requests, and while a client takes
    nothing of a reply; MindSpore Serving's RESTful server closes a connection after 100 s.
    """

    head_s: float = 10.0
    idle_s: float = 100.0


class HttpConnection(HttpToolsProtocol):
    """A connection; uvicorn makes one per client. The scope of a request has it as `mindbus`."""

    def __init__(self, *arguments: Any, patience: Patience, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._patience = patience
        #: the task that waits for the handler of the current request
        self.handler_task: asyncio.Task[None] | None = None
        #: the client is gone or was given up: there is nobody to answer
        self.is_abandoned = False
        #: done when the connection is closed and everything written has left or is lost
        self.lost: asyncio.Future[None] = self.loop.create_future()
        #: the next reply is the last one
        self._ends_after_next = False
        self._in_head = True
        self._declines_upgrade = False
        #: bytes since the request last got further
        self._stagnant_bytes = 0
        #: runs while a request is incomplete
        self._waiting: asyncio.TimerHandle | None = None
        #: runs while more of a reply is unsent than the transport likes to hold
        self._stalled: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected; one that never says anything is treated as one that is idle."""
        super().connection_made(transport)
        self._ends_after_next = getattr(self.server_state, "is_leaving", False)
        self.timeout_keep_alive_task = self.loop.call_later(
            self._patience.idle_s, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whichever end."""
        self.is_abandoned = True
        self._unset_keepalive_if_required()
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)
        if self.handler_task is not None:
            self.handler_task.cancel()
        self.lost.set_result(None)

    def abandon(self) -> None:
        """Drop the connection without an answer."""
        self.is_abandoned = True
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.abort()

    def end_after_next(self) -> None:
        """Close after the reply that is under way, or else after the next one; it says so."""
        self._ends_after_next = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    # ------------------------------------------------------------ bytes out

    def pause_writing(self) -> None:
        """The client takes its reply more slowly than it is written; see that it goes on."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """Most of the reply has left."""
        super().resume_writing()
        self._stop_watching()

    def _watch_writing(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(self._patience.idle_s, self._check_writing)

    def _check_writing(self) -> None:
        self._stalled = None
        if self.transport.get_write_buffer_size() == self._unsent_bytes:
            self.abandon()
        else:
            self._watch_writing()

    def _stop_watching(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    # ------------------------------------------------------------ bytes in

    def data_received(self, data: bytes) -> None:
        """Parse what came; requests start while this runs."""
        self._unset_keepalive_if_required()
        self._stagnant_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserInvalidMethodError:
            self._refuse(501)
        except httptools.HttpParserError:
            self._refuse(400)
        if self.transport.is_closing():
            return
        if self._stagnant_bytes > HEAD_BYTES_MAX:
            self._refuse(431 if self._in_head else 400)
        elif not self._in_head:
            self._stop_waiting()
            self._waiting = self.loop.call_later(self._patience.idle_s, self._give_up)
        elif self._stagnant_bytes and self._waiting is None:
            self._waiting = self.loop.call_later(self._patience.head_s, self._give_up)

    def _give_up(self) -> None:
        self._waiting = None
        if self._is_answering():  # the silence is our own
            self._waiting = self.loop.call_later(self._patience.idle_s, self._give_up)
        else:
            self.abandon()

    def _is_answering(self) -> bool:
        """Whether a complete request waits for its reply; behind it there may be more."""
        cycle = self.cycle
        running = cycle is not None and not (cycle.response_complete or cycle.more_body)
        return running or self.flow.read_paused

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parse the request again as if its client had not offered another protocol."""
        if self.parser.get_method() == b"CONNECT":
            self._refuse(501)
            return
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip().lower() for option in value.split(b",")]
                kept = [option for option in options if option not in UPGRADE_HEADERS]
                lines += [name, b": ", b",".join(kept), b"\r\n"]
            elif name not in UPGRADE_HEADERS:
                lines += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"".join([*lines, b"\r\n", rest]))

    def _refuse(self, status: int) -> None:
        """Answer bytes that are no HTTP request, and close."""
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.more_body:
                # An earlier request still has its reply to come; then the connection ends.
                self.cycle.keep_alive = False
                self.transport.pause_reading()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.is_abandoned = True
        self.transport.write(
            STATUS_LINE[status] + b"connection: close\r\ncontent-length: 0\r\n\r\n"
        )
        self.transport.close()

    # ------------------------------------------------------------ the parser's callbacks

    def on_message_begin(self) -> None:
        """The first byte of a request line."""
        super().on_message_begin()
        self._in_head = True
        self._declines_upgrade = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind a chunked body."""
        if self._in_head:  # else a trailer, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: the request starts, its body may still come."""
        self._advance()
        self._in_head = False
        self._stop_waiting()
        if self.parser.should_upgrade():
            self._declines_upgrade = True
            return
        # uvicorn would parse and unquote the target, and refuse some; the grammar is not its own.
        target, self.url = self.url, b"/"
        super().on_headers_complete()
        if self._ends_after_next and self.cycle is not None:
            self.cycle.keep_alive = False
        self.scope["raw_path"] = target
        self.scope["mindbus"] = self  # type: ignore[typeddict-unknown-key]

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._advance()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._declines_upgrade:
            return
        self._advance()
        self._stop_waiting()
        self._in_head = True
        super().on_message_complete()

    def _advance(self) -> None:
        self._stagnant_bytes = 0

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
