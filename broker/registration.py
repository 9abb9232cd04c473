"""Who serves what: workers, services, version aliases, heartbeats.

    READY       -> the worker joins its service (READY); an older incarnation of its slot is lost
    DRAIN       -> READY to DRAINING: its tokens are withdrawn, the broker acknowledges with DRAIN
    DISCONNECT  -> GONE
    LOST        -> GONE, said by the supervisor of a worker that it saw die
    SHARE       -> requests for version 0 of a servable are shared between versions, its labels name
                   versions
    RETIRE      -> a service without device workers is given up at once: the supervisor starts none
    silence     -> GONE, after `heartbeat_liveness` intervals

A message from a routing id that is not registered is answered with DISCONNECT, so that a worker
which was taken for dead registers again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker import service as states
from broker.service import Frame, Request, Service, Worker
from broker.split import Split
from protocol import control, mdp
from protocol import head as heads
from protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from broker.core import Core

NS_PER_MS = 1_000_000

#: What the key of a servable's version 0 ends with; that of a label, too: `servable/label/0`.
ALIAS_END = b"/0"


class Registration:
    """The tables of workers and services of one core, and the rules by which they change."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.workers: dict[bytes, Worker] = {}
        self.services: dict[bytes, Service] = {}
        #: service key, version aliases included -> service
        self.routes: dict[bytes, Service] = {}
        #: service key, version aliases included -> why its last workers were not waited for longer
        self.given_up: dict[bytes, str] = {}
        #: servable -> how version 0 is shared between its versions, where it is
        self.splits: dict[str, Split] = {}
        #: servable -> version by label, where its labels are not all version 0
        self.labels: dict[str, dict[str, int]] = {}
        self._by_id: dict[str, Worker] = {}
        self._beat_ns: int | None = None

    # ------------------------------------------------------------ control messages

    def receive(
        self, routing_id: bytes, head: heads.Head, frames: list[Frame], now_ns: int
    ) -> None:
        """Act on a control parcel of the workers' side. Raises RemoteProtocolError."""
        worker = self.workers.get(routing_id)
        if head.command == heads.READY:
            self._ready(routing_id, control.unpack_ready(frames), now_ns)
        elif head.command == heads.LOST:
            self._lost(control.unpack_lost(frames), now_ns)
        elif head.command == heads.RETIRE:
            self._retire(control.unpack_retire(frames), now_ns)
        elif head.command == heads.SHARE:
            self._share(control.unpack_share(frames), now_ns)
        elif worker is None and head.command == heads.DISCONNECT:
            pass  # it is not registered, and this agrees
        elif worker is None:
            if head.command == heads.REPLY:
                self._core.counters.replies_stale += 1
            reason = f"{heads.COMMANDS[head.command]} from a worker that is not registered"
            self._core.outbox.control(routing_id, control.Disconnect(reason))
        elif head.command == heads.DRAIN:
            self._drain(worker)
            self._core.serve_backlog(worker.service, now_ns)
            self.rehome(worker.service, now_ns)
        elif head.command == heads.DISCONNECT:
            reason = control.unpack_disconnect(frames).reason
            self._core.worker_lost(worker, now_ns, f"it disconnected: {reason}")
        elif head.command == heads.HEARTBEAT:
            worker.progress = progress = control.unpack_heartbeat(frames)
            if progress.numbers:
                worker.service.page.hear(worker.worker_id, worker.generation, progress.numbers)
            worker.patient_until_ns = (
                now_ns + progress.patience_ms * NS_PER_MS if progress.patience_ms else 0
            )
        else:
            reason = f"{heads.COMMANDS[head.command]} is not expected of a worker"
            self._core.outbox.control(routing_id, control.Disconnect(reason))
            self._core.worker_lost(worker, now_ns, reason)

    def _ready(self, routing_id: bytes, ready: control.Ready, now_ns: int) -> None:
        if ready.service.encode().startswith(mdp.MMI_PREFIX):
            raise RemoteProtocolError(f"service {ready.service} is one that the broker answers")
        known = self._by_id.get(ready.worker_id)
        if known is not None:
            if known.generation > ready.generation:
                reason = f"generation {known.generation} of {ready.worker_id} is registered"
                self._core.outbox.control(routing_id, control.Disconnect(reason))
                return
            if known.generation < ready.generation:
                reason = f"generation {ready.generation} of {ready.worker_id} replaces this one"
                self._core.outbox.control(known.routing_id, control.Disconnect(reason))
            self._core.worker_lost(known, now_ns, f"generation {ready.generation} registered")
        before = self.workers.get(routing_id)
        if before is not None:
            self._core.worker_lost(before, now_ns, f"its connection registers {ready.worker_id}")
        service = self._require_service(ready.service.encode())
        worker = Worker(
            routing_id,
            ready.worker_id,
            ready.generation,
            service,
            ready.credit,
            now_ns,
            ready.is_extra,
        )
        worker.ready = ready
        self.workers[routing_id] = worker
        self._by_id[worker.worker_id] = worker
        service.add_worker(worker, frozenset(method.name.encode() for method in ready.methods))
        if service.has_device_worker:
            service.give_up_ns = service.retired = None
        elif service.give_up_ns is None:
            service.give_up_ns = now_ns + self._grace_ns()
        self._refresh_alias(service.servable)
        if self._beat_ns is None:
            self._beat_ns = now_ns + self._interval_ns()
        settings = self._core.settings
        welcome = control.Welcome(settings.heartbeat_interval_ms, settings.heartbeat_liveness)
        self._core.outbox.control(routing_id, welcome)
        self._core.note("ready", now_ns, worker.worker_id, worker.generation, ready.service)
        self._core.serve_backlog(service, now_ns)
        self._rehome_versions(service.servable, now_ns)

    def _rehome_versions(self, servable: str, now_ns: int) -> None:
        """Requests for version 0 that wait for a version which takes no work may have another."""
        for other in [each for each in self.services.values() if each.servable == servable]:
            self.rehome(other, now_ns)

    def rehome(self, service: Service, now_ns: int) -> None:
        """Nobody of this version takes work any more: requests for version 0 or a label that wait
        here go to the version that takes them now, if there is one."""
        if service.takes_work or not service.queued:
            return
        others = [
            other
            for other in self.services.values()
            if other.servable == service.servable and other.takes_work
        ]
        if not others:
            return
        for lane in service.lanes:
            for backlog in (lane.suspects, lane.backlog):
                for request in backlog.take_all():
                    request.service = self._home_of(request)
                    request.lane = request.service.lane_of(request.head)
                    is_suspect = backlog is lane.suspects
                    (request.lane.suspects if is_suspect else request.lane.backlog).add(request)
        for other in others:
            self._core.serve_backlog(other, now_ns)

    def _home_of(self, request: Request) -> Service:
        """Where a waiting request belongs now."""
        key = heads.service_of(request.head)
        if key.endswith(ALIAS_END):
            target = self.resolve(key) or self.resolve_label(key)
            if target is not None and target.takes_work:
                return target
        return request.service

    def say_goodbye(self) -> None:
        """Tell every worker that it is over, so that it need not find out by silence."""
        for worker in self.workers.values():
            self._core.outbox.control(worker.routing_id, control.Disconnect(control.GOODBYE))

    def _drain(self, worker: Worker) -> None:
        if worker.state == states.READY:
            self.withdraw(worker)
            self._core.note("draining", worker.worker_id, worker.generation)
        self._core.outbox.control(worker.routing_id, control.Drain())

    def withdraw(self, worker: Worker) -> None:
        """The worker gets nothing more; what it holds is waited for."""
        if worker.state == states.READY:
            worker.service.withdraw(worker)
            worker.state = states.DRAINING
            self._release(worker)
            self._refresh_alias(worker.service.servable)

    def _release(self, worker: Worker) -> None:
        """No lane keeps the worker for its suspects any more."""
        worker.is_kept = False
        for lane in worker.lanes:
            if lane.kept is worker:
                lane.kept = None

    def _lost(self, lost: control.Lost, now_ns: int) -> None:
        worker = self._by_id.get(lost.worker_id)
        if worker is not None and worker.generation <= lost.generation:
            started = None if lost.started is None else frozenset(lost.started)
            self._core.worker_lost(worker, now_ns, lost.reason, started, lost.is_blameless)

    def _retire(self, retire: control.Retire, now_ns: int) -> None:
        service = self.services.get(retire.service.encode())
        if service is not None:
            service.retired = retire.reason
            if not service.has_device_worker:
                service.give_up_ns = now_ns

    def _share(self, share: control.Share, now_ns: int) -> None:
        weights = {version: weight for version, weight in share.shares if weight}
        if weights:
            self.splits[share.servable] = Split(weights)
        else:
            self.splits.pop(share.servable, None)
        if share.labels:
            self.labels[share.servable] = dict(share.labels)
        else:
            self.labels.pop(share.servable, None)
        self._rehome_versions(share.servable, now_ns)

    # ------------------------------------------------------------ tables

    def resolve(self, key: bytes) -> Service | None:
        """The service that a request for this key belongs to now; it may be for version 0."""
        service = self.routes.get(key)
        if service is None or not self.splits or not key.endswith(ALIAS_END):
            return service
        split = self.splits.get(service.servable)
        if split is None:
            return service
        versions = [s for s in self.services.values() if s.servable == service.servable]
        return split.pick(versions) or service

    def shares(self, servable: str) -> list[tuple[int, int]]:
        """(version, weight) in the requests for version 0; empty where one version gets all."""
        split = self.splits.get(servable)
        return [] if split is None else list(split.weights.items())

    def resolve_label(self, key: bytes) -> Service | None:
        """The service of a key `servable/label/0`; None if it is none, or nobody serves it.

        A label that names no version of its own, or one that nobody has served yet, is what version
        0 is.
        """
        name, label = _split_label(key)
        if label not in heads.LABELS:
            return None
        version = self.labels.get(name, {}).get(label, 0)
        labelled = self.resolve(heads.service_key(name, version))
        return labelled or self.resolve(heads.service_key(name, 0))

    def why_not(self, key: bytes) -> tuple[str, str]:
        """Reason and message for a request whose key has no service."""
        name, label = _split_label(key)
        known = heads.service_key(name, 0) if label in heads.LABELS else key
        if known in self.given_up:
            return "no_worker", self.given_up[known]
        if label not in heads.LABELS and heads.service_key(name, 0) in self.routes:
            labels = ", ".join(heads.LABELS)
            return "unknown_service", f"servable {name} has no label {label!r}, only {labels}"
        service = key.decode(errors="backslashreplace")
        return "unknown_service", f"service {service} is not available"

    def expect(self, key: bytes, now_ns: int) -> None:
        """Know a service before its workers register: its requests wait for them for the grace.

        For a broker that takes the place of one that died. Raises: RemoteProtocolError if the key
        is not `servable/version`.
        """
        service = self._require_service(key)
        if not service.has_device_worker:
            service.give_up_ns = now_ns + self._grace_ns()
        self._refresh_alias(service.servable)

    def _require_service(self, key: bytes) -> Service:
        service = self.services.get(key)
        if service is None:
            servable, version = heads.split_service_key(key)
            service = self.services[key] = self.routes[key] = Service(
                key, servable, version, self._core.book.page(key)
            )
            self.given_up.pop(key, None)
            self.given_up.pop(heads.service_key(servable, 0), None)
        return service

    def forget_worker(self, worker: Worker, now_ns: int, reason: str) -> None:
        """Take a worker out of every table; its tickets are the core's business."""
        service = worker.service
        if worker.state == states.READY:
            service.withdraw(worker)
        worker.state = states.GONE
        self._release(worker)
        del self.workers[worker.routing_id]
        del self._by_id[worker.worker_id]
        del service.workers[worker]
        if not service.has_device_worker and service.give_up_ns is None:
            service.give_up_ns = now_ns + (0 if service.retired else self._grace_ns())
        self._refresh_alias(service.servable)
        self._core.counters.workers_lost += 1
        self._core.note("gone", now_ns, worker.worker_id, worker.generation, reason)

    def _refresh_alias(self, servable: str) -> None:
        """Point version 0 to the highest version that takes work, else to the highest known."""
        versions = [service for service in self.services.values() if service.servable == servable]
        alias = heads.service_key(servable, 0)
        if not versions:
            self.routes.pop(alias, None)
            return
        takes_work = [service for service in versions if service.takes_work]
        self.routes[alias] = max(takes_work or versions, key=lambda service: service.version)

    # ------------------------------------------------------------ time

    def next_timer_ns(self) -> int | None:
        """When heartbeats are due or a service without workers is given up."""
        times = [
            service.give_up_ns
            for service in self.services.values()
            if service.give_up_ns is not None
        ]
        if self._beat_ns is not None:
            times.append(self._beat_ns)
            times.extend(w.lost_ns for w in self.workers.values() if w.lost_ns is not None)
        return min(times, default=None)

    def handle_timer(self, now_ns: int) -> None:
        """Beat, expire the silent, give up the abandoned."""
        if self._beat_ns is not None and now_ns >= self._beat_ns:
            self._beat(now_ns)
        for worker in list(self.workers.values()):
            if worker.lost_ns is not None and now_ns >= worker.lost_ns:
                self._core.worker_lost(worker, now_ns, "its connection is gone")
        for service in list(self.services.values()):
            if service.give_up_ns is not None and now_ns >= service.give_up_ns:
                self._give_up(service, now_ns)

    def _beat(self, now_ns: int) -> None:
        silent_ns = self._interval_ns() * self._core.settings.heartbeat_liveness
        for worker in list(self.workers.values()):
            if now_ns - worker.heard_ns >= silent_ns:
                reason = f"silent for {silent_ns // NS_PER_MS} ms"
                self._core.outbox.control(worker.routing_id, control.Disconnect(reason))
                self._core.worker_lost(worker, now_ns, reason)
            else:
                self._core.outbox.control(worker.routing_id, control.Heartbeat())
        self._beat_ns = now_ns + self._interval_ns() if self.workers else None

    def _give_up(self, service: Service, now_ns: int) -> None:
        key, grace_ms = service.key.decode(), self._core.settings.service_grace_ms
        message = f"service {key} has had no worker for service_grace_ms {grace_ms}"
        if service.retired:
            message = f"service {key} has no worker and gets none: {service.retired}"
        for worker in list(service.workers):  # extra workers, which can do nothing alone
            self._core.outbox.control(worker.routing_id, control.Disconnect(message))
            self._core.worker_lost(worker, now_ns, message)
        self._core.fail_backlog(service, "no_worker", message, now_ns)
        del self.services[service.key]
        del self.routes[service.key]
        self._core.book.close(service.key)
        self.given_up[service.key] = message
        self._refresh_alias(service.servable)
        alias = heads.service_key(service.servable, 0)
        if alias not in self.routes:
            self.given_up[alias] = message
        self._core.note("given up", key, message)

    def _grace_ns(self) -> int:
        return self._core.settings.service_grace_ms * NS_PER_MS

    def _interval_ns(self) -> int:
        return self._core.settings.heartbeat_interval_ms * NS_PER_MS


def _split_label(key: bytes) -> tuple[str, str]:
    """Servable and label of a key `servable/label/0`; empty texts of another one."""
    parts = key.decode(errors="replace").rsplit("/", 2)
    return (parts[0], parts[1]) if len(parts) == 3 and parts[2] == "0" else ("", "")
