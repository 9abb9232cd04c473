"""Which of our files a compilation depends on."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path


def path_of(module: str) -> str:
    """The file of a module, from the root; packages are never compiled."""
    return module.replace(".", "/") + ".py"


def is_room(path: str) -> bool:
    """Whether a file is a room's `__init__`: what it does for others does not concern mypyc."""
    return path.endswith("/__init__.py") and path != "compiled/__init__.py"


def closure(root: Path, modules: Iterable[str]) -> list[str]:
    """The files of the modules, and of all that they import of ours, at any remove.

    Also what only type checkers see: mypyc takes types and constants of there.
    """
    found: set[str] = set()
    waiting = [file for module in modules for file in _files(root, module)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            if is_room(path):
                continue
            tree = ast.parse((root / path).read_bytes(), path)
            waiting += {file for name in _imports(tree) for file in _files(root, name)}
    return sorted(found)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(root: Path, name: str) -> Iterator[str]:
    """The files that a dotted name stands for, if it is ours: of it and of its packages."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        place = "/".join(parts[:count])
        for path in (f"{place}.py", f"{place}.pyi", f"{place}/__init__.py"):
            if (root / path).is_file():
                yield path
