"""Which MindBus this is."""

from __future__ import annotations

import tomllib

from workers.supervisor.child import CODE_ROOT


def version() -> str:
    """The version of this package, also in a checkout that is not installed."""
    project = CODE_ROOT / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text())["project"]["version"])
    import importlib.metadata

    return importlib.metadata.version("mindbus")
