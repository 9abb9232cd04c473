"""Installs the peers side by side: `python -m bench.peers [NAME …]`; `make bench-peers`.

Each gets a virtual environment of its own in build/peers, with the versions that its file in
bench/peers/requirements names. One that cannot be installed is reported, and the others go on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.peers import registry, triton
from bench.peers.peer import REQUIREMENTS, directory_of

INSTALL_SECONDS_MAX = 900

#: Beside the peers themselves: Envoy, whose bare echo is a ceiling.
ENVIRONMENTS = (*registry.ENVIRONMENTS, "pyvoy")

#: What is to be done once the packages are there.
PREPARE: dict[str, Callable[[Path], None]] = {triton.ENVIRONMENT: triton.prepare}


def install(name: str) -> str:
    """Make an environment unless it is there. Returns: why it could not be made, or nothing."""
    directory = directory_of(name)
    requirements = REQUIREMENTS / f"{name}.txt"
    stamp = directory / ".installed"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return ""
    shutil.rmtree(directory, ignore_errors=True)
    python = str(directory / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(directory)],
        [*pip, "-r", str(requirements)],
    ):
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
            )
        except subprocess.TimeoutExpired:
            return f"not done in {INSTALL_SECONDS_MAX} s"
        if ended.returncode:
            lines = (ended.stderr or ended.stdout).strip().splitlines()
            return next((line for line in lines if line.startswith("ERROR")), lines[-1])
    PREPARE.get(name, lambda _: None)(directory)
    stamp.write_text(requirements.read_text())
    return ""


def main() -> int:
    """Install what is asked for, or everything. Returns 1 if something could not be installed."""
    names = sys.argv[1:] or list(ENVIRONMENTS)
    failed = False
    for name in names:
        if name not in ENVIRONMENTS:
            print(f"{name} is none of {', '.join(ENVIRONMENTS)}", file=sys.stderr)
            return 2
        print(f"{name:10} …", end=" ", flush=True)
        reason = install(name)
        print(f"NOT INSTALLED: {reason}" if reason else "installed", flush=True)
        failed = failed or bool(reason)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
