"""Clients of the simulated world: the real `ClientSession`, and around it what its shells do.

A patient client is a gateway: what a broker refuses because it drains goes to the next one, as
`gateway.remote_bus.RemoteBus` has it. Others are direct producers; they are told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from protocol import head as heads
from protocol.client_session import (
    BUCKET_SHIFT,
    ClientSession,
    ClientSettings,
    Completion,
    is_refused_by_draining,
)
from protocol.native import decode_failure
from tests.sim.links import MS, Connection

if TYPE_CHECKING:
    from tests.sim.world import World

#: What clients ask for; an extra worker runs the first one only.
METHODS = (b"m", b"@call")

#: Whom they ask: versions, labels, and somebody who is not there.
SERVICES = (b"s/0", b"s/0", b"s/1", b"s/2", b"s/stable/0", b"s/canary/0", b"other/1")

#: How replies are sent, if at all.
KINDS = (0, 0, 0, heads.FLAG_COALESCE, heads.FLAG_COALESCE, heads.FLAG_COALESCE, heads.FLAG_ONE_WAY)

#: At which level of the backlog.
PRIORITIES = (0, 0, heads.FLAG_HIGH, heads.FLAG_LOW)

#: A payload with this kills whichever worker computes it.
POISON = ".poison"

#: How a request may end without an answer.
REASONS = {
    "broker_lost",
    "cancelled",
    "deadline_exceeded",
    "draining",
    "no_worker",
    "poison_suspected",
    "queue_full",
    "unknown_service",
    "worker_lost",
}


@dataclass
class Asked:
    """A request of somebody who waits for its one outcome."""

    payload: bytes
    service: bytes
    head: bytes
    since_ns: int
    until_ns: int
    #: the life of the broker that refused it because it drains
    refused_in: int = 0


class SimClient:
    """Sends requests with random services and budgets, cancels some, sometimes vanishes."""

    def __init__(self, world: World, name: str, is_patient: bool) -> None:
        self._world = world
        self._name = name
        self._is_patient = is_patient
        self._settings = ClientSettings(is_patient=is_patient, budget_ms_default=20_000)
        self._life = 0
        self._count = 0
        self._open()

    def _open(self) -> None:
        self._life += 1
        life = self._life
        self._is_going = False
        self._session = ClientSession(self._settings)
        #: request id of the session -> what it is for
        self._asked: dict[int, Asked] = {}
        #: refused by a broker that drains, and about to be asked again
        self._refused: list[Asked] = []
        #: request id -> until when the broker must have answered
        self._answer_by_ns: dict[int, int] = {}
        self._armed_ns: int | None = None
        self._connection = Connection(
            self._world,
            f"{self._name}.{life}",
            False,
            self._receive,
            lambda: self._change(partial(self._session.connected, self._world.now_ns)),
            lambda: self._change(self._session.broker_lost),
        )

    @property
    def is_quiet(self) -> bool:
        """It waits for nothing."""
        return not self._asked and not self._refused

    def check_quiet(self) -> None:
        """Everything that was asked has had its outcome."""
        assert self.is_quiet, f"I1: {self._name} never heard of {self._asked}"
        assert self._session.outstanding_count == 0, self._session.story()
        assert self._session.messages_malformed == 0, self._session.story()

    def check_told(self) -> None:
        """The broker goes: a patient client has heard of it, and has nothing on its way."""
        is_sending = self._is_patient and self._session.is_connected
        assert not is_sending, f"{self._name} was not told, {self._session.story()}"

    def act(self) -> None:
        """Do one thing, and come again unless the faults are over."""
        world = self._world
        if not world.has_faults:
            return
        dice = world.random.random()
        if dice < 0.01:
            self._go()
        elif dice < 0.08 and self._asked:
            self._cancel(world.random.choice(sorted(self._asked)))
        else:
            for _ in range(world.random.randint(1, 3)):
                self._ask()
        self._turn()
        world.after_ms(1, world.weather.pause_ms, self.act)

    def _go(self) -> None:
        """Vanish, or end in an orderly way; somebody of the same name comes then."""
        is_killed = self._world.random.random() < 0.5
        self._world.met["client killed" if is_killed else "client left"] += 1
        self._is_going = True
        if not is_killed:
            self._session.close("the client ends")
            self._turn()
            assert not self._asked, self._session.story()
        self._connection.close(is_killed)
        self._open()

    # ------------------------------------------------------------ requests

    def _ask(self) -> None:
        world, dice = self._world, self._world.random
        self._count += 1
        poison = POISON if dice.random() < world.weather.poison else ""
        budget_ms = dice.choice((0, 5, 30, 200, 5_000))
        head = heads.Head(
            heads.REQUEST,
            flags=dice.choice(KINDS) | dice.choice(PRIORITIES),
            budget_ms=budget_ms,
            body_frames=1,
            service=dice.choice(SERVICES),
            method=dice.choice(METHODS),
        )
        until_ns = world.now_ns + (budget_ms or 20_000) * MS
        payload = f"{self._name}.{self._count}{poison}".encode()
        asked = Asked(payload, head.service, heads.pack(head), world.now_ns, until_ns)
        if dice.random() < 0.2:
            asked.head = heads.pack(
                head._replace(flags=head.flags | heads.FLAG_KEYED, body_frames=2)
            )
            for _ in range(dice.randint(0, 2)):
                other = dice.choice(world.clients)
                world.after_ms(0, 300, lambda other=other: other.ask_for(asked))
        self._submit(asked)

    def ask_for(self, asked: Asked) -> None:
        """Ask for somebody's request once more, under its key."""
        world = self._world
        world.met["asked under a key"] += 1
        until_ns = world.now_ns + (heads.unpack(asked.head).budget_ms or 20_000) * MS
        self._submit(replace(asked, since_ns=world.now_ns, until_ns=until_ns, refused_in=0))
        self._turn()

    def _submit(self, asked: Asked) -> None:
        is_keyed = heads.unpack(asked.head).flags & heads.FLAG_KEYED
        frames = [asked.payload, asked.payload] if is_keyed else [asked.payload]
        self._world.asked_under_key[asked.payload] += bool(is_keyed)
        number = self._session.submit(asked.head, frames, self._world.now_ns)
        self._asked[number] = asked

    def _cancel(self, number: int) -> None:
        del self._asked[number]
        self._session.cancel(number)

    def _ask_again(self, life: int) -> None:
        """What a draining broker refused: to the next one, with what is left of its budget."""
        if life != self._life:
            return
        refused, self._refused = self._refused, []
        for asked in refused:
            left_ms = (asked.until_ns - self._world.now_ns) // MS
            if left_ms > 0:
                asked.head = heads.restamp(asked.head, 0, left_ms)
                self._submit(asked)
        self._turn()

    def _end(self, completion: Completion) -> None:
        asked = self._asked.pop(completion.request_id, None)
        assert asked is not None, f"I1: a second outcome, {self._session.story()}"
        world = self._world
        head = heads.unpack(completion.head)
        latest_ns = asked.until_ns + self._settings.slack_ms * MS + (2 << BUCKET_SHIFT)
        assert world.now_ns <= latest_ns, f"an outcome comes late: {asked}"
        if heads.unpack(asked.head).flags & heads.FLAG_ONE_WAY and not head.status:
            assert not completion.frames, completion
            world.met["client one way"] += 1
            return
        if not head.status:
            assert completion.frames == [b"answer to " + asked.payload], (completion, asked)
            world.met["client ok"] += 1
            return
        reason = decode_failure(completion.frames).reason
        assert reason in REASONS, reason
        world.met[f"client {reason}"] += 1
        if reason == "unknown_service":
            assert not world.broker.should_know(asked.service, asked.since_ns), asked
        if not self._is_patient or self._is_going:
            return
        left_ms = (asked.until_ns - world.now_ns) // MS
        if is_refused_by_draining(completion.head, completion.frames) and left_ms > 0:
            world.met["asked again"] += 1
            assert asked.refused_in != world.broker.life, f"one broker refuses twice: {asked}"
            asked.refused_in = world.broker.life
            self._refused.append(asked)
            life = self._life
            world.after_ms(0, 0.2, lambda: self._ask_again(life))
        elif reason == "broker_lost" and left_ms > 0:
            assert world.broker.is_excused(asked.since_ns), f"a planned restart failed {asked}"

    # ------------------------------------------------------------ the shell of the session

    def _change(self, door: Any) -> None:
        door()
        if door == self._session.broker_lost:
            waiting, ended = self._session._waiting, self._session.completed
            sent = self._asked.keys() - waiting.keys() - {each.request_id for each in ended}
            assert not sent, "what was sent fails with the connection"
        self._turn()

    def _receive(self, parts: list[Any]) -> None:
        now_ns = self._world.now_ns
        for frame, _ in heads.split_parcels(parts):
            if frame[:4] != heads.REPLY_PREFIX:
                continue  # whether the broker drains
            number = heads.unpack(frame).request_id
            answer_by_ns = self._answer_by_ns.pop(number, None)
            assert answer_by_ns is not None, "I1: a second reply"
            assert now_ns <= answer_by_ns, f"answered late: {number}"
        self._session.receive(parts, now_ns)
        self._turn()

    def _turn(self) -> None:
        session = self._session
        completed, session.completed = session.completed, []
        for completion in completed:
            self._end(completion)
        self._send()
        session.check_invariants()
        next_ns = session.next_timer_ns()
        if next_ns is not None and (self._armed_ns is None or next_ns < self._armed_ns):
            self._armed_ns = next_ns
            life = self._life
            self._world.at(next_ns, lambda: self._wake(life))

    def _wake(self, life: int) -> None:
        if life == self._life:
            self._armed_ns = None
            self._session.handle_timer(self._world.now_ns)
            self._turn()

    def _send(self) -> None:
        """Each message as it is, or as a producer may do it, all of them in one."""
        outbox = self._session.outbox
        for message in outbox:
            head = heads.unpack(message[0])  # type: ignore[arg-type]
            if head.command == heads.REQUEST and not head.flags & heads.FLAG_ONE_WAY:
                limit_ns = self._world.deadline_slack_ns() + (head.budget_ms or 20_000) * MS
                self._answer_by_ns[head.request_id] = self._world.now_ns + limit_ns
        if len(outbox) > 1 and self._world.random.random() < 0.5:
            outbox[:] = [[frame for message in outbox for frame in message]]
        while outbox and self._connection.send(outbox[0]):
            del outbox[0]
        assert not outbox, "a session without a connection sends nothing"
