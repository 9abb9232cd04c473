"""`mindspore_serving.worker` of releases 1.1 to 1.4.

`start_servable_in_master` keeps its first meaning: master and worker in one process, without
messages between processes. `register` is what a `servable_config.py` of that time imports.
The functions that start a server are looked up at their first use, so that a worker, which imports
this package for `register`, does not load the supervisor.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mindspore_serving.worker import distributed, register

if TYPE_CHECKING:
    from mindspore_serving.worker.in_master import start_servable_in_master, stop

__all__ = ["distributed", "register", "start_servable_in_master", "stop"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, once."""
    if name not in ("start_servable_in_master", "stop"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.in_master"), name)
    globals()[name] = value
    return value
