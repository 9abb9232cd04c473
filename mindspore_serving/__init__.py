"""The face of MindSpore Serving 2.0 over MindBus: start scripts and clients run unchanged.

`mindspore_serving.server` starts servables and doors, `mindspore_serving.client` calls them,
`mindspore_serving.log` logs; `mindspore_serving.master` and `mindspore_serving.worker` are the
names of releases 1.1 to 1.4. `__version__` follows MindSpore, see `mindspore_serving.version`.
Nothing is imported until it is asked for, so a client needs only grpcio, protobuf and numpy.
"""

from mindspore_serving.version import __version__

__all__ = ["__version__"]
