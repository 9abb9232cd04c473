"""A server's status as text: what the supervisor knows of processes, and the broker of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mindbus.readiness import why_not_ready, why_servables_not_ready
from protocol.head import LABELS
from workers.supervisor.door_table import DOOR_NAMES

NOTHING = "-"

HEADINGS = ("SLOT", "STATE", "DEVICE", "PID", "GENERATION", "SINCE", "IN FLIGHT", "LAST EXIT")
SERVICE_HEADINGS = ("SERVICE", "WORKERS", "QUEUED", "OLDEST", "SECOND ATTEMPTS", "READY")


BAR_WIDTH = 24

#: How far a replacement is when it is in a state, as a part of one.
PARTS = {"WAITING": 0.0, "STARTING": 0.25, "SETTLING": 0.5, "DRAINING": 0.75, "DONE": 1.0}


def merge_stats(status: Mapping[str, Any], stats: Mapping[str, Any] | None) -> dict[str, Any]:
    """The status with the broker's view: `in_flight` and `busy_ms` at each worker, and `broker`;
    and what follows from both: `not_ready` of the server and of each servable, None where it is.

    stats: the broker's answer to STATS, or None if it does not answer; then `broker` is None.
    """
    known = {
        (worker["worker_id"], worker["generation"]): worker
        for worker in (stats or {}).get("workers", [])
    }
    merged = []
    for slot in status["slots"]:
        seen = known.get((slot["slot"], slot["generation"]), {})
        merged.append({**slot, "in_flight": seen.get("in_flight"), "busy_ms": seen.get("busy_ms")})
    broker = None
    if stats is not None:
        broker = {key: value for key, value in stats.items() if key not in ("workers", "book")}
    return {
        **status,
        "live": True,
        "not_ready": why_not_ready(status, stats),
        "servables": [
            {"servable": name, "not_ready": reason}
            for name, reason in why_servables_not_ready(status, stats).items()
        ],
        "slots": merged,
        "broker": broker,
    }


def format_status(status: Mapping[str, Any]) -> str:
    """Lines for people. status: the result of `merge_stats`."""
    doors = [f"{DOOR_NAMES[door['kind']]} {door['address']}" for door in status["doors"]]
    ready = _ready_text(status["not_ready"])
    lines = [
        f"MindBus {status['state']}, {ready}, pid {status['pid']}, mode {status['mode']}",
        f"doors          {', '.join(doors) or 'none'}",
        f"producers      {', '.join(status['producers']) or 'none'}",
        f"run directory  {status['run_directory']}",
        "",
        *_table(HEADINGS, [_slot_row(slot) for slot in status["slots"]]),
        "",
    ]
    if status["roll"] is not None:
        lines += [f"roll           {progress_line(status['roll'])}", ""]
    lines += [*map(_change_line, status["changes"]), *([""] if status["changes"] else [])]
    broker = status["broker"]
    if broker is None:
        lines.append("The broker does not answer.")
        return "\n".join(lines)
    if broker["services"]:
        rows = [_service_row(service) for service in broker["services"]]
        lines += [*_table(SERVICE_HEADINGS, rows), ""]
    counters = broker["counters"]
    lines.append(f"hot path       {broker['hot_path']}")
    lines.append(
        f"requests {broker['requests']} of {broker['requests_max']}; since the broker's start "
        f"{counters['answered']} answered, {counters['failed']} failed, "
        f"{counters['refused']} refused, {counters['redispatched']} redispatched"
    )
    return "\n".join(lines)


def ready_line(status: Mapping[str, Any]) -> str:
    """The one line that says that everything serves. REQUIRES: every slot is there."""
    workers: dict[str, int] = {}
    for slot in status["slots"]:
        if slot["servable"]:
            service = f"{slot['servable']}/{slot['version']}"
            workers[service] = workers.get(service, 0) + 1
    servables = ", ".join(
        f"{service} ({count} worker{'s' if count > 1 else ''})"
        for service, count in workers.items()
    )
    addresses = ", ".join(
        [f"{DOOR_NAMES[door['kind']]} {door['address']}" for door in status["doors"]]
        + [f"producers {address}" for address in status["producers"]]
    )
    return f"MindBus: ready, pid {status['pid']}, servables {servables}; {addresses}"


def progress_line(roll: Mapping[str, Any]) -> str:
    """One line: a bar, how many are done, and what the roll waits for."""
    steps = roll["replacements"]
    done = sum(step["state"] == "DONE" for step in steps)
    part = sum(PARTS.get(step["state"], 0.0) for step in steps) / len(steps)
    filled = round(part * BAR_WIDTH)
    line = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {done}/{len(steps)}"
    if roll["failure"] is not None:
        return f"{line} stopped"
    if roll["is_over"]:
        return f"{line} done"
    current = next(step for step in steps if step["state"] != "DONE")
    return f"{line} {roll['waits_for']} {current['state']}"


def _change_line(change: Mapping[str, Any]) -> str:
    """One line on a servable between two versions: their labels and shares."""
    weights = dict(map(tuple, change["shares"]))
    total = sum(weights.values())
    parts = [
        f"{label} {change[label]}"
        + (f" {100 * weights.get(change[label], 0) / total:.0f} %" if total else "")
        for label in LABELS
    ]
    return f"versions       {change['servable']}: {', '.join(parts)}"


def _slot_row(slot: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        slot["slot"],
        slot["state"],
        _device(slot["device"]),
        _or_nothing(slot["pid"]),
        str(slot["generation"]),
        _duration(slot["since_s"]),
        _or_nothing(slot["in_flight"]),
        _or_nothing(slot["error"] or slot["last_exit"]),
    )


def _service_row(service: Mapping[str, Any]) -> tuple[str, ...]:
    waiting = service["suspects"] + service["second_attempts"]
    return (
        service["service"],
        str(service["workers"]),
        str(service["queued"]),
        _duration(service["waiting_ms"] / 1_000) if service["queued"] else NOTHING,
        str(waiting),
        _ready_text(service["not_ready"]),
    )


def _ready_text(not_ready: str | None) -> str:
    return "ready" if not_ready is None else f"not ready ({not_ready})"


def _device(device: Any) -> str:
    if isinstance(device, Mapping):
        return f"{device['target']}:{device['id']}"
    return _or_nothing(device)


def _or_nothing(value: Any) -> str:
    return NOTHING if value is None else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]
