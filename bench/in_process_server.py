"""A server of one process, for measuring: `python -m bench.in_process_server DIRECTORY NAME`.

MINDBUS_BACKEND and MINDBUS_RUN_DIRECTORY say how and where; ports follow the name: gRPC, REST.
"""

from __future__ import annotations

import sys

from mindspore_serving import server
from mindspore_serving.worker import start_servable_in_master


def main() -> None:
    """Serve until a signal comes."""
    directory, name, grpc_address, rest_address = sys.argv[1:]
    start_servable_in_master(directory, name)
    server.start_grpc_server(grpc_address)
    server.start_restful_server(rest_address)


if __name__ == "__main__":
    main()
