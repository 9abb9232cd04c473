"""What an adapter of a peer says: how it is installed and started, and what it can run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.models import Model
from bench.processes import Running

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
SERVERS = Path(__file__).resolve().parent / "servers"
ENVIRONMENTS = ROOT / "build" / "peers"


@dataclass(frozen=True)
class Peer:
    """One peer, or one setting of it.

    name: as the report has it. environment: the directory of its virtual environment, and the name
    of its requirements file. start: gives the server once it answers; raises StartError.
    workloads: those that it can run. is_busy_when_idle: its processes take a core's time also
    when nobody asks, so it runs only while it is measured.
    """

    name: str
    environment: str
    start: Callable[[Model], Running]
    workloads: tuple[str, ...] = ("w1", "w5")
    is_busy_when_idle: bool = False

    @property
    def is_installed(self) -> bool:
        """Whether its environment was made to the end."""
        return (directory_of(self.environment) / ".installed").exists()


def directory_of(environment: str) -> Path:
    """Where the virtual environment of a peer is."""
    return ENVIRONMENTS / environment


def python_of(environment: str) -> str:
    """The interpreter of a peer's environment."""
    return str(directory_of(environment) / "bin" / "python")


def site_packages(environment: str) -> Path:
    """Where its packages are."""
    (found,) = (directory_of(environment) / "lib").glob("python3*/site-packages")
    return found


def version_of(environment: str, package: str) -> str:
    """The version of a package that is installed there."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    ended = subprocess.run(
        [python_of(environment), "-c", code], capture_output=True, text=True, check=False
    )
    return ended.stdout.strip() or "?"
