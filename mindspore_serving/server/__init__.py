"""The server API of MindSpore Serving 2.0.

A start script uses the functions, a `servable_config.py` only `register`, or of `distributed`
its `declare_servable`. The functions are
looked up at their first use, so that a worker, which imports this package for `register`, does
not load the supervisor.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mindspore_serving.server import distributed, register

if TYPE_CHECKING:
    from mindspore_serving.server import master
    from mindspore_serving.server.doors import start_grpc_server, start_restful_server, stop
    from mindspore_serving.server.servables import start_servables
    from mindspore_serving.server.ssl_config import SSLConfig
    from mindspore_serving.server.start_config import ServableStartConfig

__all__ = [
    "SSLConfig",
    "ServableStartConfig",
    "distributed",
    "master",
    "register",
    "start_grpc_server",
    "start_restful_server",
    "start_servables",
    "stop",
]

_MODULE_OF = {
    "SSLConfig": "ssl_config",
    "ServableStartConfig": "start_config",
    "start_grpc_server": "doors",
    "start_restful_server": "doors",
    "start_servables": "servables",
    "stop": "doors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, once."""
    if name == "master":
        return importlib.import_module(f"{__name__}.master")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
