"""`server.master.context`: limits that a start script may change."""

from mindspore_serving.server.host import host
from protocol.parameter_checks import check_int

__all__ = ["set_max_enqueued_requests"]


def set_max_enqueued_requests(max_enqueued_requests: int) -> None:
    """Hold at most so many requests at once (10000); more are refused. Raises: RuntimeError."""
    host.set_requests_max(check_int("max_enqueued_requests", max_enqueued_requests, 1))
