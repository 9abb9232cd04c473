"""Finds the version directory of a servable and imports its `servable_config.py`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from workers.servable.declarations import ServableDeclaration
from workers.servable.registry import collecting
from workers.stages.user_code import Raised, error_text, run_user_code

#: The attribute by which a package that was made here for a servable is known again.
_MARK = "__mindbus_servable__"


def resolve_version(
    directory: str | Path, servable_name: str, version: int, has_models: bool
) -> int:
    """The version that will run: `version` itself, or for 0 the newest one that is there.

    Version directories are those named by a positive number; a servable without models needs
    none, and then runs as version 1.
    Raises: RuntimeError if models are declared and there is no directory for them.
    """
    versions = _version_directories(directory, servable_name)
    if version > 0:
        if has_models and version not in versions:
            raise RuntimeError(
                "Start servable failed: There is no specified version directory of models, "
                f"specified version number: {version}, servable directory: '{directory}', "
                f"servable name: '{servable_name}'"
            )
        return version
    if not versions and has_models:
        raise RuntimeError(
            "There is no valid version directory of models while there are models declared in "
            f"servable_config.py, servable directory: {directory}, servable name: {servable_name}"
        )
    return max(versions, default=1)


def version_numbers(directory: str | Path, servable_name: str) -> list[int]:
    """The versions that have a directory, ascending."""
    return sorted(_version_directories(directory, servable_name))


def version_directory(directory: str | Path, servable_name: str, version: int) -> Path:
    """Where the files of a version are; a zero-padded name such as `007` is found, too."""
    path = Path(directory) / servable_name / str(version)
    return _version_directories(directory, servable_name).get(version, path)


def import_servable(directory: str | Path, servable_name: str) -> ServableDeclaration:
    """Import `<servable_name>.servable_config` from `directory` and return what it declared.

    The directory stays on `sys.path`, at its end, so that servables can import what lies there.
    The servable's own package is the one in `directory`, whatever else is installed under its
    name. Importing the same name again runs the file again.
    Raises: RuntimeError if the import fails or registers no method.
    """
    search_path = str(Path(directory).resolve())
    if search_path not in sys.path:
        sys.path.append(search_path)
    importlib.invalidate_caches()
    _forget(servable_name)
    with collecting(servable_name) as declaration:
        imported = run_user_code(lambda: _import(Path(search_path) / servable_name, servable_name))
    if isinstance(imported, Raised):
        raise RuntimeError(
            f"import {servable_name}.servable_config failed, {error_text(imported.error)}"
        ) from imported.error
    declaration.check_complete()
    return declaration


def _import(path: Path, servable_name: str) -> ModuleType:
    _claim_package(path, servable_name)
    return importlib.import_module(f"{servable_name}.servable_config")


def _claim_package(path: Path, servable_name: str) -> None:
    """Make `servable_name` a package whose modules are looked up in `path` first.

    A plain import would take an installed package of that name: a directory without
    `__init__.py` loses to any package with one, wherever the two stand on `sys.path`.
    """
    loaded = sys.modules.get(servable_name)
    if loaded is not None:
        # Others use it already (a servable called `numpy`), so it stays what it is, and only
        # its submodules are looked up in the servable's directory, too.
        loaded.__path__ = [str(path), *getattr(loaded, "__path__", ())]
        return
    init = path / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        servable_name, init, submodule_search_locations=[str(path)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    setattr(package, _MARK, True)
    sys.modules[servable_name] = package
    if init.is_file():
        spec.loader.exec_module(package)


def _forget(servable_name: str) -> None:
    """Drop an earlier import of a servable of this name, with all its modules."""
    package = sys.modules.get(servable_name)
    if package is None:
        return
    sys.modules.pop(f"{servable_name}.servable_config", None)
    if hasattr(package, _MARK):
        for name in [n for n in sys.modules if n.startswith(f"{servable_name}.")]:
            del sys.modules[name]
        del sys.modules[servable_name]


def _version_directories(directory: str | Path, servable_name: str) -> dict[int, Path]:
    """Directories by version number; `7` comes before `007` where both are there."""
    servable = Path(directory) / servable_name
    if not servable.is_dir():
        return {}
    found: dict[int, Path] = {}
    for path in sorted(servable.iterdir(), key=lambda path: (len(path.name), path.name)):
        if path.name.isascii() and path.name.isdigit() and int(path.name) > 0 and path.is_dir():
            found.setdefault(int(path.name), path)
    return found
