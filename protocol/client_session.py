"""The client's end of the client leg: request ids, the outstanding table, deadlines, lost brokers.

Rule 1: every submitted request ends exactly once, in `completed`: with the broker's reply, or with
a failure that this end makes itself, in the same form (a REPLY head in dialect NATIVE and a failure
body). The one exception is a cancelled request, which ends with nothing.
Rule 2: while there is no connection a request waits, unsent, for `patience_ms` at most; then it
fails with `broker_lost`. The pause of a broker's restart is so bridged, and nothing hangs.
Rule 3: when the connection breaks, what was sent fails at once with `broker_lost`: nobody knows
whether it ran. What was not sent yet waits for the next connection.
Rule 3a: a broker that drains refuses what is new, and has not run it. A patient session sends it
nothing more then: what is submitted waits for the next broker, for `drain_patience_ms`.
Rule 3b: a request that is on its way when the broker goes is lost. So a patient session asks each
broker to be told when it drains (DRAIN), and sends requests once it has agreed (HEARTBEAT).
Rule 4: the broker answers deadlines. This end only holds a net below: a request without a reply
`slack_ms` after its deadline fails here with `deadline_exceeded`.
Rule 4a: a ONE_WAY request has no reply. It ends, well, when it is given to the connection, and what
becomes of it then is not known here; without a connection it waits and fails as any other.
Rule 5: a reply to a request that has ended is dropped and counted.

    submitted -> WAITING (no connection, or not agreed) -> SENT -> ended
    submitted -> SENT (connection) -> ended
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from protocol import head as heads
from protocol import limits, native, status
from protocol.errors import RemoteProtocolError
from protocol.native import Buffer

NS_PER_MS = 1_000_000

STORY_LENGTH = 256

#: Deadlines are kept in buckets of 2**24 ns (17 ms): adding and removing one is a set operation,
#: and a request that ended leaves nothing behind. What is overdue is noticed one bucket late.
BUCKET_SHIFT = 24


@dataclass(frozen=True)
class ClientSettings:
    """What a client session is told once.

    is_patient: see rules 3a and 3b.
    requests_max: outstanding requests; one more is refused at once with `queue_full`.
    patience_ms: how long a request waits for a connection. drain_patience_ms: the same while the
    broker drains, for as long as its grace and a start take. slack_ms: how long after its deadline
    the broker's own DEADLINE_EXCEEDED may still be on its way.
    """

    requests_max: int = 65_536
    is_patient: bool = False
    budget_ms_default: int = limits.BUDGET_MS_DEFAULT
    patience_ms: int = 2_000
    drain_patience_ms: int = 15_000
    slack_ms: int = 250


class Completion(NamedTuple):
    """A request that ended: its id, the head of its reply, the body frames of its reply."""

    request_id: int
    head: bytes
    frames: Sequence[Buffer]


class ClientSession:
    """One client of one broker, without sockets, clock, threads and logging.

    Doors: `submit`, `cancel`, `connected`, `broker_lost`, `close`, `receive`, `handle_timer`,
    `next_timer_ns`; the shell sends and clears `outbox`, and hands out and clears `completed`.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        #: whether there is a connection, and requests may be sent
        self.is_connected = False
        #: messages ready to send, each a list of frames; no request while there is no connection
        self.outbox: list[list[Buffer]] = []
        #: requests that ended since the shell looked last
        self.completed: list[Completion] = []
        #: ONE_WAY requests may still be on their way out when the shell closes
        self.has_one_way = False
        #: replies to requests that had ended already
        self.replies_late = 0
        #: messages that broke the protocol, or that a broker does not send to a client
        self.messages_malformed = 0
        #: request id -> its bucket; every request that has not ended is here
        self._outstanding: dict[int, int] = {}
        #: bucket -> ids of the requests that are overdue when it ends
        self._buckets: dict[int, set[int]] = {}
        #: the keys of `_buckets`, as a heap
        self._bucket_heap: list[int] = []
        #: request id -> (since when it waits, when it is overdue once it is sent, its message), in
        #: submission order
        self._waiting: dict[int, tuple[int, int, list[Buffer]]] = {}
        #: the broker was asked whether it drains, and has not answered
        self._is_asking = False
        #: the broker drains: nothing more is sent to it
        self._is_held = False
        self._request_id = 0
        self._story: deque[tuple[Any, ...]] = deque(maxlen=STORY_LENGTH)

    @property
    def outstanding_count(self) -> int:
        """How many requests were submitted and have not ended."""
        return len(self._outstanding)

    # ------------------------------------------------------------ from the caller

    def submit(self, head: bytes, frames: Sequence[Buffer], now_ns: int) -> int:
        """Take a request; its number comes back, to be met again in `completed`.

        head: a REQUEST (or STATS) with `body_frames` and `budget_ms` set; its id is ours to set.
        """
        assert head[heads.BODY_FRAMES_OFFSET] == len(frames), heads.unpack(head)
        request_id = self._request_id = self._request_id + 1
        has_no_reply = head[heads.FLAGS_LOW_BYTE] & heads.FLAG_ONE_WAY
        held = len(self._outstanding) + (len(self.outbox) if has_no_reply else 0)
        if held >= self.settings.requests_max:
            limit = self.settings.requests_max
            text = f"enqueued requests count exceeds the limit {limit}"
            self.completed.append(failure(request_id, "queue_full", text))
            return request_id
        _, budget_ms = heads.RESTAMP.unpack_from(head, heads.REQUEST_ID_OFFSET)
        budget_ms = min(budget_ms or self.settings.budget_ms_default, limits.BUDGET_MS_MAX)
        net_ns = now_ns + (budget_ms + self.settings.slack_ms) * NS_PER_MS
        stamped = (
            head[: heads.REQUEST_ID_OFFSET]
            + heads.REQUEST_ID.pack(request_id)
            + head[heads.BUDGET_OFFSET :]
        )
        message = [stamped, *frames]
        if self.is_connected and has_no_reply:
            self._send_one_way(request_id, message)
        elif self.is_connected:
            self._add(request_id, net_ns)
            self.outbox.append(message)
        else:
            self._add(request_id, self._patience_end_ns(now_ns, net_ns))
            self._waiting[request_id] = (now_ns, net_ns, message)
        return request_id

    def _send_one_way(self, request_id: int, message: list[Buffer]) -> None:
        self.has_one_way = True
        self.outbox.append(message)
        sent = heads.Head(heads.REPLY, request_id=request_id)
        self.completed.append(Completion(request_id, heads.pack(sent), ()))

    def cancel(self, request_id: int) -> None:
        """End a request with nothing; the broker is told if it knows of it. Idempotent."""
        if not self._end(request_id):
            return
        if self._waiting.pop(request_id, None) is None:
            self.outbox.append([heads.pack(heads.Head(heads.CANCEL, request_id=request_id))])

    # ------------------------------------------------------------ from the connection

    def connected(self, now_ns: int) -> None:
        """There is a connection now; rule 3b says whether requests go out at once."""
        if self.is_connected or self._is_asking:
            return
        self._is_held = False
        if self.settings.is_patient:
            self._is_asking = True
            self.outbox.append([heads.pack(heads.Head(heads.DRAIN))])
        else:
            self._open(now_ns)

    def _open(self, now_ns: int) -> None:
        """What waited goes out, in the order of submission, with what is left of its budget."""
        self._story.append(("connected", len(self._waiting)))
        self.is_connected = True
        self._is_asking = False
        for request_id, (_, net_ns, message) in self._waiting.items():
            self._end(request_id)
            if is_one_way(message):
                self._send_one_way(request_id, message)
                continue
            self._add(request_id, net_ns)
            left_ms = (net_ns - now_ns) // NS_PER_MS - self.settings.slack_ms
            head = heads.restamp(bytes(message[0]), request_id, max(1, left_ms))
            self.outbox.append([head, *message[1:]])
        self._waiting.clear()

    def hold(self) -> None:
        """The broker drains: send it nothing more, and wait for the one that comes after it.

        Replies to what was sent before still come. Nothing happens without a connection.
        """
        if self.is_connected or self._is_asking:
            self._story.append(("hold", len(self._outstanding)))
            self.is_connected = self._is_asking = False
            self._is_held = True
            for request_id, (since_ns, net_ns, _) in self._waiting.items():
                self._end(request_id)
                self._add(request_id, self._patience_end_ns(since_ns, net_ns))

    def broker_lost(self) -> None:
        """The connection broke: rule 3."""
        self._story.append(("broker_lost", len(self._outstanding), len(self._waiting)))
        self.is_connected = self._is_asking = False
        self.outbox.clear()
        self._fail_sent("the connection to the broker broke before the reply came")

    def close(self, text: str) -> None:
        """The shell is about to close: what has not ended fails with `broker_lost`.

        One message is left in `outbox` that cancels all of it in the broker, which would else find
        out only when it has a reply and nobody to send it to. Idempotent.
        """
        self._story.append(("close", len(self._outstanding)))
        if not self._outstanding:
            self.is_connected = False
            return  # what `outbox` holds are last words
        self.outbox = [message for message in self.outbox if is_one_way(message)]
        sent = [i for i in self._outstanding if i not in self._waiting]
        if self.is_connected and sent:
            cancel = heads.Head(heads.CANCEL)
            self.outbox.append([heads.pack(cancel._replace(request_id=i)) for i in sent])
        self.is_connected = False
        self._waiting.clear()
        self._fail_sent(text)

    def _fail_sent(self, text: str) -> None:
        for request_id in [i for i in self._outstanding if i not in self._waiting]:
            self._fail(request_id, "broker_lost", text)

    def receive(self, parts: list[Any], now_ns: int) -> None:
        """Take one message of the broker: one or more replies.

        parts: its frames; a head is bytes, a body frame anything that is a buffer.
        """
        try:
            parcels = heads.split_parcels(parts)
        except RemoteProtocolError as error:
            self._malformed(str(error), now_ns)
            return
        for head, frames in parcels:
            if head[:4] == heads.REPLY_PREFIX:
                self._complete(head, frames)
            else:
                self._receive_other(head, frames, now_ns)

    def _complete(self, head: bytes, frames: Sequence[Buffer]) -> None:
        (request_id,) = heads.REQUEST_ID.unpack_from(head, heads.REQUEST_ID_OFFSET)
        if self.settings.is_patient and is_refused_by_draining(head, frames):
            # Here and not later: the next broker may be connected by then.
            self.hold()
        if self._end(request_id):
            self.completed.append(Completion(request_id, head, frames))
        else:
            self.replies_late += 1

    def _receive_other(self, head: bytes, frames: Sequence[Buffer], now_ns: int) -> None:
        command = head[3] if head[2] == heads.VERSION else None
        if command == heads.STATS:
            self._complete(head, frames)
        elif command == heads.DISCONNECT:
            self._story.append(("disconnect", now_ns))
            self._fail_sent("the broker ended the connection before the reply came")
        elif command == heads.DRAIN and self.settings.is_patient:
            self.hold()
        elif command == heads.HEARTBEAT:
            if self._is_asking:
                self._open(now_ns)
        else:
            self._malformed(f"version {head[2]}, command {head[3]}", now_ns)

    def _malformed(self, text: str, now_ns: int) -> None:
        self.messages_malformed += 1
        self._story.append(("malformed", text, now_ns))

    # ------------------------------------------------------------ time

    def handle_timer(self, now_ns: int) -> None:
        """End what is overdue. Early calls are harmless."""
        while self._bucket_heap and _bucket_end_ns(self._bucket_heap[0]) <= now_ns:
            bucket = heapq.heappop(self._bucket_heap)
            for request_id in sorted(self._buckets[bucket]):
                self._story.append(("overdue", request_id, now_ns))
                if request_id in self._waiting:
                    self._fail(request_id, "broker_lost", "there is no connection to the broker")
                else:
                    self._fail(request_id, "deadline_exceeded", "no reply came within the budget")
            del self._buckets[bucket]

    def next_timer_ns(self) -> int | None:
        """When to call `handle_timer` next; None while nothing can become overdue."""
        heap, buckets = self._bucket_heap, self._buckets
        while heap and not buckets[heap[0]]:
            del buckets[heapq.heappop(heap)]
        if not heap:
            return None
        return _bucket_end_ns(heap[0])

    # ------------------------------------------------------------ the tables

    def _patience_end_ns(self, since_ns: int, net_ns: int) -> int:
        """Until when a request waits for a connection: no longer than its budget."""
        settings = self.settings
        patience_ms = settings.drain_patience_ms if self._is_held else settings.patience_ms
        return min(since_ns + patience_ms * NS_PER_MS, net_ns - settings.slack_ms * NS_PER_MS)

    def _add(self, request_id: int, overdue_ns: int) -> None:
        bucket = overdue_ns >> BUCKET_SHIFT
        ids = self._buckets.get(bucket)
        if ids is None:
            self._buckets[bucket] = {request_id}
            heapq.heappush(self._bucket_heap, bucket)
        else:
            ids.add(request_id)
        self._outstanding[request_id] = bucket

    def _end(self, request_id: int) -> bool:
        bucket = self._outstanding.pop(request_id, None)
        if bucket is None:
            return False
        self._buckets[bucket].discard(request_id)
        return True

    def _fail(self, request_id: int, reason: str, text: str) -> None:
        self._waiting.pop(request_id, None)
        ended = self._end(request_id)
        assert ended, (request_id, self.story())
        self.completed.append(failure(request_id, reason, text))

    def check_invariants(self) -> None:
        """Assert that the tables agree with each other. Slow; for tests."""
        assert sorted(self._bucket_heap) == sorted(self._buckets)
        for request_id, bucket in self._outstanding.items():
            assert request_id in self._buckets[bucket], self.story()
        assert sum(map(len, self._buckets.values())) == len(self._outstanding)
        assert self._waiting.keys() <= self._outstanding.keys()
        assert not (self.is_connected and self._waiting), self.story()
        assert len(self._outstanding) <= self.settings.requests_max

    def story(self) -> list[tuple[Any, ...]]:
        """The last 256 events that were not plain requests and replies, oldest first."""
        return list(self._story)


def failure(request_id: int, reason: str, text: str) -> Completion:
    """A failure in the form of the broker's own: a REPLY in dialect NATIVE, status not OK."""
    code = status.REASONS[reason].grpc
    reply = heads.Head(heads.REPLY, status=code, request_id=request_id, body_frames=1)
    return Completion(request_id, heads.pack(reply), native.encode_failure(None, reason, text))


def is_one_way(message: Sequence[Buffer]) -> bool:
    """Whether a message of the outbox is a request without a reply."""
    return bool(message[0][heads.FLAGS_LOW_BYTE] & heads.FLAG_ONE_WAY)


def is_refused_by_draining(head: bytes, frames: Sequence[Buffer]) -> bool:
    """Whether a reply says that the broker goes down and has not run the request."""
    if not head[heads.STATUS_OFFSET] or head[:4] != heads.REPLY_PREFIX:
        return False
    if head[heads.DIALECT_OFFSET] != heads.DIALECT_NATIVE:
        return False
    try:
        return native.decode_failure(frames).reason == "draining"
    except RemoteProtocolError:
        return False


def _bucket_end_ns(bucket: int) -> int:
    return (bucket + 1) << BUCKET_SHIFT
