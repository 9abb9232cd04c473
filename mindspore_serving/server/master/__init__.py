"""`mindspore_serving.server.master`: the doors and the limits of the server."""

from mindspore_serving.server.doors import start_grpc_server, start_restful_server, stop
from mindspore_serving.server.master import context
from mindspore_serving.server.ssl_config import SSLConfig

__all__ = ["SSLConfig", "context", "start_grpc_server", "start_restful_server", "stop"]
