"""LitServe: FastAPI in two processes, one worker, batches."""

from __future__ import annotations

from bench.endpoint import Endpoint
from bench.models import Model
from bench.peers.json_body import json_endpoint
from bench.peers.peer import Peer
from bench.peers.python_server import start_script
from bench.processes import Running


def _endpoints(rest: str, _grpc: str) -> list[Endpoint]:
    return [json_endpoint(rest, "/predict")]


def _start(model: Model) -> Running:
    return start_script("LitServe", "litserve", model, "litserve_server.py", _endpoints)


PEERS = (Peer("LitServe", "litserve", _start, ("w1", "w2", "w4", "w5"), is_busy_when_idle=True),)
