"""One gRPC call on its HTTP/2 stream: its messages put together from the data that comes. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from gateway.content_coding import CODINGS, inflated
from gateway.h2_frames import MESSAGE_HEAD, MESSAGE_HEAD_BYTES
from gateway.h2_headers import CallHead
from protocol import limits
from protocol.errors import RequestError
from protocol.native import Buffer

#: What we tell of it to who compresses otherwise.
ACCEPTED_ENCODINGS = "identity,gzip,deflate"


class CallError(Exception):
    """A call cannot go on; others of its connection can. reason: one of `status.REASONS`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class Call:
    """One call. owner: the shell's own, None until it has one."""

    __slots__ = (
        "_arriving",
        "_is_packed",
        "_missing",
        "counted_bytes",
        "end",
        "has_begun",
        "head",
        "is_closed",
        "is_half_closed",
        "owner",
        "stream",
        "unacknowledged",
        "unsent",
        "unsent_bytes",
        "untaken_bytes",
        "window",
    )

    def __init__(self, stream: int, head: CallHead, window: int) -> None:
        self.stream = stream
        self.head = head
        self.owner: object = None
        #: the client has said everything
        self.is_half_closed = False
        #: nothing more is sent or taken
        self.is_closed = False
        #: bytes that came and that the client has not been told of
        self.unacknowledged = 0
        #: bytes of messages that nobody has taken
        self.untaken_bytes = 0
        #: what the connection has counted of `held_bytes`
        self.counted_bytes = 0
        #: what may be sent on it
        self.window = window
        #: the reply's headers were sent
        self.has_begun = False
        #: messages that wait for the windows, with their heads
        self.unsent: deque[memoryview] = deque()
        self.unsent_bytes = 0
        #: the block that ends it, once that is known
        self.end: bytes | None = None
        #: the message that arrives: its head as far as it is here, then its bytes
        self._arriving = bytearray()
        #: bytes of it that are missing; 0 = its head is not complete
        self._missing = 0
        self._is_packed = False

    @property
    def is_within_message(self) -> bool:
        """A message has begun and is not complete."""
        return bool(self._missing or self._arriving)

    def take(self, data: bytes, begin: int, end: int, bytes_max: int) -> Iterator[Buffer]:
        """Take data[begin:end] of the stream. Gives the messages that are complete by it.

        bytes_max: of a message. A large one may be a view, which spares a copy. Raises: CallError;
        what came is not put together any further then.
        """
        arriving = self._arriving
        while begin < end:
            if not self._missing:
                if arriving or end - begin < MESSAGE_HEAD_BYTES:
                    taken = min(MESSAGE_HEAD_BYTES - len(arriving), end - begin)
                    arriving += data[begin : begin + taken]
                    begin += taken
                    if len(arriving) < MESSAGE_HEAD_BYTES:
                        break
                    is_packed, size = MESSAGE_HEAD.unpack(arriving)
                    arriving.clear()
                else:
                    is_packed, size = MESSAGE_HEAD.unpack_from(data, begin)
                    begin += MESSAGE_HEAD_BYTES
                if size > bytes_max:
                    raise _too_large(size, bytes_max)
                self._is_packed = bool(is_packed)
                if end - begin >= size:  # as nearly always: all of it is here
                    yield self._plain(data[begin : begin + size], bytes_max)
                    begin += size
                    continue
                self._missing = size
            taken = min(self._missing, end - begin)
            arriving += memoryview(data)[begin : begin + taken]
            self._missing -= taken
            begin += taken
            if not self._missing:
                if self._is_packed or len(arriving) < limits.TENSOR_INLINE_BYTES_MAX:
                    body = bytes(arriving)
                    arriving.clear()
                    yield self._plain(body, bytes_max)
                else:
                    self._arriving = bytearray()
                    yield memoryview(arriving)
                    arriving = self._arriving

    @property
    def held_bytes(self) -> int:
        """What lies here of it: messages that nobody has taken, and the one that arrives."""
        return self.untaken_bytes + len(self._arriving)

    def _plain(self, body: bytes, bytes_max: int) -> bytes:
        """The message as it was before it was compressed."""
        if not self._is_packed:
            return body
        wbits = CODINGS.get(self.head.encoding.encode("latin-1"))
        if wbits is None:
            raise CallError(
                "unsupported",
                f"grpc-encoding {self.head.encoding!r:.40} is not one of {ACCEPTED_ENCODINGS}",
            )
        try:
            return inflated(body, wbits, bytes_max, "a message")
        except RequestError as error:
            if error.reason == "body_too_large":
                raise _too_large(bytes_max + 1, bytes_max) from None
            raise CallError(error.reason, error.message) from None


def _too_large(size: int, bytes_max: int) -> CallError:
    """The text that clients know from grpcio."""
    text = f"SERVER: Received message larger than max ({size} vs. {bytes_max})"
    return CallError("body_too_large", text)
