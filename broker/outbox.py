"""Messages that the core has ready: what belongs to one peer in one wake-up is one message."""

from __future__ import annotations

from collections.abc import Hashable

from broker.service import Frame
from protocol import control, native, status
from protocol import head as heads

ClientMessages = list[tuple[Hashable, list[Frame]]]
WorkerMessages = dict[bytes, list[Frame]]

#: What decides whether a reply is sent, and how.
FLAGS_LOW_BYTE = heads.FLAGS_LOW_BYTE
FLAG_COALESCE = heads.FLAG_COALESCE
REPLY_FLAGS = heads.FLAG_COALESCE | heads.FLAG_ONE_WAY


class Outbox:
    """Replies for clients and requests for workers, until the shell takes them."""

    def __init__(self) -> None:
        #: (client, frames), in the order of sending
        self.to_clients: ClientMessages = []
        #: routing id -> frames of one message
        self.to_workers: WorkerMessages = {}
        #: client -> its message in `to_clients` that further replies may join
        self._open: dict[Hashable, list[Frame]] = {}

    def reply(
        self, client: Hashable, request_head: bytes, head: bytes, frames: list[Frame]
    ) -> None:
        """Put a reply, unless none is wanted; it joins an earlier one if the flags allow that."""
        flags = request_head[FLAGS_LOW_BYTE] & REPLY_FLAGS
        if flags != FLAG_COALESCE:
            if not flags:
                self.to_clients.append((client, [head, *frames]))
            return
        message = self._open.get(client)
        if message is None:
            message = self._open[client] = []
            self.to_clients.append((client, message))
        message.append(head)
        message.extend(frames)

    def fail(self, client: Hashable, request_head: bytes, reason: str, text: str) -> None:
        """Put a reply that fails as a whole, in the native dialect, if one is asked for."""
        if request_head[heads.FLAGS_LOW_BYTE] & heads.FLAG_ONE_WAY:
            return
        frames = native.encode_failure(None, reason, text)
        (request_id,) = heads.REQUEST_ID.unpack_from(request_head, heads.REQUEST_ID_OFFSET)
        code = status.REASONS[reason].grpc
        head = heads.Head(heads.REPLY, status=code, request_id=request_id, body_frames=1)
        self.reply(client, request_head, heads.pack(head), list(frames))

    def dispatch(self, routing_id: bytes, head: bytes, frames: list[Frame]) -> None:
        """Put a request into the worker's next message."""
        message = self.to_workers.get(routing_id)
        if message is None:
            self.to_workers[routing_id] = [head, *frames]
        else:
            message.append(head)
            message.extend(frames)

    def control(self, routing_id: bytes, message: control.Control) -> None:
        """Put a control parcel into the worker's next message."""
        self.to_workers.setdefault(routing_id, []).extend(control.pack(message))

    def take(self) -> tuple[ClientMessages, WorkerMessages]:
        """Hand over what is to be sent, and begin empty again."""
        messages = self.to_clients, self.to_workers
        self.to_clients, self.to_workers, self._open = [], {}, {}
        return messages

    def __bool__(self) -> bool:
        return bool(self.to_clients or self.to_workers)
