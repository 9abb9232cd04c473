"""The hot path as extension modules, which mypyc makes of the very sources that stand beside.

The pure modules are the twin: they are what is edited, and what runs where there is no compiler.

1. An extension is used only while every source that it was made of is as it was then, byte for
   byte, and the interpreter is the same. An edited file is never hidden by an older extension.
2. All or nothing: extensions call each other without asking Python.
3. Importing compiles nothing; `python -m compiled` does, and with it `make setup` and `make serve`.

Each room calls `use` before anything of it is imported. MINDBUS_COMPILED=0: the pure modules.
MINDBUS_COMPILED=1: an ImportError where the extensions cannot be used. Otherwise they are used if
they can be.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from compiled.finder import Finder
from compiled.manifest import read, why_not_usable

SWITCH = "MINDBUS_COMPILED"
NEVER, ALWAYS = "0", "1"

#: Where the rooms are; what was compiled of them is in `build/compiled` there.
ROOT = Path(__file__).resolve().parents[1]

#: Why this process runs the pure modules; None if it does not, or nobody has asked yet.
why_pure: str | None = None
_is_decided = False


def use() -> None:
    """Let the modules that are compiled be imported as extensions. Every call but one is void.

    Raises: ImportError if that is demanded and cannot be.
    """
    global why_pure, _is_decided
    if _is_decided:
        return
    _is_decided = True
    wish = os.environ.get(SWITCH)
    if wish == NEVER:
        why_pure = f"{SWITCH}={NEVER}"
        return
    manifest = read(ROOT)
    why_pure = "nothing is compiled" if manifest is None else why_not_usable(ROOT, manifest)
    if manifest is not None and why_pure is None:
        sys.meta_path.insert(0, Finder(ROOT, manifest))
    elif wish == ALWAYS:
        raise ImportError(f"{SWITCH}={ALWAYS}, but {why_pure}; run: python -m compiled")


def kind() -> str:
    """What the hot path of this process is, in words."""
    return "compiled" if why_pure is None else f"pure Python: {why_pure}"
