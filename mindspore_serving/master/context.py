"""`mindspore_serving.master.context` of release 1.2: the limits of the server."""

from mindspore_serving.server.master.context import set_max_enqueued_requests

__all__ = ["set_max_enqueued_requests"]
