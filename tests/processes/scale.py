"""A servable `scale` with versions that tell themselves by what they multiply with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_serving.client import Client
from tests.processes.load import Load
from tests.processes.probe import SERVABLES
from tests.processes.server_process import CHECKOUT, ServerProcess

CONFIG = """
from mindspore_serving.server import register

model = register.declare_model("scale.json", "MindIR", with_batch_dim=True)


@register.register_method(output_names=["y"])
def scale(x):
    return register.add_stage(model, x, outputs_count=1)
"""

DOUBLE = json.loads((SERVABLES / "probe" / "1" / "double.json").read_text())


def write_version(root: Path, version: int, **changes: Any) -> None:
    """Version n multiplies by 10^n, unless it is told something else."""
    directory = root / "scale" / str(version)
    directory.mkdir(parents=True)
    (root / "scale" / "servable_config.py").write_text(CONFIG)
    script = {**DOUBLE, "factor": 10.0**version, "delay_ms": 5, **changes}
    (directory / "scale.json").write_text(json.dumps(script))


def command(server: ServerProcess, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the CLI on a server, as a user does."""
    where = ("--run-directory", str(server.run_directory))
    return subprocess.run(
        [sys.executable, "-m", "mindbus", name, *arguments, *where],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def reload(server: ServerProcess, *flags: str) -> subprocess.CompletedProcess[str]:
    """`mindbus reload scale`."""
    return command(server, "reload", "scale", *flags)


def slots_of(server: ServerProcess) -> dict[str, str]:
    """State of each worker slot."""
    return {s["slot"]: s["state"] for s in server.status()["slots"] if s["kind"] == "worker"}


class Versions(Load):
    """Clients of version 0 that count which version answered, by its factor."""

    def __init__(self, address: str) -> None:
        self.factors: Counter[int] = Counter()
        self._address = address
        super().__init__(self._make, clients=4, pause_s=0.01)

    def _make(self, _number: int) -> Callable[[], Any]:
        client = Client(self._address, "scale", "scale")

        def ask() -> Any:
            answer = client.infer([{"x": np.ones(4, np.float32)}])
            if not (isinstance(answer, list) and "y" in answer[0]):
                return answer
            self.factors[int(answer[0]["y"][0])] += 1
            return None

        return ask


@contextmanager
def serving(root: Path, *flags: str) -> Iterator[tuple[ServerProcess, Versions]]:
    """A server of the servables in a directory, and clients of `scale`."""
    with ServerProcess(root, "--backend", "numpy", *flags) as server:
        versions = Versions(server.grpc_address)
        try:
            yield server, versions
        finally:
            versions.stop()
