"""A launcher's side of a group: it claims ranks once a second, and learns when agents may run.

    JOINING ──plan──► CLAIMING ──every rank is claimed──► RUNNING      any ──EXIT──► ENDED
       ▲                  │ worker silent, or a new epoch     │
       └──────────────────┴───────────────────────────────────┘ an agent ended, too

Rules
1. Agents live as long as their group. Whatever ends it (an agent's end, a silent worker, another
   epoch) ends all agents of this machine, and the launcher joins the next group.
2. An epoch that is over is never joined again.
3. A worker that cannot be reached is waited for: at first for a minute, as MindSpore Serving does,
   and later for as long as a supervisor may need to start it again.

Pure. What a shell has to do is in `orders`: CHOOSE (look which ranks of `plan` are local, then call
`claim`), SPAWN (start the agents), KILL (end them).
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol import limits
from protocol.errors import RemoteProtocolError
from protocol.group import Claim, Exit, Message, Plan, RankLost, pack, unpack
from protocol.native import Buffer

NS_PER_MS = 1_000_000
NS_PER_S = 1_000 * NS_PER_MS

JOINING = "JOINING"
CLAIMING = "CLAIMING"
RUNNING = "RUNNING"
ENDED = "ENDED"

CHOOSE = "CHOOSE"
SPAWN = "SPAWN"
KILL = "KILL"

_INTERVAL_NS = limits.GROUP_HEARTBEAT_INTERVAL_MS * NS_PER_MS
_SILENCE_NS = limits.GROUP_LIVENESS * _INTERVAL_NS

#: MindSpore Serving asks 60 times, once a second.
FIRST_JOIN_NS = 60 * NS_PER_S
#: Longer than the longest pause between two starts of a worker.
NEXT_JOIN_NS = 300 * NS_PER_S

UNAVAILABLE_TEXT = "Failed to get Agents configs from Worker, worker is not available."


class LauncherSession:
    """The machine of one launcher."""

    def __init__(self, now_ns: int) -> None:
        self.state = JOINING
        #: Why the launcher ended; empty before.
        self.end_reason = ""
        #: The group to join; set with the order CHOOSE.
        self.plan = Plan("", False, "", "", ())
        #: Where MindSpore's ranks meet; set with the order SPAWN.
        self.scheduler = ""
        self.ranks: tuple[int, ...] = ()
        #: What the shell has to do, in order; it clears it.
        self.orders: list[str] = []
        #: Messages to send; the shell clears it.
        self.outbox: list[list[Buffer]] = []
        self._own_scheduler = ""
        self._over_epoch = ""
        self._refusal = ""
        self._claim_ns = now_ns
        self._heard_ns = now_ns
        self._join_limit_ns = now_ns + FIRST_JOIN_NS

    # ------------------------------------------------------------ in

    def receive(self, frames: Sequence[Buffer], now_ns: int) -> None:
        """Take a message of the worker."""
        try:
            message = unpack(frames)
        except RemoteProtocolError as error:
            self._refusal = f"the worker broke the protocol: {error}"
            return
        match message:
            case Plan():
                self._receive_plan(message, now_ns)
            case Exit() if message.epoch and message.epoch == self.plan.epoch:
                self.end(message.reason)
            case Exit():
                self._refusal = message.reason
            case _:
                self._refusal = f"unexpected {type(message).__name__} from the worker"

    def _receive_plan(self, plan: Plan, now_ns: int) -> None:
        if self.state == ENDED or plan.epoch == self._over_epoch:
            return
        self._heard_ns = now_ns
        if self.state != JOINING and plan.epoch != self.plan.epoch:
            self._leave_group(now_ns)
        if self.state == JOINING:
            if plan.places:
                self.plan = plan
                self.orders.append(CHOOSE)
        elif self.state == CLAIMING and plan.is_complete:
            self.state = RUNNING
            self.scheduler = plan.scheduler
            self.orders.append(SPAWN)

    def claim(self, ranks: tuple[int, ...], scheduler: str, now_ns: int) -> None:
        """Answer to CHOOSE. scheduler: where ranks can meet, if rank 0 is one of these."""
        assert self.state == JOINING, self.state
        self.state = CLAIMING
        self.ranks = ranks
        self._own_scheduler = scheduler
        self._claim_ns = now_ns

    def agent_ended(self, rank: int, reason: str, now_ns: int) -> None:
        """An agent's process is gone, or said that it cannot serve."""
        if self.state != RUNNING:
            return
        self._send(RankLost(self.plan.epoch, rank, reason))
        self._leave_group(now_ns)

    def end(self, reason: str) -> None:
        """End for good, with all agents."""
        if self.state == RUNNING:
            self.orders.append(KILL)
        if self.state != ENDED:
            self.state = ENDED
            self.end_reason = reason or "the worker has ended"

    # ------------------------------------------------------------ time

    def next_timer_ns(self) -> int:
        """When `handle_timer` is due."""
        if self.state == JOINING:
            return min(self._claim_ns, self._join_limit_ns)
        return min(self._claim_ns, self._heard_ns + _SILENCE_NS)

    def handle_timer(self, now_ns: int) -> None:
        """Claim again, and notice that the worker is gone."""
        if self.state == ENDED:
            return
        if self.state == JOINING:
            if now_ns >= self._join_limit_ns:
                self.end(self._refusal or UNAVAILABLE_TEXT)
                return
        elif now_ns - self._heard_ns >= _SILENCE_NS:
            self._leave_group(now_ns)
        if now_ns >= self._claim_ns:
            self._claim_ns = now_ns + _INTERVAL_NS
            is_known = self.state != JOINING
            epoch, ranks = (self.plan.epoch, self.ranks) if is_known else ("", ())
            self._send(Claim(epoch, ranks, self._own_scheduler if is_known else ""))

    # ------------------------------------------------------------ inside

    def _leave_group(self, now_ns: int) -> None:
        """Be without a group; agents, if they run, are ended."""
        if self.state == RUNNING:
            self.orders.append(KILL)
        self.state = JOINING
        self._over_epoch = self.plan.epoch
        self._refusal = ""
        self._claim_ns = now_ns
        self._join_limit_ns = now_ns + NEXT_JOIN_NS

    def _send(self, message: Message) -> None:
        self.outbox.append(pack(message))
