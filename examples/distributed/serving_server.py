"""Serves `matmul_distributed` on 127.0.0.1:5500, once its agents have come; see examples/README.md.

python examples/distributed/serving_server.py build/distributed
"""

import os
import sys
from pathlib import Path

from mindspore_serving import server
from mindspore_serving.server import distributed


def start():
    """Start the worker, then the door."""
    servable_dir = Path(sys.argv[1]).absolute()
    distributed.start_servable(
        str(servable_dir),
        "matmul_distributed",
        rank_table_json_file=str(servable_dir / "matmul_distributed" / "rank_table.json"),
        version_number=1,
        distributed_address=os.environ.get("DISTRIBUTED_ADDRESS", "127.0.0.1:6200"),
    )
    server.start_grpc_server(os.environ.get("GRPC_ADDRESS", "127.0.0.1:5500"))


if __name__ == "__main__":
    start()
