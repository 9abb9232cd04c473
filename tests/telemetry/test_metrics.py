"""The collector: plain values in, the text that Prometheus reads out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from broker.stats import describe
from gateway.numbers import Numbers
from protocol import control
from protocol.control import Histogram
from telemetry import metrics
from telemetry.metrics import Snapshot, render
from tests.broker.helpers import MS, broker_with_worker, reply, request
from tests.telemetry.dashboard import asked, dashboard, queries
from workers.supervisor.slot import STATES

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()

SLOT = {
    "slot": "add/1/0",
    "kind": "worker",
    "servable": "add",
    "version": 1,
    "device": {"target": "Ascend", "id": 3},
    "state": "READY",
    "pid": 1,
    "generation": 2,
    "since_s": 1.5,
    "has_busy_device": False,
    "resident_bytes": 1_000,
}


def supervisor(**changes: Any) -> dict[str, Any]:
    return {
        "slots": [SLOT],
        "ends": [["worker", "add", "hung", 3], ["gateway", "", "signal", 1]],
        "roll": None,
    } | changes


def samples(snapshot: Snapshot) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    _, text = render(snapshot)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(snapshot: Snapshot, name: str, **labels: str) -> float:
    return samples(snapshot)[f"mindbus_{name}", frozenset(labels.items())]


def of_broker() -> Snapshot:
    core = broker_with_worker(credit=1, requests_max=2)
    core.receive_from_client(b"c", request(1) + request(2) + request(3), 0)
    core.receive_from_worker(b"w1", reply(1), 3 * MS)
    runs = Histogram("compute_ns", (("model", "m"), ("subgraph", "0")), (MS, 2 * MS), (1, 0, 2), 7)
    beat = control.Heartbeat(numbers=(runs, runs._replace(name="of_tomorrow")))
    core.receive_from_worker(b"w1", control.pack(beat), 3 * MS)
    return Snapshot(describe(core, 10 * MS), None, {}, {"broker": 0.0}, {})


def test_requests_have_servable_version_method_and_code() -> None:
    labels = {"servable": "add", "version": "1", "method": "m"}
    shown = of_broker()
    assert value(shown, "request_total", **labels, code="OK") == 1
    buckets = [
        value(shown, "request_duration_seconds_bucket", **labels, code="OK", le=le)
        for le in ("0.0025", "0.005", "60.0", "+Inf")
    ]
    assert buckets == [0, 1, 1, 1]
    assert value(shown, "request_duration_seconds_sum", **labels, code="OK") == 0.003
    assert value(shown, "request_duration_seconds_count", **labels, code="OK") == 1
    assert value(shown, "queue_wait_seconds_count", **labels) == 1


def test_queues_attempts_and_refusals_are_shown() -> None:
    shown = of_broker()
    assert value(shown, "rejected_total", servable="add", version="1", reason="queue_full") == 1
    assert value(shown, "dispatch_attempts_total") == 2
    assert value(shown, "queue_depth", servable="add", version="1") == 0
    assert value(shown, "inflight", servable="add", version="1", worker="slot1") == 1
    assert value(shown, "dropped_total", reason="late_reply") == 0
    assert value(shown, "requests_max") == 2


def test_what_workers_count_is_shown_in_seconds_and_unknown_names_are_left_out() -> None:
    labels = {"servable": "add", "version": "1", "model": "m", "subgraph": "0"}
    shown = of_broker()
    assert value(shown, "compute_seconds_bucket", **labels, le="0.002") == 1
    assert value(shown, "compute_seconds_count", **labels) == 3
    assert not [name for name, _ in samples(shown) if "tomorrow" in name]


def test_a_slot_is_in_one_state_and_so_is_its_device() -> None:
    labels = {"servable": "add", "version": "1", "worker": "add/1/0", "device": "Ascend:3"}
    shown = Snapshot(None, supervisor(), {}, {}, {"add": None, "other": "no worker"})
    states = {state: value(shown, "worker_state", **labels, state=state) for state in STATES}
    assert [state for state, is_it in states.items() if is_it] == ["READY"]
    assert value(shown, "device_state", device="Ascend:3", worker="add/1/0", state="serving") == 1
    assert value(shown, "worker_restarts_total", servable="add", reason="hung") == 3
    assert value(shown, "process_restarts_total", kind="gateway", reason="signal") == 1
    assert value(shown, "process_resident_bytes", process="add/1/0", kind="worker") == 1_000
    assert value(shown, "servable_ready", servable="add") == 1
    assert value(shown, "servable_ready", servable="other") == 0


def test_a_device_that_is_busy_or_at_fault_is_shown_so() -> None:
    def state_of(**changes: Any) -> str:
        shown = Snapshot(None, supervisor(slots=[SLOT | changes]), {}, {}, {})
        (state,) = [
            dict(labels)["state"]
            for (name, labels), is_it in samples(shown).items()
            if name == "mindbus_device_state" and is_it
        ]
        return state

    assert state_of(state="BACKOFF", has_busy_device=True) == "busy"
    assert state_of(state="DEVICE_FAULT", has_busy_device=True) == "fault"
    assert state_of(state="FAILED") == "unused"
    assert state_of(state="STARTING") == "loading"


def test_a_roll_has_a_progress() -> None:
    steps = [{"state": "DONE"}, {"state": "STARTING"}, {"state": "WAITING"}, {"state": "WAITING"}]
    roll = {"command": "reload", "failure": None, "replacements": steps}
    shown = Snapshot(None, supervisor(roll=roll), {}, {}, {})
    assert value(shown, "rolling_progress", command="reload") == 0.25


def test_every_gateway_is_shown_with_its_doors() -> None:
    numbers = Numbers()
    numbers.doors["rest"].inflight = 2
    numbers.doors["rest"].end("OK", 700_000)
    told = numbers.describe(connections=5, unread_bytes=6)
    shown = Snapshot(None, None, {"gateway/0": told, "gateway/1": told}, {}, {})
    for name in ("gateway/0", "gateway/1"):
        labels = {"gateway": name, "door": "rest"}
        assert value(shown, "gateway_request_total", **labels, code="OK") == 1
        assert value(shown, "gateway_inflight", **labels) == 1
        assert value(shown, "gateway_request_duration_seconds_bucket", **labels, le="0.001") == 1
        assert value(shown, "gateway_connections", gateway=name) == 5


def test_a_part_that_does_not_answer_is_down_and_its_numbers_have_an_age() -> None:
    shown = Snapshot(None, None, {}, {"broker": 0.0, "supervisor": 3.5}, {})
    assert value(shown, "up", source="broker") == 1
    assert value(shown, "up", source="supervisor") == 0
    assert value(shown, "age_seconds", source="supervisor") == 3.5


def test_who_asks_for_openmetrics_gets_it() -> None:
    content_type, text = render(of_broker(), "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_the_states_of_slots_are_those_of_the_supervisor() -> None:
    assert metrics.WORKER_STATES == STATES


# ---------------------------------------------------------------- the dashboard


def whole_server() -> Snapshot:
    """A snapshot in which every family has a sample."""
    numbers = Numbers()
    numbers.doors["rest"].end("OK", 1)
    roll = {"command": "reload", "failure": None, "replacements": [{"state": "DONE"}]}
    core = broker_with_worker(requests_max=1)
    core.receive_from_client(b"c", request(1) + request(2), 0)
    core.receive_from_worker(b"w1", reply(1), 3 * MS)
    series = [
        Histogram(name, tuple((label, "x") for label in labels), (1,), (1, 1), 2)
        for name, (_, labels, _) in metrics.WORKER_SERIES.items()
        if name not in ("executions", "instances", "recompiles")
    ]
    series += [
        Histogram(
            name, tuple((label, "x") for label in metrics.WORKER_SERIES[name][1]), (), (1,), 0
        )
        for name in ("executions", "instances", "recompiles")
    ]
    core.receive_from_worker(b"w1", control.pack(control.Heartbeat(numbers=tuple(series))), 0)
    return Snapshot(
        describe(core, 0),
        supervisor(roll=roll),
        {"gateway/0": numbers.describe(0, 0)},
        {"broker": 0.0, "supervisor": 0.0},
        {"add": None},
        {"Ascend:0": {"age_s": 1.0, "values": {"aicore": 0.5}}},
    )


def labels_by_name() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, labels in samples(whole_server()):
        found.setdefault(name, set()).update(dict(labels))
    return found


def test_every_query_of_the_dashboard_asks_for_what_there_is() -> None:
    shown = labels_by_name()
    for name, labels in asked().items():
        assert name in shown, f"{name} is in the dashboard, but no scrape has it"
        assert labels <= shown[name], (name, labels - shown[name])


def test_the_dashboard_shows_requests_queues_computing_and_states() -> None:
    assert len(list(queries())) > 30
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] == "row" or (panel["targets"] and panel["description"]), panel["title"]


def test_the_documentation_lists_every_name_with_its_labels() -> None:
    rows = re.findall(r"^\| `(mindbus_\w+)` \| (\w+) \| ([^|]*) \|", DOCUMENT, re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels in rows}
    shown: dict[str, set[str]] = {}
    for name, labels in labels_by_name().items():
        family = re.sub("_(bucket|sum|count)$", "", name) if "le" in labels else name
        if not re.search("_(sum|count)$", name) or name in listed:
            shown[family] = labels - {"le"}
    assert listed == shown
