"""The gRPC client of MindSpore Serving; needs only grpcio, protobuf and numpy."""

from mindspore_serving.client.client import Client, PendingReply, SSLConfig

__all__ = ["Client", "PendingReply", "SSLConfig"]
