"""`mindspore_serving.master` of releases 1.1 to 1.4: the doors by ip and port.

Thin: each function says that it is deprecated and calls `mindspore_serving.server`.
"""

from mindspore_serving.master import context
from mindspore_serving.server import doors
from protocol.limits import MESSAGE_MB_DEFAULT
from protocol.parameter_checks import check_int, check_str
from workers.servable.deprecation import warn_deprecated

__all__ = ["context", "start_grpc_server", "start_restful_server", "stop"]

_OLD = "mindspore_serving.master."
_NEW = "mindspore_serving.server."


def start_grpc_server(
    ip: str = "0.0.0.0", grpc_port: int = 5500, max_msg_mb_size: int = MESSAGE_MB_DEFAULT
) -> None:
    """Open the gRPC door; see `mindspore_serving.server.start_grpc_server`."""
    warn_deprecated(_OLD + "start_grpc_server", "1.3.0", _NEW + "start_grpc_server")
    doors.start_grpc_server(_address(ip, "grpc_port", grpc_port), max_msg_mb_size)


def start_restful_server(
    ip: str = "0.0.0.0", restful_port: int = 5900, max_msg_mb_size: int = MESSAGE_MB_DEFAULT
) -> None:
    """Open the RESTful door; see `mindspore_serving.server.start_restful_server`."""
    warn_deprecated(_OLD + "start_restful_server", "1.3.0", _NEW + "start_restful_server")
    doors.start_restful_server(_address(ip, "restful_port", restful_port), max_msg_mb_size)


def stop() -> None:
    """Stop everything; see `mindspore_serving.server.stop`."""
    warn_deprecated(_OLD + "stop", "1.3.0", _NEW + "stop")
    doors.stop()


def _address(ip: str, port_name: str, port: int) -> str:
    return f"{check_str('ip', ip)}:{check_int(port_name, port, 1, 65_535)}"
