"""The DEALER socket of a client session: opened, filled from the outbox, emptied into the session.

Shared by every shell around `ClientSession`: the event loop of a gateway (`remote_bus`), the thread
of a direct client, an extra worker's device thread. Nothing here waits, and nothing decides. It,
`sockets` and `link_socket` are the shells of this room.
"""

from __future__ import annotations

import time

import zmq
from zmq.utils.monitor import parse_monitor_message

from protocol import head as heads
from protocol import limits
from protocol.client_session import ClientSession
from protocol.sockets import IN, OUT, Again, events_of, receive_frames, send_frames

#: Messages taken from the socket before the callers get their replies.
RECEIVE_PER_WAKEUP_MAX = 256

#: Pause before a lost broker is tried again, and the longest such pause.
RECONNECT_MS = 20
RECONNECT_MS_MAX = 500

#: A broker that accepts and then stays mute is given up after this long (libzmq: 30 s).
HANDSHAKE_MS = 5_000

#: The last words of a client, its CANCEL, may take so long to leave when it closes; requests that
#: nobody waits for may take longer, for they would be lost without a word.
LINGER_MS = 100
ONE_WAY_LINGER_MS = 2_000

MONITORED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


class Dealer:
    """One DEALER connected to a broker, and the monitor that tells when it is.

    address: `ipc://path` or `tcp://host:port`. Not thread-safe.
    Raises: ValueError naming the address if ZeroMQ cannot understand it.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        # Not IMMEDIATE: libzmq then drops what was received and not yet read when a broker closes,
        # which would be the last replies of one that was told to go.
        self.socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        self.socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
        self.socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self.socket.set(zmq.MAXMSGSIZE, limits.BODY_BYTES_MAX)
        # The session bounds what is outstanding; unread replies must never stop the broker.
        self.socket.set(zmq.RCVHWM, 0)
        interval_ms = limits.HEARTBEAT_INTERVAL_MS
        self.socket.set(zmq.HEARTBEAT_IVL, interval_ms)
        self.socket.set(zmq.HEARTBEAT_TIMEOUT, interval_ms * limits.HEARTBEAT_LIVENESS)
        self.monitor = self.socket.get_monitor_socket(MONITORED)
        self.monitor.linger = 0
        self._address = address
        try:
            self.socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"address {address!r} of a broker: {error}") from None

    def receive_into(self, session: ClientSession) -> bool:
        """Hand over what has come. Returns whether there may be more: then call again soon."""
        if self._receive(session):
            return True
        while events_of(self.monitor) & IN:
            event = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                session.connected(time.monotonic_ns())
            elif event == zmq.EVENT_DISCONNECTED:
                # Replies that came before the connection broke count, also those that came since
                # the socket was found empty.
                while self._receive(session):
                    pass
                session.broker_lost()
                self._connect_again()
        return False

    def _connect_again(self) -> None:
        # libzmq does so by itself, but would send what is queued to the next broker: requests that
        # have failed by now.
        self.socket.disconnect(self._address)
        self.socket.connect(self._address)

    def _receive(self, session: ClientSession) -> bool:
        """Hand over messages, up to a limit. Returns whether the socket may have more."""
        now_ns = time.monotonic_ns()
        for _ in range(RECEIVE_PER_WAKEUP_MAX):
            try:
                parts = receive_frames(self.socket)
            except Again:
                return False
            if _is_large(parts[0]):
                parts = [part if type(part) is bytes else part.buffer for part in parts]
            session.receive(parts, now_ns)
        return True

    def send_from(self, session: ClientSession) -> bool:
        """Send what is ready. Returns whether everything went out; if not, the pipe is full."""
        outbox = session.outbox
        sent = 0
        try:
            for message in outbox:
                send_frames(self.socket, message, not _is_large(message[0]))
                sent += 1
        except Again:
            pass
        del outbox[:sent]
        return not outbox

    def can_send(self) -> bool:
        """Whether the pipe takes messages again."""
        return bool(events_of(self.socket) & OUT)

    def can_receive(self) -> bool:
        """Whether a message or an event of the monitor is there to be taken."""
        return bool((events_of(self.socket) | events_of(self.monitor)) & IN)

    def close(self, session: ClientSession | None = None) -> None:
        """Close both sockets. What `session` left to send has a moment to leave."""
        linger_ms = 0
        if session is not None and (session.outbox or session.has_one_way):
            linger_ms = ONE_WAY_LINGER_MS if session.has_one_way else LINGER_MS
            self.send_from(session)
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=linger_ms)


def _is_large(head: bytes | memoryview) -> bool:
    if len(head) < heads.FIXED_BYTES:
        return False
    return bool(head[heads.FLAGS_LOW_BYTE] & heads.FLAG_BODY_LARGE)
