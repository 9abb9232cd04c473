"""`python -m compiled`: compile the hot path, if what is compiled is not of today's sources.

Where it cannot be compiled one line says why, and the pure modules are used; with
MINDBUS_COMPILED=1 that is a failure, with MINDBUS_COMPILED=0 there is nothing to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from compiled import ALWAYS, NEVER, ROOT, SWITCH
from compiled.compiler import NotCompiledError, c_compiler, compile_modules
from compiled.manifest import (
    INTERPRETER,
    Manifest,
    hashes,
    home,
    read,
    why_not_usable,
    write,
)
from compiled.modules import MODULES
from compiled.sources import closure


def main(root: Path = ROOT) -> int:
    """Compile if it is due. Returns the exit code."""
    wish = os.environ.get(SWITCH)
    if wish == NEVER:
        return 0
    if is_fresh(root):
        return 0
    print("compiling the hot path (once for these sources; about a minute) …", flush=True)
    begin_s = time.monotonic()
    try:
        with alone(root):
            if not is_fresh(root):  # somebody else may just have done it
                renew(root)
    except NotCompiledError as error:
        print(f"the hot path stays pure Python, about half as fast: {error}", file=sys.stderr)
        return int(wish == ALWAYS)
    print(f"compiled {len(MODULES)} modules in {time.monotonic() - begin_s:.0f} s")
    return 0


def is_fresh(root: Path) -> bool:
    """Whether there is nothing to do."""
    made = read(root)
    return made is not None and made.modules == MODULES and why_not_usable(root, made) is None


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """One at a time: who comes second finds done what the first one did."""
    home(root).mkdir(parents=True, exist_ok=True)
    with (home(root) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def renew(root: Path) -> None:
    """Compile, and use it from now on. REQUIRES: `alone`. Raises: NotCompiledError."""
    old = read(root)
    command = c_compiler()
    # Before the first file is read: an edit meanwhile makes stale what comes of it.
    recipe = [str(file.relative_to(root)) for file in (root / "compiled").glob("*.py")]
    sources = hashes(root, sorted({*closure(root, MODULES), *recipe}))
    # A name of its own: what processes have loaded is never written again.
    directory = Path(tempfile.mkdtemp(prefix="made-", dir=home(root)))
    try:
        directory.chmod(0o755)
        compile_modules(command, root, MODULES, directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    write(root, Manifest(INTERPRETER, directory.name, MODULES, sources))
    # Processes that run may still import of the last one, and of none before it.
    kept = {directory.name, old.directory if old else ""}
    for other in home(root).glob("made-*"):
        if other.is_dir() and other.name not in kept:
            shutil.rmtree(other, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
