"""A start script as a user of MindSpore Serving writes it, run as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.processes.waiting import DEADLINE_S, descendants, wait_gone, wait_until

ROOT = Path(__file__).parents[2]

SERVABLE_CONFIG = """
import numpy as np
from mindspore_serving.{package} import register

model = register.declare_model(
    model_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False
)


def to_float32(x1, x2):
    return x1.astype(np.float32), x2.astype(np.float32)


@register.register_method(output_names=["y"])
def add_cast(x1, x2):
    x1, x2 = register.add_stage(to_float32, x1, x2, outputs_count=2)
    return register.add_stage(model, x1, x2, outputs_count=1)
"""

_MATRIX = {"dtype": "float32", "shape": [2, 2]}
_MODEL = {
    "inputs": [{"name": "x1", **_MATRIX}, {"name": "x2", **_MATRIX}],
    "outputs": [{"name": "y", **_MATRIX}],
    "op": "add",
}


def write_servable(directory: Path, package: str = "server") -> None:
    """The servable `add`, version 1, for the numpy backend. package: where `register` is from."""
    version = directory / "add" / "1"
    version.mkdir(parents=True)
    (directory / "add" / "servable_config.py").write_text(SERVABLE_CONFIG.format(package=package))
    (version / "tensor_add.mindir").write_text(json.dumps(_MODEL))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class StartScript:
    """Runs `source`, a file of `directory`; collects what it says. A context manager.

    Its current directory is `directory/cwd`: what is relative in a script begins elsewhere.
    """

    def __init__(
        self, directory: Path, source: str, backend: str = "numpy", **environment: str
    ) -> None:
        """environment: variables beside those of this process."""
        path = directory / "serving_server.py"
        path.write_text(source)
        self._directory = directory
        self.cwd = directory / "cwd"
        self.cwd.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "MINDBUS_BACKEND": backend,
                "XDG_RUNTIME_DIR": str(directory),
                **environment,
            },
            cwd=self.cwd,
        )
        self.lines: list[str] = []
        self.error_lines: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.error_lines)),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            below = descendants(self.process.pid)
            self.process.kill()
            self.process.wait()
            for pid in below:
                wait_gone(pid)
        for reader in self._readers:
            reader.join(DEADLINE_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def wait_for(self, text: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait until a line begins with this text."""

        def is_said() -> bool:
            if any(line.startswith(text) for line in self.lines):
                return True
            if self.process.poll() is not None and not self._readers[0].is_alive():
                said = [*self.lines, *self.error_lines]
                raise AssertionError(f"script ended with {self.process.returncode}: {said}")
            return False

        wait_until(is_said, deadline_s)

    def errors(self) -> str:
        """What it has said on stderr."""
        if self.process.poll() is not None:
            self._readers[1].join(DEADLINE_S)
        return "\n".join(self.error_lines)

    def children(self) -> set[int]:
        """Processes that the script started, and what these started."""
        return descendants(self.process.pid)

    def end(self, number: signal.Signals) -> int:
        """Send a signal; the exit code once the script and everything below it is gone."""
        below = self.children()
        self.process.send_signal(number)
        exit_code = self.process.wait(DEADLINE_S)
        for pid in below:
            wait_gone(pid)
        return exit_code

    def run_directories(self) -> list[str]:
        """What servers left, or have, where their sockets are."""
        return [path.name for path in self._directory.glob("mindbus*")]

    def logs(self) -> dict[str, list[str]]:
        """The files in `serving_logs` by name, with their lines so far."""
        directory = self.cwd / "serving_logs"
        return {path.name: path.read_text().splitlines() for path in directory.iterdir()}

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))


def post(port: int, target: str, body: object) -> Any:
    """One request to the RESTful door; its JSON reply."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{target}", json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as reply:
        return json.load(reply)
