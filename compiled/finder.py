"""Imports of compiled modules lead to their extensions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from compiled.manifest import LIBRARY, Manifest, extension


class Finder:
    """An entry of `sys.meta_path`; it knows the modules of one compilation, of one root."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self._root = root
        self._files = {
            module: str(extension(root, manifest, module))
            for module in (LIBRARY, *manifest.modules)
        }

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The extension of a module, or None: others may look for it.

        path: of the package that it belongs to. One of somebody else's that has the name of a room
        of ours has modules of its own.
        """
        file = self._files.get(name)
        if file is None or not (name == LIBRARY or self._is_ours(name, path)):
            return None
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))

    def _is_ours(self, name: str, path: Sequence[str] | None) -> bool:
        rooms = name.split(".")[:-1]
        return bool(path) and Path(next(iter(path or ()))).resolve() == self._root.joinpath(*rooms)
