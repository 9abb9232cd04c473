"""What a client sends beside requests: CANCEL, DRAIN, HEARTBEAT and STATS. All of it is rare."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from broker.stats import describe
from protocol import head as heads
from protocol import native

if TYPE_CHECKING:
    from broker.core import Core


class ClientCommands:
    """The commands of clients of one core, by their numbers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._receivers: dict[int, Callable[[Hashable, bytes, int], None]] = {
            heads.CANCEL: self._cancel,
            heads.DRAIN: self._watch,
            heads.HEARTBEAT: self._probe,
            heads.STATS: self._stats,
        }

    def receive(self, client: Hashable, head: bytes, now_ns: int) -> None:
        """Take a parcel that is no request of this version."""
        if head[2] != heads.VERSION:
            message = f"protocol version {head[2]} is not {heads.VERSION}"
            return self._core.refuse(client, head, "unsupported", message)
        receive = self._receivers.get(head[3])
        if receive is None:
            message = f"command {head[3]} is not one that a client sends"
            return self._core.refuse(client, head, "malformed", message)
        return receive(client, head, now_ns)

    def _cancel(self, client: Hashable, head: bytes, now_ns: int) -> None:
        (request_id,) = heads.REQUEST_ID.unpack_from(head, heads.REQUEST_ID_OFFSET)
        self._core.cancel(client, request_id, now_ns)

    def _probe(self, client: Hashable, head: bytes, _now_ns: int) -> None:
        self._core.outbox.to_clients.append((client, [head[:22] + b"\0" + head[23:]]))

    def _stats(self, client: Hashable, head: bytes, now_ns: int) -> None:
        body = native.pack_meta(describe(self._core, now_ns))
        self._core.outbox.to_clients.append((client, [head[:22] + b"\1" + head[23:], body]))

    def _watch(self, client: Hashable, _head: bytes, _now_ns: int) -> None:
        self._core.watchers.add(client, self._core.admission.is_draining)
