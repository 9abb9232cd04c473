"""A server's status as text."""

from typing import Any

from mindbus.status_table import format_status, merge_stats, progress_line, ready_line


def slot(name: str, kind: str, **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "slot": name,
        "kind": kind,
        "servable": None,
        "version": None,
        "device": None,
        "state": "READY",
        "pid": 12,
        "generation": 1,
        "restarts": 0,
        "last_exit": None,
        "error": None,
        "since_s": 3.25,
    }
    return base | more


WORKER = slot(
    "add/1/device0",
    "worker",
    servable="add",
    version=1,
    device={"target": "CPU", "id": 0},
    generation=2,
    last_exit="killed by SIGKILL",
    since_s=3_725.0,
)
STATUS: dict[str, Any] = {
    "pid": 11,
    "mode": "embedded",
    "state": "serving",
    "run_directory": "/r",
    "producers": ["ipc:///r/producers.ipc"],
    "doors": [{"kind": "grpc", "address": "127.0.0.1:1"}, {"kind": "rest", "address": "h:2"}],
    "slots": [slot("gateway/0", "gateway"), WORKER],
    "roll": None,
    "changes": [],
}


def roll(*states: str, failure: str | None = None, waits_for: str | None = None) -> dict[str, Any]:
    is_over = failure is not None or all(state == "DONE" for state in states)
    return {
        "is_over": is_over,
        "failure": failure,
        "waits_for": waits_for,
        "replacements": [{"old": "a", "new": "a~", "mode": "surge", "state": s} for s in states],
    }


STATS = {
    "hot_path": "compiled",
    "requests": 3,
    "requests_max": 10,
    "counters": {"answered": 5, "failed": 1, "refused": 0, "redispatched": 2},
    "services": [
        {
            "service": "add/1",
            "workers": 1,
            "queued": 2,
            "waiting_ms": 1_250,
            "suspects": 1,
            "second_attempts": 1,
            "not_ready": None,
        }
    ],
    "servables": [{"servable": "add", "version": 1}],
    "workers": [
        {"worker_id": "add/1/device0", "generation": 2, "in_flight": 1, "busy_ms": 8},
        {"worker_id": "add/1/device0", "generation": 1, "in_flight": 9, "busy_ms": 9},
    ],
}


def test_a_roll_is_shown_as_far_as_it_is() -> None:
    assert progress_line(roll("WAITING", "WAITING", waits_for="a")) == (
        "[........................] 0/2 a WAITING"
    )
    assert progress_line(roll("DONE", "SETTLING", waits_for="b~")) == (
        "[##################......] 1/2 b~ SETTLING"
    )
    assert progress_line(roll("DONE", "DONE")) == "[########################] 2/2 done"
    stopped = roll("DONE", "FAILED", failure="slot b~ failed")
    assert progress_line(stopped) == "[############............] 1/2 stopped"


def test_the_status_tells_of_the_roll() -> None:
    status = merge_stats(STATUS | {"roll": roll("STARTING", waits_for="a~")}, STATS)
    assert "roll           [######..................] 0/1 a~ STARTING" in format_status(status)
    assert "roll" not in format_status(merge_stats(STATUS, STATS))


def test_the_status_tells_which_versions_take_turns() -> None:
    change = {
        "servable": "add",
        "stable": 1,
        "canary": 2,
        "percent": 5,
        "shares": [[1, 95], [2, 5]],
    }
    waiting = change | {"servable": "net", "percent": None, "shares": []}
    text = format_status(merge_stats(STATUS | {"changes": [change, waiting]}, STATS))
    assert "versions       add: stable 1 95 %, canary 2 5 %\n" in text
    assert "versions       net: stable 1, canary 2\n" in text


def test_each_worker_gets_what_the_broker_knows_of_its_present_generation() -> None:
    merged = merge_stats(STATUS, STATS)
    assert [(s["in_flight"], s["busy_ms"]) for s in merged["slots"]] == [(None, None), (1, 8)]
    assert merged["broker"]["requests"] == 3
    assert "workers" not in merged["broker"]


def test_the_table_is_aligned_and_complete() -> None:
    assert format_status(merge_stats(STATUS, STATS)).splitlines() == [
        "MindBus serving, ready, pid 11, mode embedded",
        "doors          gRPC 127.0.0.1:1, RESTful h:2",
        "producers      ipc:///r/producers.ipc",
        "run directory  /r",
        "",
        "SLOT           STATE  DEVICE  PID  GENERATION  SINCE      IN FLIGHT  LAST EXIT",
        "gateway/0      READY  -       12   1           3.2 s      -          -",
        "add/1/device0  READY  CPU:0   12   2           1 h 2 min  1          killed by SIGKILL",
        "",
        "SERVICE  WORKERS  QUEUED  OLDEST  SECOND ATTEMPTS  READY",
        "add/1    1        2       1.2 s   2                ready",
        "",
        "hot path       compiled",
        (
            "requests 3 of 10; since the broker's start 5 answered, 1 failed, 0 refused, "
            "2 redispatched"
        ),
    ]


def test_a_broker_that_does_not_answer_is_said_to_be_away() -> None:
    away = STATUS | {"producers": [], "doors": []}
    lines = format_status(merge_stats(away, None)).splitlines()
    assert lines[0].startswith("MindBus serving, not ready (no door is open), pid 11")
    assert lines[1:3] == ["doors          none", "producers      none"]
    assert lines[-1] == "The broker does not answer."


def test_the_ready_line_names_servables_workers_and_addresses() -> None:
    two = STATUS | {"slots": [*STATUS["slots"], WORKER, WORKER | {"version": 2}]}
    assert ready_line(two) == (
        "MindBus: ready, pid 11, servables add/1 (2 workers), add/2 (1 worker); "
        "gRPC 127.0.0.1:1, RESTful h:2, producers ipc:///r/producers.ipc"
    )
