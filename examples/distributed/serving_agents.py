"""Starts every rank of `matmul_distributed` on this machine; see examples/README.md.

python examples/distributed/serving_agents.py build/distributed
"""

import os
import sys
from pathlib import Path

from mindspore_serving.server import distributed


def start():
    """Start one agent for each model file."""
    version = Path(sys.argv[1]).absolute() / "matmul_distributed" / "1"
    distributed.startup_agents(
        distributed_address=os.environ.get("DISTRIBUTED_ADDRESS", "127.0.0.1:6200"),
        model_files=sorted(map(str, version.glob("rank*.mindir"))),
        agent_start_port=int(os.environ.get("AGENT_START_PORT", "7000")),
    )


if __name__ == "__main__":
    start()
