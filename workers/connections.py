"""What carries messages between a worker and its broker: a link on one host, else ZeroMQ."""

from __future__ import annotations

from typing import Protocol

import zmq

from protocol import limits
from protocol.link_socket import LinkSocket
from protocol.native import Buffer
from protocol.sockets import IN, Again, events_of, receive_frames, send_frames

#: Messages that are received before timers and the outbox get their turn.
RECEIVE_PER_LOOK_MAX = 256

#: Peers that stay mute in the ZMTP handshake (field survey: libzmq's 30 s is too patient).
HANDSHAKE_MS = 5_000


class Connection(Protocol):
    """A connection; one thread at a time."""

    #: `receive` has left something, which its descriptor may not tell
    may_have_more: bool

    @property
    def has_unsent(self) -> bool:
        """It holds what it has taken; its descriptor tells when `send` gets it further."""

    @property
    def is_within_message(self) -> bool:
        """A message has begun to come, and more of it may be there."""

    def fileno(self) -> int:
        """The descriptor to wait for."""

    def receive(self, is_there: bool, /) -> list[list[Buffer]]:
        """What has come. is_there: something has, most likely.

        Raises: LinkLostError when it has ended, RemoteProtocolError.
        """

    def send(self, outbox: list[list[Buffer]]) -> None:
        """Send messages, and take those out that need not be given again."""

    def close(self, linger_ms: int, /) -> None:
        """Close it. linger_ms: for what was sent and has not left."""


class Opening(Protocol):
    """Opens connections to one broker."""

    address: str

    def connect(self) -> Connection:
        """A new one. Raises OSError if no broker is there."""

    def close(self) -> None:
        """There will be no more."""


class LinkConnection:
    """A link."""

    may_have_more = False  # its descriptor always tells

    def __init__(self, path: str) -> None:
        self._link = LinkSocket.connect(path)
        self.fileno = self._link.fileno

    @property
    def has_unsent(self) -> bool:
        """See `Connection`."""
        return self._link.has_unsent

    @property
    def is_within_message(self) -> bool:
        """See `Connection`."""
        return self._link.is_within_message

    def receive(self, _is_there: bool) -> list[list[Buffer]]:
        """See `Connection`."""
        return self._link.receive()

    def send(self, outbox: list[list[Buffer]]) -> None:
        """See `Connection`."""
        if self._link.has_unsent:
            self._link.send_rest()
        for message in outbox:
            self._link.send(message)
        outbox.clear()

    def close(self, _linger_ms: int) -> None:
        """See `Connection`; what was sent arrives in any case."""
        self._link.close()


class LinkOpening:
    """Connects to the link of a broker of this host."""

    def __init__(self, path: str) -> None:
        self.address = path

    def connect(self) -> LinkConnection:
        """See `Opening`."""
        return LinkConnection(self.address)

    def close(self) -> None:
        """See `Opening`."""


class DealerConnection:
    """A DEALER. It connects when a broker is there, and keeps what is sent until then."""

    has_unsent = False  # what it does not take stays in the outbox
    is_within_message = False  # messages come whole

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        socket = self._socket = context.socket(zmq.DEALER)
        self.may_have_more = False
        socket.set(zmq.LINGER, 0)
        # Not IMMEDIATE: libzmq then drops what was received and not yet read when a broker closes,
        # which would be its goodbye. READY is the first message, for every offer has a new socket.
        socket.set(zmq.SNDHWM, 2 * limits.CREDIT_MAX)
        socket.set(zmq.RCVHWM, 2 * limits.CREDIT_MAX)
        socket.set(zmq.MAXMSGSIZE, limits.BODY_BYTES_MAX)
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.set(zmq.HEARTBEAT_IVL, limits.HEARTBEAT_INTERVAL_MS)
        silence_ms = limits.HEARTBEAT_INTERVAL_MS * limits.HEARTBEAT_LIVENESS
        socket.set(zmq.HEARTBEAT_TIMEOUT, silence_ms)
        socket.set(zmq.HEARTBEAT_TTL, silence_ms)
        socket.set(zmq.TCP_KEEPALIVE, 1)
        socket.connect(address)

    def fileno(self) -> int:
        """See `Connection`. It is readable at each edge only; `receive` takes that."""
        return int(self._socket.get(zmq.FD))

    def receive(self, is_there: bool) -> list[list[Buffer]]:
        """See `Connection`."""
        socket = self._socket
        messages: list[list[Buffer]] = []
        self.may_have_more = False
        if not (is_there or events_of(socket) & IN):
            return messages
        try:
            while len(messages) < RECEIVE_PER_LOOK_MAX:
                parts = receive_frames(socket)
                messages.append([part if type(part) is bytes else _view(part) for part in parts])
                if not events_of(socket) & IN:
                    return messages
            self.may_have_more = True
        except Again:
            pass
        return messages

    def send(self, outbox: list[list[Buffer]]) -> None:
        """See `Connection`. Large frames are lent to libzmq; small ones are cheaper copied."""
        sent = 0
        try:
            for message in outbox:
                is_small = sum(map(len, message)) < limits.TENSOR_INLINE_BYTES_MAX
                send_frames(self._socket, message, is_small)
                sent += 1
        except Again:
            pass
        del outbox[:sent]

    def close(self, linger_ms: int) -> None:
        """See `Connection`."""
        self._socket.close(linger=linger_ms)


class DealerOpening:
    """Connects to a broker over ZeroMQ. linger_ms: at the end, for what was sent."""

    def __init__(self, address: str, linger_ms: int) -> None:
        self.address = address
        self._linger_ms = linger_ms
        self._is_shared = address.startswith("inproc:")
        self._context = zmq.Context.instance() if self._is_shared else zmq.Context()

    def connect(self) -> DealerConnection:
        """See `Opening`."""
        return DealerConnection(self._context, self.address)

    def close(self) -> None:
        """See `Opening`."""
        if not self._is_shared:
            self._context.destroy(linger=self._linger_ms)


def _view(frame: zmq.Frame) -> Buffer:
    """A frame that came in a parcel with FLAG_BODY_LARGE: a view if it is worth one."""
    is_large = len(frame) >= limits.TENSOR_INLINE_BYTES_MAX
    return frame.buffer if is_large else frame.bytes
