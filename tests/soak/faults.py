"""What goes wrong in a soak, one fault at a time, dealt by a seed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from mindbus.bus_client import BusClient
from mindbus.runtime_client import NotRunningError, RefusedError, RuntimeClient
from tests.processes.server_process import ServerProcess

#: A gateway or a broker is killed no more often: their slots' restart intensity is 5 in 60 s.
PAUSE_OF_INFRASTRUCTURE_S = 20.0
PAUSE_OF_WORKERS_S = 8.0

SLOW_BODY_FLOATS = 200_000

#: Of the servable `probe` in a soak; both answer alike.
VERSIONS = (1, 2)


class Faults:
    """Deals faults to a server until its time is over. counts: how many of each were dealt."""

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        #: (when, what) of each fault that was dealt
        self.log: list[tuple[float, str]] = []
        self._server = server
        self._random = random.Random(seed)
        self._last_s = {"worker": 0.0, "infrastructure": 0.0}
        self._kinds: dict[str, Callable[[], bool]] = {
            "kill worker": lambda: self._signal_worker(signal.SIGKILL),
            "stop worker": lambda: self._signal_worker(signal.SIGSTOP),
            "pause worker": self._pause_worker,
            "kill infrastructure": self._kill_infrastructure,
            "restart": self._restart,
            "reload": self._reload,
            "end of canary": self._end_canary,
            "restart infrastructure": self._restart_infrastructure,
            "cancel": self._cancel,
            "rubbish": self._rubbish,
            "slow reader": self._slow_reader,
            "vanishing producer": self._vanishing_producer,
        }

    def deal(self) -> None:
        """Let one thing go wrong; nothing if its kind did so too recently."""
        kind = self._random.choice(sorted(self._kinds))
        try:
            if self._kinds[kind]():
                self.counts[kind] += 1
                self.log.append((time.monotonic(), kind))
        except (NotRunningError, RefusedError, ProcessLookupError):
            self.counts[f"{kind}: not now"] += 1
        self.reset_failed()

    def reset_failed(self) -> None:
        """Slots that died too often are filled again, as an operator would."""
        with RuntimeClient(self._server.run_directory) as client:
            for slot in client.status()["slots"]:
                if slot["state"] == "FAILED":
                    with contextlib.suppress(RefusedError):
                        client.slot_command("reset", slot["slot"])
                        self.counts["reset"] += 1

    def _slots(self, *kinds: str) -> list[dict[str, Any]]:
        slots = self._server.status()["slots"]
        return [s for s in slots if s["kind"] in kinds and s["state"] == "READY" and s["pid"]]

    def _may(self, what: str, pause_s: float) -> bool:
        now_s = time.monotonic()
        if now_s - self._last_s[what] < pause_s:
            return False
        self._last_s[what] = now_s
        return True

    def _signal_worker(self, number: signal.Signals) -> bool:
        slots = self._slots("worker")
        if len(slots) < 2 or not self._may("worker", PAUSE_OF_WORKERS_S):
            return False
        os.kill(self._random.choice(slots)["pid"], number)
        return True

    def _pause_worker(self) -> bool:
        slots = self._slots("worker")
        if not slots:
            return False
        pid = self._random.choice(slots)["pid"]
        os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(self._random.uniform(0.05, 0.8))
        os.kill(pid, signal.SIGCONT)
        return True

    def _kill_infrastructure(self) -> bool:
        slots = self._slots("gateway", "broker")
        if not slots or not self._may("infrastructure", PAUSE_OF_INFRASTRUCTURE_S):
            return False
        os.kill(self._random.choice(slots)["pid"], signal.SIGKILL)
        return True

    def _begin(self, command: str, **request: Any) -> bool:
        with RuntimeClient(self._server.run_directory) as client:
            client.roll(command, {"settle_ms": 0, **request})
        return True

    def _restart(self) -> bool:
        return self._begin("restart", mode=self._random.choice(["surge", "in-place"]))

    def _reload(self) -> bool:
        """To one of the versions, perhaps as a canary; refused if it is served already."""
        version, percent = self._random.choice(VERSIONS), self._random.choice([None, 50])
        return self._begin("reload", servable="probe", version=version, canary_percent=percent)

    def _end_canary(self) -> bool:
        return self._begin(self._random.choice(["promote", "rollback"]), servable="probe")

    def _restart_infrastructure(self) -> bool:
        if not self._may("infrastructure", PAUSE_OF_INFRASTRUCTURE_S):
            return False
        return self._begin("restart", kind=self._random.choice(["gateway", "broker"]))

    def _cancel(self) -> bool:
        with RuntimeClient(self._server.run_directory) as client:
            client.cancel_roll()
        return True

    def _rubbish(self) -> bool:
        doors = [self._server.grpc_address, self._server.rest_address]
        host, port = self._random.choice(doors).rsplit(":", 1)
        rubbish = self._random.randbytes(self._random.randint(1, 5_000))
        address = (host, int(port))
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=5) as peer:
            peer.sendall(rubbish)
        path = self._server.producers_address.removeprefix("ipc://")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(5)
            peer.connect(path)
            peer.sendall(rubbish)
        return True

    def _slow_reader(self) -> bool:
        """Ask for much over REST, read a little, and go."""
        host, port = self._server.rest_address.rsplit(":", 1)
        values = b",".join([b"1.5"] * SLOW_BODY_FLOATS)
        body = b'{"instances":[{"x":[' + values + b"]}]}"
        head = f"POST /model/probe:copy HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        address = (host, int(port))
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=5) as peer:
            peer.sendall(head.encode() + body)
            threading.Event().wait(self._random.uniform(0.1, 1))
            peer.recv(100)
        return True

    def _vanishing_producer(self) -> bool:
        client = BusClient(self._server.producers_address, timeout=30)
        row = np.ones(4, np.float32)
        futures = [client.submit("probe", "slow", {"x": row}) for _ in range(50)]
        client.close()
        assert all(future.done() for future in futures)
        return True
