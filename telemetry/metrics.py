"""What `/metrics` shows: plain values of all processes as families of Prometheus. Pure.

Nothing here counts. Every process keeps plain integers where they cost least; a scrape collects
them into a `Snapshot`, and only then are objects of prometheus-client made of it. Names and labels
are listed in docs/metrics.md, which a test compares with a real scrape.

Rule: every counter is a total since the start of the process that keeps it.
Rule: times are kept in nanoseconds and shown in seconds, as Prometheus wants it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

NS_PER_S = 1_000_000_000

#: States of a worker's slot, as the supervisor names them.
WORKER_STATES = ("VACANT", "STARTING", "READY", "DRAINING", "BACKOFF", "FAILED", "DEVICE_FAULT")

#: What a device does, as far as its worker tells.
DEVICE_STATES = ("serving", "loading", "draining", "busy", "fault", "unused")
_DEVICE_STATE_OF = {
    "READY": "serving",
    "STARTING": "loading",
    "DRAINING": "draining",
    "DEVICE_FAULT": "fault",
}

#: The broker's counters of what it threw away, and the reasons that stand for them.
_DROPPED = {
    "replies_late": "late_reply",
    "replies_stale": "stale_reply",
    "replies_dropped": "unread_reply",
    "duplicates": "duplicate_request",
    "malformed": "malformed",
}

#: Series that workers may send in their heartbeats: name there -> (name here, labels, help).
WORKER_SERIES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "batch_size": (
        "mindbus_batch_size",
        ("model", "subgraph"),
        "Instances that one run of a model was given.",
    ),
    "compute_ns": (
        "mindbus_compute_seconds",
        ("model", "subgraph"),
        "Time of one run of a model.",
    ),
    "stage_ns": (
        "mindbus_stage_seconds",
        ("method", "stage"),
        "Time of one run of a Python stage, over all instances that it was given.",
    ),
    "worker_wait_ns": (
        "mindbus_worker_wait_seconds",
        ("method",),
        "Time that requests waited in a worker before their first stage.",
    ),
    "executions": (
        "mindbus_executions",
        ("method",),
        "Batches of instances that began: runs of the first stage of a method.",
    ),
    "instances": ("mindbus_instances", ("method", "outcome"), "Instances that were computed."),
    "recompiles": (
        "mindbus_recompiles",
        ("model",),
        "Runs of a model with shapes that it had not been run with, so that it compiled.",
    ),
}


class Snapshot(NamedTuple):
    """What one scrape found.

    broker: the answer to STATS. supervisor: its status. Both None if there is none, or if it has
    never answered. gateways: by name, see `gateway.numbers`. ages_s: how old the words of `broker`
    and `supervisor` are; 0 if they are new. not_ready: by servable, why it is not ready.
    devices: by name, what was measured of them and how long ago.
    """

    broker: Mapping[str, Any] | None
    supervisor: Mapping[str, Any] | None
    gateways: Mapping[str, Mapping[str, Any]]
    ages_s: Mapping[str, float]
    not_ready: Mapping[str, str | None]
    devices: Mapping[str, Mapping[str, Any]] = {}


def render(snapshot: Snapshot, accept: str = "") -> tuple[str, bytes]:
    """The content type and the text of a scrape. accept: the scraper's header of that name."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot))
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


class _Collector(Collector):
    """Gives the families of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Every family that has samples."""
        families = _families(self._snapshot)
        return (family for family in families if family.samples)


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    yield from _of_sources(snapshot)
    if snapshot.broker is not None:
        yield from _of_requests(snapshot.broker)
        yield from _of_queues(snapshot.broker)
        yield from _of_workers(snapshot.broker["book"])
    if snapshot.supervisor is not None:
        yield from _of_slots(snapshot.supervisor["slots"])
        yield from _of_processes(snapshot.supervisor)
    yield from _of_gateways(snapshot.gateways)
    yield from _of_devices(snapshot.devices)


def _of_sources(snapshot: Snapshot) -> Iterator[Metric]:
    up = _gauge("up", "Whether a part of the server answered this scrape in time.", "source")
    age = _gauge("age_seconds", "How old the numbers of a part of the server are.", "source")
    for source, age_s in snapshot.ages_s.items():
        up.add_metric([source], float(not age_s))
        age.add_metric([source], age_s)
    ready = _gauge("servable_ready", "Whether a servable answers requests.", "servable")
    for servable, reason in snapshot.not_ready.items():
        ready.add_metric([servable], float(reason is None))
    yield from (up, age, ready)


# ---------------------------------------------------------------- broker


def _of_requests(broker: Mapping[str, Any]) -> Iterator[Metric]:
    book, counters = broker["book"], broker["counters"]
    bounds = book["bounds_ns"]
    labels = ("servable", "version", "method")
    ended = _counter("request", "Requests that ended, by gRPC code.", *labels, "code")
    took = _histogram(
        "request_duration_seconds",
        "From a request's arrival at the broker to its reply.",
        *labels,
        "code",
    )
    for service, method, code, cell in book["requests"]:
        values = [*_service(service), method, code]
        ended.add_metric(values, sum(cell[:-1]))
        _add(took, values, bounds, cell[:-1], cell[-1], NS_PER_S)
    waited = _histogram(
        "queue_wait_seconds", "From a request's arrival to its dispatch to a worker.", *labels
    )
    for service, method, cell in book["waits"]:
        _add(waited, [*_service(service), method], bounds, cell[:-1], cell[-1], NS_PER_S)
    rejected = _counter(
        "rejected", "Requests that were not accepted.", "servable", "version", "reason"
    )
    for service, reason, count in book["refusals"]:
        rejected.add_metric([*_service(service), reason], count)
    dropped = _counter("dropped", "What the broker threw away.", "reason")
    for name, reason in _DROPPED.items():
        dropped.add_metric([reason], counters[name])
    attempts = _counter("dispatch_attempts", "Dispatches of requests to workers.")
    attempts.add_metric([], broker["attempts"])
    again = _counter("redispatched", "Requests whose worker was lost, so that they waited again.")
    again.add_metric([], counters["redispatched"])
    lost = _counter("workers_lost", "Workers that were gone for the broker, in order or not.")
    lost.add_metric([], counters["workers_lost"])
    yield from (ended, took, waited, rejected, dropped, attempts, again, lost)


def _of_queues(broker: Mapping[str, Any]) -> Iterator[Metric]:
    labels = ("servable", "version")
    depth = _gauge("queue_depth", "Requests that wait for a worker.", *labels)
    size = _gauge("queue_bytes", "Body bytes of requests that wait for a worker.", *labels)
    oldest = _gauge("queue_oldest_seconds", "How long the one that waits longest waits.", *labels)
    workers = _gauge("service_workers", "Workers that are registered.", *labels)
    for each in broker["services"]:
        values = _service(each["service"])
        depth.add_metric(values, each["queued"])
        size.add_metric(values, each["queued_bytes"])
        oldest.add_metric(values, each["waiting_ms"] / 1_000)
        workers.add_metric(values, each["workers"])
    of_worker = (*labels, "worker")
    inflight = _gauge("inflight", "Requests that a worker holds.", *of_worker)
    credit = _gauge("worker_credit", "Requests that a worker may hold.", *of_worker)
    busy = _gauge("worker_busy_seconds", "How long its batch has been running.", *of_worker)
    for each in broker["workers"]:
        values = [*_service(each["service"]), each["worker_id"]]
        inflight.add_metric(values, each["in_flight"])
        credit.add_metric(values, each["credit"])
        busy.add_metric(values, each["busy_ms"] / 1_000)
    held = _gauge("requests_held", "Requests that the broker holds, waiting or at workers.")
    held.add_metric([], broker["requests"])
    limit = _gauge("requests_max", "Requests that the broker holds at most.")
    limit.add_metric([], broker["requests_max"])
    held_bytes = _gauge("request_bytes_held", "Body bytes of the requests that are held.")
    held_bytes.add_metric([], broker["request_bytes"])
    yield from (depth, size, oldest, workers, inflight, credit, busy, held, limit, held_bytes)


def _of_workers(book: Mapping[str, Any]) -> Iterator[Metric]:
    """What workers have counted; a name that is not in the table is left out."""
    families: dict[str, Metric] = {}
    for service, name, labels, bounds, counts, total in book["workers"]:
        if name not in WORKER_SERIES:
            continue
        shown, label_names, text = WORKER_SERIES[name]
        given = dict(labels)
        values = [*_service(service), *(given.get(label, "") for label in label_names)]
        family = families.get(name)
        if family is None:
            make = HistogramMetricFamily if bounds else CounterMetricFamily
            family = make(shown, text, labels=("servable", "version", *label_names))
            families[name] = family
        if isinstance(family, HistogramMetricFamily):
            _add(family, values, bounds, counts, total, NS_PER_S if name.endswith("_ns") else 1)
        elif isinstance(family, CounterMetricFamily):
            family.add_metric(values, counts[0])
    yield from families.values()


# ---------------------------------------------------------------- supervisor


def _of_slots(slots: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ("servable", "version", "worker", "device")
    state = _gauge("worker_state", "1 for the state that a worker's slot is in.", *labels, "state")
    since = _gauge("worker_state_age_seconds", "How long it has been in this state.", *labels)
    generation = _gauge("worker_generation", "How many processes its slot has had.", *labels)
    device = _gauge("device_state", "1 for what a device does.", "device", "worker", "state")
    for slot in slots:
        if slot["kind"] != "worker":
            continue
        where = _device(slot["device"])
        values = [slot["servable"] or "", str(slot["version"] or ""), slot["slot"], where]
        for each in WORKER_STATES:
            state.add_metric([*values, each], float(each == slot["state"]))
        since.add_metric(values, slot["since_s"])
        generation.add_metric(values, slot["generation"])
        if where:
            now = _DEVICE_STATE_OF.get(slot["state"], "unused")
            now = "busy" if slot["has_busy_device"] and now != "fault" else now
            for each in DEVICE_STATES:
                device.add_metric([where, slot["slot"], each], float(each == now))
    yield from (state, since, generation, device)


def _of_processes(supervisor: Mapping[str, Any]) -> Iterator[Metric]:
    up = _gauge("process_up", "Whether a process serves.", "process", "kind")
    memory = _gauge("process_resident_bytes", "Memory of a process.", "process", "kind")
    for slot in supervisor["slots"]:
        values = [slot["slot"], slot["kind"]]
        up.add_metric(values, float(slot["state"] == "READY"))
        if slot["resident_bytes"] is not None:
            memory.add_metric(values, slot["resident_bytes"])
    restarts = _counter("worker_restarts", "Ends of worker processes.", "servable", "reason")
    others = _counter("process_restarts", "Ends of gateways and brokers.", "kind", "reason")
    for kind, servable, reason, count in supervisor["ends"]:
        if kind == "worker":
            restarts.add_metric([servable, reason], count)
        else:
            others.add_metric([kind, reason], count)
    progress = _gauge(
        "rolling_progress", "Part of the latest roll that is done, 0 to 1.", "command"
    )
    failed = _gauge("rolling_failed", "1 if the latest roll was stopped by a failure.", "command")
    roll = supervisor["roll"]
    if roll is not None and roll["replacements"]:
        steps = roll["replacements"]
        done = sum(step["state"] == "DONE" for step in steps)
        progress.add_metric([roll["command"]], done / len(steps))
        failed.add_metric([roll["command"]], float(roll["failure"] is not None))
    yield from (up, memory, restarts, others, progress, failed)


# ---------------------------------------------------------------- gateways


def _of_gateways(gateways: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ("gateway", "door")
    ended = _counter("gateway_request", "Requests that a door answered.", *labels, "code")
    took = _histogram(
        "gateway_request_duration_seconds",
        "From a request's arrival at a door to its answer.",
        *labels,
    )
    inflight = _gauge("gateway_inflight", "Requests that a door is about to answer.", *labels)
    connections = _gauge("gateway_connections", "Clients of the REST door.", "gateway")
    unread = _gauge("gateway_unread_bytes", "Replies that gRPC clients have not taken.", "gateway")
    for gateway, numbers in gateways.items():
        for door, each in numbers["doors"].items():
            for code, count in each["codes"].items():
                ended.add_metric([gateway, door, code], count)
            bounds = numbers["bounds_ns"]
            _add(took, [gateway, door], bounds, each["counts"], each["total_ns"], NS_PER_S)
            inflight.add_metric([gateway, door], each["inflight"])
        connections.add_metric([gateway], numbers["connections"])
        unread.add_metric([gateway], numbers["unread_bytes"])
    yield from (ended, took, inflight, connections, unread)


def _of_devices(devices: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    usage = _gauge("npu_usage_ratio", "How busy or full a part is, by npu-smi.", "device", "part")
    age = _gauge("npu_sample_age_seconds", "How old what npu-smi said is.", "device")
    for device, sample in devices.items():
        for part, value in sample["values"].items():
            usage.add_metric([device, part], value)
        age.add_metric([device], sample["age_s"])
    yield from (usage, age)


# ---------------------------------------------------------------- inside


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"mindbus_{name}", text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"mindbus_{name}", text, labels=labels)


def _histogram(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"mindbus_{name}", text, labels=labels)


def _add(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    bounds: Sequence[int],
    counts: Sequence[int],
    total: int,
    unit: int,
) -> None:
    """Add a histogram. counts: by bucket, not cumulated; unit: bounds and total are divided by."""
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, count in zip(bounds, counts, strict=False):
        running += count
        buckets.append((str(bound / unit), running))
    buckets.append(("+Inf", running + counts[len(bounds)]))
    family.add_metric(labels, buckets, total / unit)


def _service(key: str) -> list[str]:
    """Servable and version of a service key; empty texts of none."""
    servable, _, version = key.rpartition("/")
    return [servable, version]


def _device(device: Any) -> str:
    if isinstance(device, Mapping):
        return f"{device['target']}:{device['id']}"
    return "" if device is None else str(device)
