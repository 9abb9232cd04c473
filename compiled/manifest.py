"""What was compiled, of which sources, and whether these are still the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import source_hash
from pathlib import Path
from typing import NamedTuple

#: How the extensions' files end: for which Python and which machine they are.
SUFFIX = EXTENSION_SUFFIXES[0]

#: Who can load them.
INTERPRETER = f"{sys.version} {SUFFIX}"

#: The library that holds the code of all modules; each module's own file is a door to it.
LIBRARY = "mindbus__mypyc"


class Manifest(NamedTuple):
    """One compilation. directory: its name, in `build/compiled`.

    modules: full names. sources: the hash of every file that the extensions depend on, by its
    path from the root; constants of pure modules are in the extensions, too.
    """

    interpreter: str
    directory: str
    modules: tuple[str, ...]
    sources: dict[str, str]


def home(root: Path) -> Path:
    """Where everything compiled is, and the manifest of what is to be used."""
    return root / "build" / "compiled"


def extension(root: Path, manifest: Manifest, module: str) -> Path:
    """The file of one module."""
    return home(root) / manifest.directory / (module.replace(".", "/") + SUFFIX)


def read(root: Path) -> Manifest | None:
    """The manifest of the last compilation; None if there is none that can be read."""
    try:
        told = json.loads((home(root) / "manifest.json").read_bytes())
        return Manifest(
            told["interpreter"], told["directory"], tuple(told["modules"]), told["sources"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(root: Path, manifest: Manifest) -> None:
    """Make this the compilation that is used from now on."""
    file = home(root) / "manifest.json"
    new = file.with_name(f"{manifest.directory}.json")
    new.write_text(json.dumps(manifest._asdict(), indent=1))
    new.replace(file)


def why_not_usable(root: Path, manifest: Manifest) -> str | None:
    """Why the extensions must not be used; None if nothing speaks against them."""
    if manifest.interpreter != INTERPRETER:
        return "what is compiled is for another Python"
    try:
        for path, number in manifest.sources.items():
            if hash_of(root / path) != number:
                return f"{path} has changed since it was compiled"
    except OSError:
        return f"{path} is gone since it was compiled"
    for module in (LIBRARY, *manifest.modules):
        if not extension(root, manifest, module).is_file():
            return f"the extension {module} is gone"
    return None


def hash_of(path: Path) -> str:
    """The hash by which Python itself knows its compiled files' sources (PEP 552)."""
    return source_hash(path.read_bytes()).hex()


def hashes(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """The hash of each file, by its path from the root."""
    return {path: hash_of(root / path) for path in paths}
