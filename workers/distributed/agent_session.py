"""An agent's side of its group: it registers one rank, answers heartbeats and takes batches. Pure.

    REGISTERING ──heartbeat──► MEMBER        either ──EXIT, silence──► gone (`end_reason` is set)

An agent never returns to a group: one that is gone ends, and its launcher joins the next group.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol import limits
from protocol.errors import RemoteProtocolError
from protocol.group import (
    Exit,
    Graph,
    Heartbeat,
    Message,
    Outcome,
    Predict,
    Register,
    pack,
    unpack,
)
from protocol.native import Buffer

NS_PER_MS = 1_000_000

_INTERVAL_NS = limits.GROUP_HEARTBEAT_INTERVAL_MS * NS_PER_MS
_SILENCE_NS = limits.GROUP_LIVENESS * _INTERVAL_NS


class AgentSession:
    """The machine of one agent. address: the worker's, for texts."""

    def __init__(
        self, epoch: str, rank: int, graphs: tuple[Graph, ...], address: str, now_ns: int
    ) -> None:
        #: The worker knows this rank.
        self.is_member = False
        #: Why the agent has to end; empty before.
        self.end_reason = ""
        #: Batches that came, in order; the shell clears it.
        self.arrivals: list[Predict] = []
        #: Messages to send; the shell clears it.
        self.outbox: list[list[Buffer]] = []
        self._register = Register(epoch, rank, graphs)
        self._address = address
        self._heard_ns = now_ns
        self._register_ns = now_ns

    def receive(self, frames: Sequence[Buffer], now_ns: int) -> None:
        """Take a message of the worker."""
        try:
            message = unpack(frames)
        except RemoteProtocolError as error:
            self._end(f"the worker broke the protocol: {error}")
            return
        self._heard_ns = now_ns
        match message:
            case Exit():
                self._end(message.reason)
            case Heartbeat() if message.epoch == self._register.epoch:
                self.is_member = True
                self._send(Heartbeat(self._register.epoch))
            case Predict() if message.epoch == self._register.epoch and self.is_member:
                self.arrivals.append(message)
            case _:
                self._end(f"unexpected {type(message).__name__} of epoch {message.epoch}")

    def complete(self, outcome: Outcome) -> None:
        """Answer a batch."""
        self._send(outcome)

    def next_timer_ns(self) -> int:
        """When `handle_timer` is due."""
        silence_ns = self._heard_ns + _SILENCE_NS
        return silence_ns if self.is_member else min(silence_ns, self._register_ns)

    def handle_timer(self, now_ns: int) -> None:
        """Register again, or notice that the worker is gone."""
        if now_ns - self._heard_ns >= _SILENCE_NS:
            self._end(f"Recv Ping Time Out from {self._address}")
        elif not self.is_member and now_ns >= self._register_ns:
            self._register_ns = now_ns + _INTERVAL_NS
            self._send(self._register)

    def _end(self, reason: str) -> None:
        self.end_reason = self.end_reason or reason or "the worker has ended"

    def _send(self, message: Message) -> None:
        self.outbox.append(pack(message))
