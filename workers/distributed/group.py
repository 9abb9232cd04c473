"""The group of a distributed servable, as its worker sees it: claimed, registered, computing, over.

    FORMING ──every rank registered──► READY
       └──────────────┬───────────────────┘
                      ▼ a rank, or its launcher, is lost; a rank gives no answer; time is over
                    ENDED

Rules
1. A group lives once. Whatever goes wrong with one rank ends it for all: the others may be caught
   in a collective operation that never completes. Its worker ends, too, and the worker that the
   supervisor starts next forms a new group under a new epoch.
2. Every rank is asked for every batch, in the same order, so collective operations meet. The last
   rank gives the result. A batch is over when every rank has answered, well or not.
3. A batch that fails on some rank fails alone: all ranks have come to rest by then.
4. Who speaks of another epoch, or speaks nonsense, is told EXIT and otherwise ignored.
5. What a batch still waits for when the group ends is not answered: the worker ends, and the
   broker gives its requests to the next one. Only a batch that some rank has kept too long is
   failed before, so that a request that hangs its ranks does not do so again.

Pure: a shell delivers messages, calls `handle_timer`, and sends what is in `outbox`.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol import limits
from protocol.errors import RemoteProtocolError
from protocol.group import (
    Array,
    Claim,
    Exit,
    Graph,
    Heartbeat,
    Message,
    Outcome,
    Plan,
    Predict,
    RankLost,
    Register,
    pack,
    unpack,
)
from protocol.native import Buffer
from workers.distributed.members import Batch, GroupSettings, Launcher, Prediction, Rank
from workers.distributed.signatures import SignatureError, group_signature

NS_PER_MS = 1_000_000

FORMING = "FORMING"
READY = "READY"
ENDED = "ENDED"

_HEARTBEAT_NS = limits.GROUP_HEARTBEAT_INTERVAL_MS * NS_PER_MS
_SILENCE_NS = limits.GROUP_LIVENESS * _HEARTBEAT_NS

#: A launcher that claims once a second and was silent this long may be replaced by another.
_CLAIM_NS = 3 * _HEARTBEAT_NS


class Group:
    """The machine; see the module. Doors: receive, predict, handle_timer, leave."""

    def __init__(self, settings: GroupSettings, now_ns: int) -> None:
        self.state = FORMING
        #: Why the group ended; empty before.
        self.failure = ""
        #: What the ranks compute together, by subgraph; there from READY on.
        self.signature: tuple[Graph, ...] = ()
        #: Messages to send, each behind the routing id of its receiver; the shell clears it.
        self.outbox: list[list[Buffer]] = []
        #: Batches that are over; the shell clears it.
        self.finished: list[Prediction] = []
        #: What a log should say, as (text, is it a warning); the shell clears it.
        self.notes: list[tuple[str, bool]] = []
        self._settings = settings
        self._launchers: dict[bytes, Launcher] = {}
        self._scheduler = ""
        self._ranks: dict[int, Rank] = {}
        self._rank_of: dict[bytes, int] = {}
        self._batches: dict[int, Batch] = {}
        self._beat_ns = now_ns
        self._limit_ns = None if settings.wait_ns is None else now_ns + settings.wait_ns

    @property
    def rank_size(self) -> int:
        """How many ranks the group has when it is complete."""
        return len(self._settings.places)

    @property
    def agents_count(self) -> int:
        """How many ranks have registered."""
        return len(self._ranks)

    @property
    def addresses(self) -> list[bytes]:
        """Routing ids of all launchers and agents."""
        return [*self._launchers, *self._rank_of]

    # ------------------------------------------------------------ in

    def receive(self, routing_id: bytes, frames: Sequence[Buffer], now_ns: int) -> None:
        """Take a message of anybody."""
        if self.state == ENDED:
            return
        try:
            message = unpack(frames)
        except RemoteProtocolError as error:
            self._dismiss(routing_id, f"not a message of this protocol: {error}")
            return
        if isinstance(message, Claim) and not message.epoch:
            self._answer(routing_id, has_plan=True)
        elif message.epoch != self._settings.epoch:
            self._receive_from_other_group(routing_id, message)
        else:
            self._receive_member(routing_id, message, now_ns)

    def _receive_from_other_group(self, routing_id: bytes, message: Message) -> None:
        """A launcher learns of this group from the answer; an agent of another one has to end."""
        if isinstance(message, Claim):
            self._answer(routing_id, has_plan=True)
        elif not isinstance(message, RankLost):
            self._dismiss(routing_id, f"epoch {message.epoch} is over")

    def _receive_member(self, routing_id: bytes, message: Message, now_ns: int) -> None:
        rank = self._rank_of.get(routing_id)
        if rank is not None:
            self._ranks[rank].heard_ns = now_ns
        match message:
            case Claim():
                self._receive_claim(routing_id, message, now_ns)
            case RankLost():
                self._receive_lost(routing_id, message)
            case Register():
                self._receive_register(routing_id, message, now_ns)
            case Outcome() if rank is not None:
                self._receive_outcome(rank, message, now_ns)
            case Heartbeat() if rank is not None:
                pass  # that it was heard is all it says
            case _:
                self._dismiss(routing_id, "unexpected message")

    def predict(
        self, number: int, subgraph: int, arrays: tuple[Array, ...], now_ns: int, wait_ns: int
    ) -> None:
        """Have every rank compute a batch. number: never used before.

        wait_ns: how long it may take from when the batches before it are over.
        """
        if self.state == ENDED:
            return
        assert self.state == READY, self.state
        assert number not in self._batches, number
        self._batches[number] = Batch(self.rank_size, wait_ns)
        self._start_clock(now_ns)
        epoch, last = self._settings.epoch, self.rank_size - 1
        # Three messages are enough for any number of ranks: with inputs, without, and the last.
        messages: dict[tuple[bool, bool], list[Buffer]] = {}
        for rank in range(self.rank_size):
            has_inputs = bool(self._ranks[rank].graphs[subgraph].inputs)
            kind = (has_inputs, rank == last)
            if kind not in messages:
                inputs = arrays if has_inputs else ()
                messages[kind] = pack(Predict(epoch, number, subgraph, rank == last, inputs))
            self.outbox.append([self._ranks[rank].routing_id, *messages[kind]])

    def lose(self, routing_id: bytes) -> None:
        """The connection to a peer is gone: nothing can be sent to it."""
        rank = self._rank_of.get(routing_id)
        launcher = self._launchers.get(routing_id)
        if rank is not None:
            self._end(f"rank {rank} has disconnected")
        elif launcher is not None:
            self._drop_launcher(launcher, "has disconnected")

    def leave(self, reason: str) -> None:
        """End the group for good; everybody is told to go."""
        if self.state == ENDED:
            return
        for routing_id in self.addresses:
            self._send(routing_id, Exit(self._settings.epoch, reason))
        self._end(reason)

    # ------------------------------------------------------------ forming

    def _receive_claim(self, routing_id: bytes, claim: Claim, now_ns: int) -> None:
        known = self._launchers.get(routing_id)
        if known is None:
            if not self._take_claim(routing_id, claim, now_ns):
                return
        else:
            known.heard_ns = now_ns
        if 0 in claim.ranks:
            self._scheduler = claim.scheduler
        self._answer(routing_id, has_plan=False)

    def _take_claim(self, routing_id: bytes, claim: Claim, now_ns: int) -> bool:
        """Whether a new launcher may have the ranks that it wants."""
        wanted = set(claim.ranks)
        if not wanted or max(wanted) >= self.rank_size:
            self._dismiss(
                routing_id, f"Invalid rank id {max(wanted, default=0)}, rank size {self.rank_size}"
            )
            return False
        for launcher in list(self._launchers.values()):
            if not wanted & set(launcher.ranks):
                continue
            if now_ns - launcher.heard_ns < _CLAIM_NS:
                self._dismiss(routing_id, f"ranks {sorted(wanted)} are claimed already")
                return False
            if any(rank in self._ranks for rank in launcher.ranks):
                self._end(f"agents of ranks {sorted(launcher.ranks)} were started anew")
                return False
            del self._launchers[launcher.routing_id]
        self._launchers[routing_id] = Launcher(routing_id, claim.ranks, now_ns)
        return True

    def _answer(self, routing_id: bytes, has_plan: bool) -> None:
        claimed = {rank for launcher in self._launchers.values() for rank in launcher.ranks}
        settings = self._settings
        self._send(
            routing_id,
            Plan(
                settings.epoch,
                len(claimed) == self.rank_size,
                self._scheduler,
                settings.rank_table if has_plan else "",
                settings.places if has_plan else (),
            ),
        )

    def _receive_register(self, routing_id: bytes, message: Register, now_ns: int) -> None:
        rank = message.rank
        if rank >= self.rank_size:
            self._dismiss(routing_id, f"Invalid rank id {rank}, rank size {self.rank_size}")
            return
        known = self._ranks.get(rank)
        if known is not None:
            if known.routing_id == routing_id:
                self._send(routing_id, Heartbeat(self._settings.epoch))
            else:
                self._dismiss(routing_id, f"rank {rank} is registered already")
            return
        self._ranks[rank] = Rank(routing_id, message.graphs, now_ns)
        self._rank_of[routing_id] = rank
        self.notes.append((f"Rank {rank} been registered", False))
        self._send(routing_id, Heartbeat(self._settings.epoch))
        if len(self._ranks) == self.rank_size:
            self._complete()

    def _complete(self) -> None:
        settings = self._settings
        ranks = [self._ranks[rank].graphs for rank in range(self.rank_size)]
        try:
            self.signature = group_signature(ranks, settings.stage_size, settings.batched_input)
        except SignatureError as error:
            self._end(str(error))
        else:
            self.state = READY

    # ------------------------------------------------------------ answers and losses

    def _receive_outcome(self, rank: int, outcome: Outcome, now_ns: int) -> None:
        batch = self._batches.get(outcome.number)
        if batch is None or rank not in batch.waiting:
            return
        batch.waiting.discard(rank)
        if outcome.error and not batch.error:
            batch.error = f"Error happened on get result of rank {rank}: {outcome.error}"
        if rank == self.rank_size - 1:
            batch.arrays = outcome.arrays
        if not batch.waiting:
            del self._batches[outcome.number]
            arrays = () if batch.error else batch.arrays
            self.finished.append(Prediction(outcome.number, arrays, batch.error))
            self._start_clock(now_ns)

    def _start_clock(self, now_ns: int) -> None:
        """Ranks take batches in turn: only for the oldest one time runs."""
        oldest = next(iter(self._batches.values()), None)
        if oldest is not None and oldest.deadline_ns is None:
            oldest.deadline_ns = now_ns + oldest.wait_ns

    def _receive_lost(self, routing_id: bytes, lost: RankLost) -> None:
        launcher = self._launchers.get(routing_id)
        if launcher is None or lost.rank not in launcher.ranks:
            return
        if self.state == FORMING:
            self._end(
                "Failed to starting all agents, maybe some error reported, "
                f"rank {lost.rank}: {lost.reason}"
            )
        else:
            self._end(f"rank {lost.rank} is lost: {lost.reason}")

    # ------------------------------------------------------------ time

    def next_timer_ns(self) -> int:
        """When `handle_timer` is due."""
        deadlines = (batch.deadline_ns for batch in self._batches.values())
        times = [deadline_ns for deadline_ns in deadlines if deadline_ns is not None]
        if self.state == FORMING and self._limit_ns is not None:
            times.append(self._limit_ns)
        return min([self._beat_ns, *times])

    def handle_timer(self, now_ns: int) -> None:
        """Beat, and end the group if somebody overstays."""
        if self.state == ENDED:
            return
        self._check_batches(now_ns)
        if now_ns >= self._beat_ns:
            self._beat_ns = now_ns + _HEARTBEAT_NS
            self._check_silence(now_ns)
            for rank in self._ranks.values():
                self._send(rank.routing_id, Heartbeat(self._settings.epoch))
        is_late = self._limit_ns is not None and now_ns >= self._limit_ns
        if self.state == FORMING and is_late:
            self._end(
                "Failed to wait for ready of all agents, current agents count: "
                f"{self.agents_count}, rank size: {self.rank_size}"
            )

    def _check_batches(self, now_ns: int) -> None:
        for number, batch in list(self._batches.items()):
            if batch.deadline_ns is not None and now_ns >= batch.deadline_ns:
                error = f"Failed to wait for result of rank {min(batch.waiting)}"
                del self._batches[number]
                self.finished.append(Prediction(number, (), error))
                self._end(error)

    def _check_silence(self, now_ns: int) -> None:
        # A rank that compiles its graph may keep even its own thread from answering.
        oldest = next(iter(self._batches.values()), None)
        quiet_ns = max(_SILENCE_NS, oldest.wait_ns if oldest is not None else 0)
        for number, rank in self._ranks.items():
            if now_ns - rank.heard_ns >= quiet_ns:
                self.notes.append((f"Recv Pong Time Out from rank {number}", True))
                self._end(f"rank {number} has been silent for {quiet_ns // 10**9} s")
        for launcher in list(self._launchers.values()):
            if now_ns - launcher.heard_ns >= _SILENCE_NS:
                self._drop_launcher(launcher, f"has been silent for {_SILENCE_NS // 10**9} s")

    def _drop_launcher(self, launcher: Launcher, reason: str) -> None:
        """Forget who claimed ranks; if they run already, nobody looks after them any more."""
        if any(rank in self._ranks for rank in launcher.ranks):
            self._end(f"the launcher of ranks {sorted(launcher.ranks)} {reason}")
        else:
            del self._launchers[launcher.routing_id]

    # ------------------------------------------------------------ inside

    def _end(self, reason: str) -> None:
        if self.state != ENDED:
            self.state = ENDED
            self.failure = reason

    def _dismiss(self, routing_id: bytes, reason: str) -> None:
        if routing_id in self._rank_of or routing_id in self._launchers:
            self._end(f"a member of the group broke its protocol: {reason}")
            return
        self.notes.append((f"stranger dismissed: {reason}", True))
        self._send(routing_id, Exit("", reason))

    def _send(self, routing_id: bytes, message: Message) -> None:
        self.outbox.append([routing_id, *pack(message)])

    def check_invariants(self) -> None:
        """Assert what holds between any two calls."""
        assert (self.state == ENDED) == bool(self.failure), self.failure
        assert len(self._rank_of) == len(self._ranks)
        for routing_id, number in self._rank_of.items():
            assert self._ranks[number].routing_id == routing_id
        claimed = [rank for launcher in self._launchers.values() for rank in launcher.ranks]
        assert len(claimed) == len(set(claimed)), claimed
        if self.state == READY:
            assert len(self._ranks) == self.rank_size
        for batch in self._batches.values():
            assert batch.waiting
