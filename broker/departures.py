"""Clients that are gone without a word: killed, or cut off.

ZeroMQ tells that some connection ended, not whose; and that a client is gone it tells only to who
sends something there. A reply would find it out, but the worker may be busy for long, and what the
client had queued would be computed for nobody until then. So after connections have ended, a
HEARTBEAT goes to each client that waits for replies, and whoever cannot be reached has left.
Clients without the COALESCE flag get none: they expect nothing but their replies.
"""

from __future__ import annotations

import zmq

from broker.core import Core
from protocol import head as heads
from protocol.sockets import IN, events_of, send_frames

#: Between the end of a connection and the look at who is gone, so that ZeroMQ has let go of it; and
#: however many connections end, there are not more looks than that.
LOOK_AFTER_NS = 100_000_000

PROBE = heads.pack(heads.Head(heads.HEARTBEAT))


class Departures:
    """Watches the connections of the socket that clients connect to."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        """Call it before the socket is bound."""
        self._socket = socket
        #: readable when connections have ended; `look` empties it
        self.monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        #: when to look at who is gone, None while no connection has ended
        self.due_ns: int | None = None

    def look(self, core: Core, now_ns: int) -> list[bytes]:
        """The clients that turn out to be gone now."""
        while events_of(self.monitor) & IN:
            self.monitor.recv_multipart(zmq.NOBLOCK)
            if self.due_ns is None:
                self.due_ns = now_ns + LOOK_AFTER_NS
        if self.due_ns is None or now_ns < self.due_ns:
            return []
        self.due_ns = None
        return [client for client in who_understands(core) if not self._reaches(client)]

    def _reaches(self, client: bytes) -> bool:
        try:
            send_frames(self._socket, (client, PROBE))
        except zmq.Again:
            pass  # there, and slow
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True


def who_understands(core: Core) -> list[bytes]:
    """Clients of the socket that have requests here and take more than replies."""
    found: list[bytes] = []
    for client, outstanding in core._clients.items():
        waits = (each for each in outstanding.values() if not core.outlives_client(each))
        request = next(waits, None)
        if request is None or not isinstance(client, bytes):
            continue
        if request.head[heads.FLAGS_LOW_BYTE] & heads.FLAG_COALESCE:
            found.append(client)
    return found
