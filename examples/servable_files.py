"""Puts a servable on disk so that others see it whole or not at all.

Everything is written aside, on the same file system, and renamed into place: a server, or a second
run at the same time, never meets half a model.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

#: The `servable_config.py` files, one directory per servable.
CONFIGS = Path(__file__).resolve().parent / "servables"

#: The one version of each model.
VERSION = "1"

_NONE: Mapping[str, str] = MappingProxyType({})


def make_servable(
    servable: Path,
    model_files: Sequence[str],
    make_models: Callable[[Path], object],
    texts: Mapping[str, str] = _NONE,
) -> bool:
    """Make what is missing of one servable; its name is that of the directory.

    make_models: writes all of `model_files` into the directory that it is given. It is called only
        if one of them is missing.
    texts: files beside `servable_config.py`, by name; renewed where they differ.
    Returns: whether models were made now.
    """
    servable.mkdir(parents=True, exist_ok=True)
    is_missing = not all((servable / VERSION / file).is_file() for file in model_files)
    if is_missing:
        _make_version(servable, model_files, make_models)
    for name, text in texts.items():
        _replace_if_other(text.encode(), servable / name)
    # The config comes last: a directory without one is not yet a servable.
    config = CONFIGS / servable.name / "servable_config.py"
    _replace_if_other(config.read_bytes(), servable / config.name)
    return is_missing


@contextmanager
def aside(directory: Path) -> Iterator[Path]:
    """A temporary directory on the file system of `directory`, gone afterwards."""
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def rename_unless_there(source: Path, target: Path) -> bool:
    """Rename a directory; False if a directory with content is at `target` already."""
    try:
        source.rename(target)
    except OSError:
        if target.is_dir():
            return False
        raise
    return True


def _make_version(
    servable: Path, model_files: Sequence[str], make_models: Callable[[Path], object]
) -> None:
    with aside(servable.parent) as partial:
        version = partial / VERSION
        version.mkdir()
        make_models(version)
        if not rename_unless_there(version, servable / VERSION):
            # Somebody else's version directory: another run's, whole, or a user's without ours.
            for file in model_files:
                _move_if_other(version / file, servable / VERSION / file)


def _move_if_other(source: Path, target: Path) -> None:
    if not (target.is_file() and target.read_bytes() == source.read_bytes()):
        source.replace(target)


def _replace_if_other(content: bytes, target: Path) -> None:
    if target.is_file() and target.read_bytes() == content:
        return
    handle, partial = tempfile.mkstemp(prefix=".partial-", dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(partial).chmod(0o644)
    Path(partial).replace(target)
