"""Idempotency keys: what is sent again under its key is not executed again. Pure.

A client that got no reply, because its connection or its patience ended, sends the request again,
from whichever socket, under the key that it gave the first one. Then

  - while the first one waits or runs, the second takes its place: the answer goes to who asked
    last, and who asked before is told `cancelled`;
  - once it was answered well, the answer is given again, as long as it is remembered;
  - else it is executed, as if it were the first.

A request with a key stays when its client leaves: it is expected to come back. Only answers with
status OK are remembered, for `ANSWERS_MS` and up to `ANSWERS_BYTES_MAX`, the oldest go first.

Rule: a key stands for at most one request that is held, or for one answer, never for both.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

from broker.book import enter
from broker.service import Frame, Request
from protocol import head as heads
from protocol import limits, mdp, status

if TYPE_CHECKING:
    from broker.core import Core

NS_PER_MS = 1_000_000

#: What an answer takes in memory beside its bytes.
ANSWER_OVERHEAD_BYTES = 512

#: A request and another one under the same key must agree in these: service, method, dialect, and
#: the sizes of the body frames. Bytes are not compared: a body may have half a gigabyte of them.
Likeness = tuple[Any, ...]


class Answer(NamedTuple):
    """A reply that is given again. until_ns: for how long."""

    head: bytes
    frames: list[Frame]
    likeness: Likeness
    size: int
    until_ns: int


class Keys:
    """The keys of one core: of requests that are held, and of answers that are remembered."""

    def __init__(self, core: Core) -> None:
        self._core = core
        #: requests that have a key and are not done
        self.running: dict[Request, bytes] = {}
        #: the same by their keys, each with what another one must agree in
        self.requests: dict[bytes, tuple[Request, Likeness]] = {}
        #: in the order in which they were given, which is that of their ends
        self.answers: dict[bytes, Answer] = {}
        self.answer_bytes = 0

    def receive(self, client: Hashable, head: bytes, frames: list[Frame], now_ns: int) -> None:
        """Take a request with a key, which is its last body frame."""
        key = bytes(frames[-1]) if frames else b""
        if not 1 <= len(key) <= limits.KEY_BYTES_MAX:
            rule = f"a key of {len(key)} B is not of 1 to key_bytes_max {limits.KEY_BYTES_MAX} B"
            return self._core.refuse(client, head, "malformed", rule)
        head, frames = _without_key(head), frames[:-1]
        (request_id,) = heads.REQUEST_ID.unpack_from(head, heads.REQUEST_ID_OFFSET)
        likeness = _likeness(client, head, frames)
        answer = self._remembered(key, now_ns)
        known, expected = self.requests.get(key, (None, likeness))
        if (answer.likeness if answer is not None else expected) != likeness:
            rule = "the key is that of a request for another service or method, or of another size"
            return self._core.refuse(client, head, "malformed", rule)
        if answer is not None:
            self._core.counters.replayed += 1
            stamped = heads.restamp(answer.head, request_id, 0)
            return self._core.outbox.reply(client, head, stamped, answer.frames)
        if known is not None:
            return self._hand_over(known, client, request_id, head, now_ns)
        self._core.receive_request(client, head, frames, now_ns)
        request = self._core.request_of(client, request_id)
        if request is not None and request.head is head:
            self.running[request] = key
            self.requests[key] = (request, likeness)
        return None

    def _hand_over(
        self, request: Request, client: Hashable, request_id: int, head: bytes, now_ns: int
    ) -> None:
        """Who asks now takes the place of who asked before."""
        core = self._core
        if core.request_of(client, request_id) is not None:
            core.counters.duplicates += 1
            return
        core.counters.cancelled += 1
        enter(request, status.CANCELLED, now_ns)
        core.outbox.fail(request.client, request.head, "cancelled", "it was asked for again")
        core._deadlines.discard(request)
        del core._clients[request.client][request.request_id]
        if not core._clients[request.client]:
            del core._clients[request.client]
        # Its place in line is that of its first level.
        level = request.head[heads.FLAGS_LOW_BYTE] & heads.FLAGS_PRIORITY
        request.head = heads.with_flag(heads.without_flag(head, heads.FLAGS_PRIORITY), level)
        request.client = client
        request.request_id, budget_ms = heads.RESTAMP.unpack_from(head, heads.REQUEST_ID_OFFSET)
        budget_ms = min(budget_ms or core.settings.budget_ms_default, limits.BUDGET_MS_MAX)
        request.deadline_ns = now_ns + budget_ms * NS_PER_MS
        core._clients.setdefault(client, {})[request_id] = request
        core._deadlines.add(request)
        core.counters.accepted += 1

    def remember(self, request: Request, head: bytes, frames: list[Frame], now_ns: int) -> None:
        """A worker has answered a request. Nothing happens if it has no key."""
        key = self.running.get(request)
        if key is None or head[heads.STATUS_OFFSET] != status.OK:
            return
        size = sum(map(len, frames)) + len(head) + len(key) + ANSWER_OVERHEAD_BYTES
        if size > limits.ANSWERS_BYTES_MAX:
            return
        _, likeness = self.requests[key]
        until_ns = now_ns + limits.ANSWERS_MS * NS_PER_MS
        self.answers[key] = Answer(head, frames, likeness, size, until_ns)
        self.answer_bytes += size
        while self.answer_bytes > limits.ANSWERS_BYTES_MAX:
            self._forget_first()

    def end(self, request: Request) -> None:
        """A request is done. Nothing happens if it has no key."""
        key = self.running.pop(request, None)
        if key is not None:
            del self.requests[key]

    def _remembered(self, key: bytes, now_ns: int) -> Answer | None:
        while self.answers and self.answers[next(iter(self.answers))].until_ns <= now_ns:
            self._forget_first()
        return self.answers.get(key)

    def _forget_first(self) -> None:
        self.answer_bytes -= self.answers.pop(next(iter(self.answers))).size


def _without_key(head: bytes) -> bytes:
    at = heads.BODY_FRAMES_OFFSET
    fewer = head[:at] + bytes((head[at] - 1,)) + head[at + 1 :]
    return heads.without_flag(fewer, heads.FLAG_KEYED)


def _likeness(client: Hashable, head: bytes, frames: list[Frame]) -> Likeness:
    sizes = [len(frame) for frame in frames]
    if isinstance(client, mdp.Caller):
        sizes[0] = 0  # it holds the caller's id and budget, too, which may differ
    names = heads.service_of(head), heads.method_of(head)
    return (*names, head[heads.DIALECT_OFFSET], *sizes)
