"""Who is told of the calls of an HTTP/2 connection. Pure."""

from __future__ import annotations

from typing import Protocol

from gateway.h2_call import Call
from protocol.native import Buffer


class CallSink(Protocol):
    """Every method is called while bytes of a client are taken, or the windows open."""

    def begin(self, call: Call) -> None:
        """A call came; its messages follow."""

    def take_message(self, call: Call, body: Buffer) -> None:
        """A whole message of a call. Raises CallError if it is one too many."""

    def end_messages(self, call: Call) -> None:
        """There are no more messages of a call."""

    def note_sent(self, call: Call) -> None:
        """Nothing of what a stream has sent waits any more."""

    def drop(self, call: Call) -> None:
        """A call that had begun is over before its reply: its client left it, or broke a rule."""
