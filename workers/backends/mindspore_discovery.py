"""Where MindSpore is, which version it has, and what its libraries need, without importing it.

The supervisor asks before it starts workers, because the library path of a process is fixed when
it starts and because importing MindSpore takes seconds. Every function returns a value or a text;
the caller logs. Texts are those of MindSpore Serving where it has them. What else Ascend needs
(PYTHONPATH with the TBE operators, ASCEND_OPP_PATH) is set by CANN's own `set_env.sh`, and
MindSpore 2.10 itself warns of what is missing.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import NamedTuple

#: Where CANN is installed, best first, below `ASCEND_ROOT`.
ASCEND_ROOT = Path("/usr/local/Ascend")
ASCEND_PACKAGES = ("nnae/latest", "ascend-toolkit/latest", "latest")

#: Said when the library path cannot be extended; not an error until a model is needed.
NOT_FOUND_TEXT = "find mindspore failed, LD_LIBRARY_PATH will not add MindSpore lib path"

_QUOTED = re.compile(r"""__version__\s*=\s*['"]([^'"]+)['"]""")


class MindSporeMissingError(Exception):
    """MindSpore is needed and not installed; the text is one line that says what to install."""


class LibraryPath(NamedTuple):
    """The LD_LIBRARY_PATH for a worker. text: what changed, for an INFO line; None = nothing."""

    value: str
    text: str | None


def find_package(
    find_spec: Callable[[str], ModuleSpec | None] = importlib.util.find_spec,
) -> Path | None:
    """The directory of the `mindspore` package that this interpreter would import, or None."""
    try:
        spec = find_spec("mindspore")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def require_package(
    find_spec: Callable[[str], ModuleSpec | None] = importlib.util.find_spec,
) -> Path:
    """The directory of the `mindspore` package. Raises MindSporeMissingError."""
    package = find_package(find_spec)
    if package is None:
        raise MindSporeMissingError(
            f"MindSpore is not installed for {sys.executable}: run `{sys.executable} -m pip "
            "install mindspore` (Python 3.11 or 3.12; for Ascend also its CANN toolkit, see "
            "https://www.mindspore.cn/install). Servables without models do not need it."
        )
    return package


# ---------------------------------------------------------------- version


def read_version(package: Path) -> str | None:
    """The version in the first line of `<mindspore>/version.py`, or None if it is unreadable."""
    try:
        with (package / "version.py").open(encoding="utf-8") as file:
            match = _QUOTED.search(file.readline())
    except (OSError, UnicodeDecodeError):
        return None
    return match.group(1) if match else None


def version_warning(mindspore_version: str | None, serving_version: str | None) -> str | None:
    """Why the two versions may not fit, or None. The first two components must be equal."""
    if serving_version is None:
        return "Get MindSpore Serving version failed"
    if mindspore_version is None:
        return "Get MindSpore version failed"
    if mindspore_version.split(".")[:2] == serving_version.split(".")[:2]:
        return None
    return (
        f"MindSpore version {mindspore_version} and MindSpore Serving version {serving_version} "
        "are expected to be consistent. If not, there may be compatibility problems."
    )


# ---------------------------------------------------------------- library path


def find_ascend_library(root: Path = ASCEND_ROOT) -> Path | None:
    """The `lib64` directory of the installed CANN, or None."""
    for package in ASCEND_PACKAGES:
        directory = root / package / "lib64"
        if directory.is_dir():
            return directory
    return None


def library_path(current: str, package: Path | None, ascend_library: Path | None) -> LibraryPath:
    """LD_LIBRARY_PATH with CANN's libraries before the user's entries and MindSpore's after them.

    current: the variable as it is, "" if unset. Entries that are listed stay where they are.
    """
    entries = [entry for entry in current.split(":") if entry]
    if ascend_library is not None and str(ascend_library) not in entries:
        entries.insert(0, str(ascend_library))
    if package is not None and str(package / "lib") not in entries:
        entries.append(str(package / "lib"))
    value = ":".join(entries)
    if value != current:
        return LibraryPath(value, f"Update env LD_LIBRARY_PATH from '{current}' to '{value}'")
    return LibraryPath(value, NOT_FOUND_TEXT if package is None else None)
