"""`python -m workers`: one device worker as a process of its own.

Its launch document comes on stdin, its reports leave as JSON lines on MINDBUS_REPORT_FD, if that
is set. SIGTERM or SIGINT drains; a second one ends the process at once, with exit code 1, even
while the main thread is inside of a long computation. Exit codes: 0 drained, 3 boot failure.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

from workers.orphan import begin_as_child
from workers.supervisor.child import REPORT_FD
from workers.supervisor.json_lines import encode_line

EXIT_FORCED = 1

#: How long threads and exit handlers of user code may hold up a worker that has drained.
EXIT_WAIT_S = 2.0


class WakeupSignals:
    """SIGTERM and SIGINT, read by the bus thread through Python's wakeup descriptor.

    The C-level handler writes the descriptor at once; a handler in Python would wait until the
    main thread comes back from the device.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._is_serving = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def install(self) -> None:
        """Handle SIGTERM and SIGINT. Only the main thread may call this."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        """From now on the bus reads signals; before, one ends the process: nobody waits for it."""
        self._is_serving = True

    def end(self, code: int) -> None:
        """End the process at once, from any thread."""
        _end(code)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._reader.fileno()

    def read(self) -> None:
        """Drain at the first signal, end the process at the second."""
        for number in self._reader.recv(64):
            if number not in (signal.SIGTERM, signal.SIGINT):
                continue
            if self._stop.is_set():
                _end(EXIT_FORCED)
            self._stop.set()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_serving:
            _end(0)


class Reporter:
    """Tells the supervisor how far the worker is, and the log, in words that people look for."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        from telemetry.orders import follow_orders

        self._document = document
        number = os.environ.get(REPORT_FD)
        self._fd = int(number) if number else None
        if self._fd is not None:
            os.set_inheritable(self._fd, False)
            follow_orders(self._fd)

    def __call__(self, said: dict[str, Any]) -> None:
        """Report a state."""
        if said["state"] == "ready":
            self._print_success(said["version"])
        if self._fd is not None:
            try:
                os.write(self._fd, encode_line(said))
            except OSError:
                # The supervisor is gone or does not listen: serving does not depend on it.
                self._fd = None

    def _print_success(self, version: int) -> None:
        directory, name = self._document["servable_directory"], self._document["servable_name"]
        text = (
            f"Serving: Start servable success, servable directory: '{directory}', "
            f"servable name: '{name}', version number: {version}\n"
        )
        with contextlib.suppress(OSError, ValueError):  # a full disk, or a closed pipe
            sys.stdout.write(text)
            sys.stdout.flush()


def _end(code: int) -> None:
    """End the process from whatever thread this is, without waiting for any other."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # there is nowhere left to say so
            stream.flush()
    os._exit(code)


def _bound_exit(code: int) -> None:
    """End the process soon, also if user code left a thread that never ends."""
    timer = threading.Timer(EXIT_WAIT_S, _end, (code,))
    timer.daemon = True
    timer.start()


def main() -> int:
    """Run the worker that stdin describes. Returns its exit code."""
    document = begin_as_child()
    stop = threading.Event()
    signals = WakeupSignals(stop)
    signals.install()
    # Only now: these imports take long, and nobody shall outlive his parent meanwhile.
    from telemetry.log import configure
    from workers.device_worker import run_worker
    from workers.progress_page import page_from_environment

    configure("worker", level=document.get("log_level"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What user code prints shall be in a log file when the process is killed.
        sys.stdout.reconfigure(line_buffering=True)
    page = page_from_environment()
    code = run_worker(document, stop, Reporter(document), signals, page=page)
    _bound_exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
