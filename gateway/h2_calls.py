"""The calls of one HTTP/2 connection that are open, and what is said to their client. Pure."""

from __future__ import annotations

from gateway import h2_frames as frames
from gateway.h2_call import Call, CallError
from gateway.h2_errors import Http2Error
from gateway.h2_farewell import Farewell
from gateway.h2_headers import HEADERS_BYTES_MAX, REASON_KEY, trailers
from gateway.h2_patience import FORGIVEN_PER_CALL, FORGIVEN_PER_FRAME, Patience
from gateway.h2_replies import Piece, Replies
from gateway.h2_sink import CallSink
from protocol import limits
from protocol.native import Buffer
from protocol.status import REASONS

#: How many bytes of a call, and of a connection, may be under way to us.
CALL_WINDOW = 4 * limits.MIB
CONNECTION_WINDOW = 16 * limits.MIB

#: The largest DATA frame that we take.
FRAME_BYTES_MAX = limits.MIB

_OPENING = frames.settings(
    {
        frames.SETTING_CALLS_MAX: limits.CONNECTION_CALLS_MAX,
        frames.SETTING_WINDOW: CALL_WINDOW,
        frames.SETTING_FRAME_BYTES_MAX: FRAME_BYTES_MAX,
        frames.SETTING_HEADERS_BYTES_MAX: HEADERS_BYTES_MAX,
    }
) + frames.window_update(0, CONNECTION_WINDOW - frames.WINDOW_DEFAULT)


class OpenCalls:
    """Calls, windows and last words. `out` has what is to be written; its order matters."""

    def __init__(self, sink: CallSink) -> None:
        self.out: list[Piece] = [_OPENING]
        self.replies = Replies(self.out)
        #: by stream
        self.calls: dict[int, Call] = {}
        self._sink = sink
        self._farewell = Farewell()
        self._last_stream = 0
        #: of `held_bytes` of all calls
        self._held_bytes = 0
        self._patience = Patience()
        #: when the bytes that are being read came, monotonic
        self._now_ns = 0

    def send(self, call: Call, body: Buffer) -> None:
        """Send a message of a stream. REQUIRES: the call is open."""
        self.replies.send(call, body)
        if call.unsent:
            self.go_on()

    def reply(self, call: Call, body: Buffer, end: bytes) -> None:
        """Send the only message of a call, and end it. end: the block of its trailers."""
        self.replies.send(call, body, end)
        if call.unsent:
            self.go_on()
        else:
            self._close(call)

    def finish(self, call: Call, end: bytes) -> None:
        """End a call, after the messages that were sent. end: the block of its trailers."""
        self.replies.finish(call, end)
        if not call.unsent:
            self._close(call)

    def go_on(self) -> None:
        """Send what waited, if it may go now; see `Replies.can_go_on` for whether that was all."""
        before = self.replies.frames_sent
        for call in self.replies.go_on():
            if call.end is not None:
                self._close(call)
            else:
                self._sink.note_sent(call)
        self._patience.forgive(FORGIVEN_PER_FRAME * (self.replies.frames_sent - before))

    def note_taken(self, call: Call, body: Buffer) -> None:
        """A message of a call was taken; once all were, its client may send as much again."""
        call.untaken_bytes -= len(body)
        if not call.is_closed:
            if call.counted_bytes:
                self._count(call)
            self._acknowledge(call)

    def _acknowledge(self, call: Call) -> None:
        is_little = call.unacknowledged < CALL_WINDOW // 2
        if call.untaken_bytes or is_little or call.is_half_closed:
            return
        self.out.append(frames.window_update(call.stream, call.unacknowledged))
        call.unacknowledged = 0

    def leave(self) -> None:
        """Tell the client to open no more calls here; those that run go on."""
        self.out.append(self._farewell.begin())

    @property
    def has_calls(self) -> bool:
        """The client has called, at least once."""
        return self._last_stream > 0

    @property
    def has_left(self) -> bool:
        """The client knows that no more calls are taken, and none is open."""
        return self._farewell.is_said and not self.calls

    def fail(self, error: Http2Error) -> None:
        """The last word to a client that broke the protocol."""
        self.out.append(frames.goaway(self._last_stream, error.code, error.text))

    def _fail_call(self, call: Call, error: CallError) -> None:
        """End a call that the client has spoilt."""
        self._note_idle_frame()
        self.replies.drop(call)
        code = REASONS[error.reason].grpc
        self.replies.finish(call, trailers(code, error.text, ((REASON_KEY, error.reason),)))
        self._close(call, is_good=False)
        self._sink.drop(call)

    def _reset(self, call: Call, code: int) -> None:
        self._note_idle_frame()
        self.out.append(frames.reset(call.stream, code))
        self._forget(call)

    def _forget(self, call: Call) -> None:
        """The call is over, and nothing more is said about it."""
        self.replies.drop(call)
        self._remove(call)
        self._sink.drop(call)

    def _remove(self, call: Call) -> None:
        call.is_closed = True
        del self.calls[call.stream]
        self._held_bytes -= call.counted_bytes

    def _close(self, call: Call, is_good: bool = True) -> None:
        """Our end of a call is written. is_good: it was answered."""
        self._remove(call)
        if is_good:
            self._patience.forgive(FORGIVEN_PER_CALL)
        if not call.is_half_closed:  # what else its client would send is of no use
            self.out.append(frames.reset(call.stream, frames.NO_ERROR))

    def _count(self, call: Call) -> None:
        """Keep count of what lies here."""
        held = call.held_bytes
        self._held_bytes += held - call.counted_bytes
        call.counted_bytes = held

    def _note_idle_frame(self, count: int = 1) -> None:
        """A frame came that brings no message further, or costs as much as several."""
        if self._patience.is_over(self._now_ns, count):
            raise Http2Error(frames.ENHANCE_YOUR_CALM, "too many frames without a message")
