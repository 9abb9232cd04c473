"""`python -m broker`: the broker as a process of its own.

    python -m broker --producers ipc:///run/me/producers.ipc --workers ipc:///run/me/workers.ipc

SIGTERM and SIGINT drain: new requests are refused, running ones finish within the grace; a second
signal ends at once. A supervisor gives the same settings as a JSON document on stdin (`--stdin`)
and reads one line of JSON from the descriptor in MINDBUS_REPORT_FD once the sockets are bound. The
document may name `services` whose workers are about to register.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from typing import Any

import zmq

from broker.admission import Settings
from broker.core import Core
from broker.stopping import Stopping
from broker.switch import Switch
from telemetry.allocator import keep_blocks
from telemetry.collector import collect_seldom
from telemetry.log import configure, get_logger
from telemetry.orders import follow_orders

log = get_logger("BROKER")

#: Where its supervisor hears it, and gives orders.
REPORT_FD = "MINDBUS_REPORT_FD"

#: How long its last words to workers may take to leave.
GOODBYE_MS = 200

GRACE_MS_DEFAULT = 10_000

#: A worker is lost when it was silent for their product. The broker tells them to its workers.
HEARTBEAT_SETTINGS = ("heartbeat_interval_ms", "heartbeat_liveness")


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal. Returns the exit code: 0 drained, 1 could not start."""
    parser = argparse.ArgumentParser(prog="python -m broker", description="The MindBus broker.")
    parser.add_argument("--producers", action="append", metavar="ADDRESS", default=[])
    parser.add_argument("--workers", metavar="ADDRESS")
    parser.add_argument("--requests-max", type=int, default=Settings().requests_max)
    parser.add_argument("--grace-ms", type=int, default=GRACE_MS_DEFAULT)
    for name in HEARTBEAT_SETTINGS:
        flag = "--" + name.replace("_", "-")
        default = getattr(Settings(), name)
        parser.add_argument(flag, type=_positive, default=default, metavar="N")
    parser.add_argument("--stdin", action="store_true", help="read the settings from stdin")
    flags = parser.parse_args(arguments)
    document = {
        "producers_addresses": flags.producers,
        "workers_address": flags.workers,
        "requests_max": flags.requests_max,
        "grace_ms": flags.grace_ms,
    } | {name: getattr(flags, name) for name in HEARTBEAT_SETTINGS}
    if flags.stdin:
        document |= json.load(sys.stdin)
    elif not flags.producers or not flags.workers:
        parser.error("--producers and --workers are needed (or --stdin)")
    return run(document)


def run(document: dict[str, Any]) -> int:
    """Serve with the settings of a document (see `main`) until SIGTERM or SIGINT."""
    configure("mindbus_broker", level=document.get("log_level"))
    report_fd = os.environ.get(REPORT_FD)
    if report_fd is not None:
        follow_orders(int(report_fd))
    names = ("requests_max", "ready_ms", *HEARTBEAT_SETTINGS)
    settings = Settings(**{name: document[name] for name in names if name in document})
    core = Core(settings)
    for key in document.get("services", ()):
        core.registration.expect(key.encode(), time.monotonic_ns())
    try:
        switch = Switch(core, document["producers_addresses"], document["workers_address"])
    except OSError as error:
        print(f"mindbus broker: {error}", file=sys.stderr)
        return 1
    collect_seldom()
    keep_blocks()
    signals = _Signals()
    stopping = Stopping(document.get("grace_ms", GRACE_MS_DEFAULT))
    log.info("broker started", producers=switch.producers_addresses, workers=switch.workers_address)
    _report({"state": "ready", "producers": switch.producers_addresses})
    poller = zmq.Poller()
    for socket in (*switch.sockets, signals.reader):
        poller.register(socket, zmq.POLLIN)
    if switch.links is not None:
        poller.register(switch.links.fileno(), zmq.POLLIN)
    more = False
    while not stopping.is_over(core.load()[0], time.monotonic_ns()):
        timeout_ms = stopping.cut(switch.poll_timeout_ms(), time.monotonic_ns())
        poller.poll(0 if more else timeout_ms)
        count = signals.read()
        if count:
            stopping.begin(count, time.monotonic_ns())
            core.drain()
        refused = core.counters.refused
        more = switch.turn()
        is_quiet = refused == core.counters.refused and not more
        stopping.note_turn(is_quiet, time.monotonic_ns())
    core.registration.say_goodbye()
    switch.flush()
    switch.close(GOODBYE_MS)
    return 0


class _Signals:
    """SIGTERM and SIGINT as a readable descriptor."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def read(self) -> int:
        """How many came since the last look."""
        try:
            return len(os.read(self.reader, 64))
        except BlockingIOError:
            return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _report(line: dict[str, Any]) -> None:
    descriptor = os.environ.get(REPORT_FD)
    if descriptor is not None:
        os.write(int(descriptor), json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
