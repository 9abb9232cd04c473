"""Distributed servables: one model that is split over several processes or machines.

`declare_servable` is for a `servable_config.py`, `start_servable` for the script that starts the
server, `startup_agents` for the script that starts the ranks of one machine. The last two are
looked up at their first use, so that a worker, which imports this package for the first, does not
load the supervisor.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from workers.servable.group_registry import declare_servable

if TYPE_CHECKING:
    from mindspore_serving.server.distributed.agents import startup_agents
    from mindspore_serving.server.distributed.start import start_servable

__all__ = ["declare_servable", "start_servable", "startup_agents"]

_MODULE_OF = {"start_servable": "start", "startup_agents": "agents"}


def __getattr__(name: str) -> Any:
    """Import what is asked for, once."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
