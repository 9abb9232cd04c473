"""`mindspore_serving.worker.register`: the names of `mindspore_serving.server.register`."""

from mindspore_serving.server import register as _register
from mindspore_serving.server.register import *  # noqa: F403

__all__ = list(_register.__all__)
