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
from broker.switch import Switch
from telemetry.log import configure, get_logger

log = get_logger("BROKER")

#: How long its last words to workers may take to leave.
GOODBYE_MS = 200

#: A broker that drains goes when nobody has asked for anything for so long.
QUIET_MS = 100

#: It waits for that only so long: somebody may ask again and again whatever he is told.
QUIET_WAIT_MS = 1_000

GRACE_MS_DEFAULT = 10_000

#: A worker is lost when it was silent for their product. The broker tells them to its workers.
HEARTBEAT_SETTINGS = ("heartbeat_interval_ms", "heartbeat_liveness")


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal. Returns the exit code: 0 drained, 1 could not start."""
    parser = argparse.ArgumentParser(prog="python -m broker", description="The MindBus broker.")
    parser.add_argument("--producers", action="append", metavar="ADDRESS", default=[])
    parser.add_argument("--workers", metavar="ADDRESS")
    parser.add_argument("--requests-max", type=int, default=Settings.requests_max)
    parser.add_argument("--grace-ms", type=int, default=GRACE_MS_DEFAULT)
    for name in HEARTBEAT_SETTINGS:
        flag = "--" + name.replace("_", "-")
        default = getattr(Settings, name)
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
    configure("mindbus_broker")
    settings = Settings(
        requests_max=document.get("requests_max", Settings.requests_max),
        ready_ms=document.get("ready_ms", Settings.ready_ms),
        **{name: document[name] for name in HEARTBEAT_SETTINGS if name in document},
    )
    core = Core(settings)
    for key in document.get("services", ()):
        core.registration.expect(key.encode(), time.monotonic_ns())
    try:
        switch = Switch(core, document["producers_addresses"], document["workers_address"])
    except OSError as error:
        print(f"mindbus broker: {error}", file=sys.stderr)
        return 1
    stopping = _Stopping(document.get("grace_ms", GRACE_MS_DEFAULT))
    log.info("broker started", producers=switch.producers_addresses, workers=switch.workers_address)
    _report({"state": "ready", "producers": switch.producers_addresses})
    poller = zmq.Poller()
    for socket in (*switch.sockets, stopping.reader):
        poller.register(socket, zmq.POLLIN)
    more = False
    while not stopping.is_over(core):
        poller.poll(0 if more else stopping.cut(switch.poll_timeout_ms()))
        stopping.note_signals(core)
        refused = core.counters.refused
        more = switch.turn()
        stopping.note_turn(is_quiet=refused == core.counters.refused and not more)
    core.say_goodbye()
    switch.flush()
    switch.close(GOODBYE_MS)
    return 0


class _Stopping:
    """Signals as a readable descriptor, and the grace that the first of them begins."""

    def __init__(self, grace_ms: int) -> None:
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._grace_ns = grace_ms * 1_000_000
        self._until_ns: int | None = None
        #: Since when nobody has asked for anything.
        self._quiet_ns = 0
        #: Since when everything is answered.
        self._idle_ns: int | None = None

    def note_signals(self, core: Core) -> None:
        """Begin the grace at the first signal, end it at the second."""
        try:
            count = len(os.read(self.reader, 64))
        except BlockingIOError:
            return
        now_ns = self._quiet_ns = time.monotonic_ns()
        if self._until_ns is not None or count > 1:
            self._until_ns = now_ns
        else:
            self._until_ns = now_ns + self._grace_ns
        core.drain()

    def note_turn(self, is_quiet: bool) -> None:
        """A turn is over. is_quiet: no client had to be refused in it."""
        if not is_quiet:
            self._quiet_ns = time.monotonic_ns()

    def is_over(self, core: Core) -> bool:
        """Everything is answered and clients have heard of it, or the grace is over.

        A request that is on its way is to be refused, not to be lost with our socket.
        """
        if self._until_ns is None:
            return False
        now_ns = time.monotonic_ns()
        if core.load()[0]:
            return now_ns >= self._until_ns
        if self._idle_ns is None:
            self._idle_ns = now_ns
        is_quiet = now_ns - self._quiet_ns >= QUIET_MS * 1_000_000
        return is_quiet or now_ns >= min(self._until_ns, self._idle_ns + QUIET_WAIT_MS * 1_000_000)

    def cut(self, timeout_ms: int | None) -> int | None:
        """The poll timeout, no longer than what is left of the grace, or of being quiet."""
        if self._until_ns is None:
            return timeout_ms
        left_ms = max(0, (self._until_ns - time.monotonic_ns()) // 1_000_000 + 1)
        left_ms = min(left_ms, QUIET_MS)
        return left_ms if timeout_ms is None else min(timeout_ms, left_ms)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _report(line: dict[str, Any]) -> None:
    descriptor = os.environ.get("MINDBUS_REPORT_FD")
    if descriptor is not None:
        os.write(int(descriptor), json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
