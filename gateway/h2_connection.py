"""The server's side of one gRPC connection: HTTP/2 (RFC 9113) in, calls out. Pure.

Written for many small calls: what arrives in one read is taken in one pass, and a reply that the
client's windows allow leaves as one piece. `out` has what is to be written; a `CallSink` is told
what arrives. What a client may do is limited throughout: calls at a time, bytes of headers and of a
message, bytes under way, and frames that bring nothing.
"""

from __future__ import annotations

from gateway import h2_frames as frames
from gateway.h2_blocks import Blocks
from gateway.h2_call import Call, CallError
from gateway.h2_calls import CALL_WINDOW, CONNECTION_WINDOW, FRAME_BYTES_MAX, OpenCalls
from gateway.h2_errors import Http2Error
from gateway.h2_frames import FRAME_HEAD, FRAME_HEAD_BYTES
from gateway.h2_headers import HeaderError, HeaderReader, status_block, trailers
from gateway.h2_sink import CallSink
from protocol import limits, status

#: The largest frame that we take of all kinds but DATA; it is read in one piece.
OTHER_FRAME_BYTES_MAX = 32 * 1024

#: Bytes of messages of one connection that are not complete, or that nobody has taken.
HELD_BYTES_MAX = limits.UNREAD_BYTES_MAX

HELD_TEXT = f"calls of this connection that are not complete have {HELD_BYTES_MAX} B already"

#: Settings that mean something here are three; who says them over and over wants something else.
SETTINGS_MAX = 100

#: Smaller frames for a call that is over cost more than they bring.
LATE_DATA_BYTES_MIN = 256


class Http2Connection(OpenCalls):
    """One connection, from its first byte on.

    message_bytes_max: of a message. names: of the headers that the sink reads.
    """

    def __init__(
        self, sink: CallSink, message_bytes_max: int, names: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(sink)
        self._message_bytes_max = message_bytes_max
        self._headers = HeaderReader(names)
        self._rest = b""
        self.has_begun = False  #: the client has said that it speaks HTTP/2
        self._blocks = Blocks()
        #: a data frame that arrives in pieces: its call, what is missing of it, its flags
        self._data_call: Call | None = None
        self._data_missing = 0
        self._data_flags = 0
        self._unacknowledged = 0

    # ---------------------------------------------------------------- what arrives

    def receive(self, chunk: bytes, now_ns: int) -> None:
        """Take the next bytes. now_ns: monotonic. Raises Http2Error; nothing may follow then."""
        self._now_ns = now_ns
        data = self._rest + chunk if self._rest else chunk
        at, end = 0, len(data)
        if not self.has_begun:
            if data[: len(frames.PREFACE)] != frames.PREFACE[:end]:
                raise Http2Error(frames.PROTOCOL_ERROR, "this is not HTTP/2")
            if end < len(frames.PREFACE):
                self._rest = data
                return
            self.has_begun = True
            at = len(frames.PREFACE)
        if self._data_missing:
            at = self._go_on_with_data(data, at)
        while end - at >= FRAME_HEAD_BYTES:
            high, low, kind, flags, stream = FRAME_HEAD.unpack_from(data, at)
            size = high << 16 | low
            stream &= frames.STREAM_MASK
            begin = at + FRAME_HEAD_BYTES
            size_max = OTHER_FRAME_BYTES_MAX if kind else FRAME_BYTES_MAX
            if size > size_max:
                text = f"frame of {size} B exceeds {size_max}"
                raise Http2Error(frames.FRAME_SIZE_ERROR, text)
            if self._blocks.is_open and kind != frames.CONTINUATION:
                raise Http2Error(frames.PROTOCOL_ERROR, "a header block was not continued")
            if end - begin < size:
                if kind != frames.DATA or flags & frames.PADDED:
                    break
                self._data_call = self._call_of_data(stream, size)
                self._data_missing, self._data_flags = size, flags
                at = self._go_on_with_data(data, begin)
                break
            at = begin + size
            if kind == frames.DATA:
                self._take_data(stream, flags, data, begin, at)
            elif kind == frames.HEADERS:
                block = self._blocks.begin(stream, flags, data[begin:at])
                if block is not None:
                    self._take_block(stream, flags, block)
            else:
                self._take_other(kind, stream, flags, data[begin:at])
        self._rest = data[at:]

    def _take_data(self, stream: int, flags: int, data: bytes, begin: int, end: int) -> None:
        """A whole DATA frame, whose payload is data[begin:end]."""
        call = self._call_of_data(stream, end - begin)
        self._note_data(call, end - begin)
        if flags & frames.PADDED:
            if begin == end or data[begin] >= end - begin:
                raise Http2Error(frames.PROTOCOL_ERROR, "padding exceeds its frame")
            begin, end = begin + 1, end - data[begin]
        if call is not None:
            self._take_payload(call, data, begin, end, flags)

    def _go_on_with_data(self, data: bytes, begin: int) -> int:
        """A piece of a DATA frame without padding. Returns where it ends."""
        end = min(len(data), begin + self._data_missing)
        self._data_missing -= end - begin
        call = self._data_call
        self._note_data(call, end - begin)
        if call is not None and not call.is_closed:
            flags = 0 if self._data_missing else self._data_flags
            self._take_payload(call, data, begin, end, flags)
        return end

    def _call_of_data(self, stream: int, size: int) -> Call | None:
        """The call that a DATA frame is for; None if it is over."""
        if not stream or stream > self._last_stream:
            text = f"DATA on stream {stream}, which has not begun"
            raise Http2Error(frames.PROTOCOL_ERROR, text)
        call = self.calls.get(stream)
        if not size or (call is None and size < LATE_DATA_BYTES_MIN):
            self._note_idle_frame()
        if call is not None and call.is_half_closed:
            self._reset(call, frames.STREAM_CLOSED)
            return None
        return call

    def _note_data(self, call: Call | None, size: int) -> None:
        """Bytes came: let the client send as many again, once that is worth a frame.

        On its own call it may when what came is taken, or is part of a message.
        """
        self._unacknowledged += size
        if self._unacknowledged >= CONNECTION_WINDOW // 2:
            self.out.append(frames.window_update(0, self._unacknowledged))
            self._unacknowledged = 0
        if call is not None:
            call.unacknowledged += size
            if call.unacknowledged > CALL_WINDOW:
                raise Http2Error(frames.FLOW_CONTROL_ERROR, "more data than the window allows")

    def _take_payload(self, call: Call, data: bytes, begin: int, end: int, flags: int) -> None:
        try:
            for body in call.take(data, begin, end, self._message_bytes_max):
                call.untaken_bytes += len(body)
                self._sink.take_message(call, body)
                if call.is_closed:
                    return
                # Only what was unpacked can be more than a message and what the window lets come.
                if call.untaken_bytes - len(body) > CALL_WINDOW + self._message_bytes_max:
                    raise CallError("body_too_large", "messages are not taken so quickly")
            if not flags & frames.END_STREAM:
                self._count(call)
                if self._held_bytes > HELD_BYTES_MAX:
                    raise CallError("body_too_large", HELD_TEXT)
        except CallError as error:
            call.is_half_closed = bool(flags & frames.END_STREAM)
            self._fail_call(call, error)
            return
        if flags & frames.END_STREAM:
            self._end_messages(call)
        elif call.is_within_message:
            self._acknowledge(call)

    def _end_messages(self, call: Call) -> None:
        call.is_half_closed = True
        if call.is_within_message:
            self._fail_call(call, CallError("malformed", "the call ends within a message"))
        else:
            self._sink.end_messages(call)

    # ---------------------------------------------------------------- headers

    def _take_continuation(self, stream: int, flags: int, payload: bytes) -> None:
        self._note_idle_frame()
        whole = self._blocks.go_on(stream, flags, payload)
        if whole is not None:
            self._take_block(stream, *whole)

    def _take_block(self, stream: int, flags: int, block: bytes) -> None:
        try:
            head = self._headers.read(block)
        except HeaderError as error:
            raise Http2Error(frames.COMPRESSION_ERROR, str(error)) from None
        if not stream & 1:
            raise Http2Error(frames.PROTOCOL_ERROR, f"stream {stream} is not a client's")
        if stream <= self._last_stream:
            self._take_trailers(stream, flags)
            return
        self._last_stream = stream
        if self._farewell.is_said:
            return  # GOAWAY has said that it is not looked at
        if len(self.calls) >= limits.CONNECTION_CALLS_MAX:
            self._note_idle_frame()
            self.out.append(frames.reset(stream, frames.REFUSED_STREAM))
            return
        call = self.calls[stream] = Call(stream, head, self.replies.call_window)
        if head.wrong is not None:
            self._refuse(call, flags)
            return
        self._sink.begin(call)
        if flags & frames.END_STREAM and not call.is_closed:
            self._end_messages(call)

    def _take_trailers(self, stream: int, flags: int) -> None:
        """A client may end its messages with trailers; gRPC has no use for what they say."""
        self._note_idle_frame()
        if not flags & frames.END_STREAM:
            raise Http2Error(frames.PROTOCOL_ERROR, f"stream {stream} begins a second time")
        call = self.calls.get(stream)
        if call is not None and not call.is_half_closed:
            self._end_messages(call)

    def _refuse(self, call: Call, flags: int) -> None:
        """A request that is no call of gRPC."""
        self._note_idle_frame()
        call.is_half_closed = bool(flags & frames.END_STREAM)
        head = call.head
        code = status.INVALID_ARGUMENT if head.http_status == 400 else status.UNKNOWN
        block = status_block(head.http_status) + trailers(code, head.wrong or "", ())
        self.out.append(frames.frame(frames.HEADERS, frames.END_FLAGS, call.stream, block))
        self._close(call, is_good=False)

    # ---------------------------------------------------------------- all other frames

    def _take_other(self, kind: int, stream: int, flags: int, payload: bytes) -> None:
        if len(payload) != _SIZES.get(kind, len(payload)):
            raise Http2Error(frames.FRAME_SIZE_ERROR, f"frame {kind} has {len(payload)} B")
        if kind == frames.WINDOW_UPDATE:
            self._take_window_update(stream, payload)
        elif kind == frames.CONTINUATION:
            self._take_continuation(stream, flags, payload)
        elif kind == frames.SETTINGS:
            self._take_settings(stream, flags, payload)
        elif kind == frames.PUSH_PROMISE:
            raise Http2Error(frames.PROTOCOL_ERROR, "a client does not push")
        else:  # what GOAWAY says changes nothing here, and unknown kinds are to be ignored
            self._note_idle_frame()
            if kind == frames.PING and not flags & frames.ACK:
                self.out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
            elif kind == frames.PING:
                self.out.append(self._farewell.take_answer(payload, self._last_stream))
            elif kind == frames.RST_STREAM:
                if not stream or stream > self._last_stream:
                    text = f"RST_STREAM on stream {stream}, which has not begun"
                    raise Http2Error(frames.PROTOCOL_ERROR, text)
                if stream in self.calls:
                    self._forget(self.calls[stream])

    def _take_window_update(self, stream: int, payload: bytes) -> None:
        size = frames.NUMBER.unpack(payload)[0] & frames.STREAM_MASK
        if stream > self._last_stream or (not stream and not size):
            text = f"WINDOW_UPDATE by {size} on stream {stream}"
            raise Http2Error(frames.PROTOCOL_ERROR, text)
        self._note_idle_frame()
        if not stream:
            self.replies.window += size
            if self.replies.window > frames.WINDOW_MAX:
                raise Http2Error(frames.FLOW_CONTROL_ERROR, "the connection's window is too large")
        elif stream in self.calls:
            call = self.calls[stream]
            if not size or call.window + size > frames.WINDOW_MAX:
                self._reset(call, frames.FLOW_CONTROL_ERROR if size else frames.PROTOCOL_ERROR)
                return
            self.replies.open_window(call, size)
        if self.replies.can_go_on:
            self.go_on()

    def _take_settings(self, stream: int, flags: int, payload: bytes) -> None:
        if stream or len(payload) % frames.SETTING.size or (flags & frames.ACK and payload):
            raise Http2Error(frames.FRAME_SIZE_ERROR, "SETTINGS cannot be read")
        self._note_idle_frame()
        if flags & frames.ACK:
            return
        if len(payload) > SETTINGS_MAX * frames.SETTING.size:
            raise Http2Error(frames.ENHANCE_YOUR_CALM, f"more than {SETTINGS_MAX} settings at once")
        said = dict(frames.SETTING.iter_unpack(payload))
        window = said.get(frames.SETTING_WINDOW)
        if window is not None and window != self.replies.call_window:
            self._note_idle_frame(1 + len(self.calls) // 16)
            most = max((call.window for call in self.calls.values()), default=0)
            if max(window, most + window - self.replies.call_window) > frames.WINDOW_MAX:
                raise Http2Error(frames.FLOW_CONTROL_ERROR, f"window {window} is too large")
            self.replies.set_call_window(window, self.calls.values())
        size = said.get(frames.SETTING_FRAME_BYTES_MAX, self.replies.frame_bytes_max)
        if not frames.FRAME_BYTES_MIN <= size <= frames.FRAME_BYTES_MAX:
            raise Http2Error(frames.PROTOCOL_ERROR, f"frames of {size} B are not allowed")
        self.replies.frame_bytes_max = size
        self.out.append(frames.SETTINGS_ACK)
        self.go_on()


#: Bytes of frames that always have as many.
_SIZES = {frames.WINDOW_UPDATE: 4, frames.RST_STREAM: 4, frames.PING: 8, frames.PRIORITY: 5}
