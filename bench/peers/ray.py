"""Ray Serve: HTTP proxy, controller and one replica. Its gRPC needs a protocol of one's own."""

from __future__ import annotations

from bench.endpoint import Endpoint
from bench.models import Model
from bench.peers.json_body import json_endpoint
from bench.peers.peer import Peer
from bench.peers.python_server import start_script
from bench.processes import Running


def _endpoints(rest: str, _grpc: str) -> list[Endpoint]:
    return [json_endpoint(rest, "/infer")]


def _start(model: Model) -> Running:
    return start_script("Ray Serve", "ray", model, "ray_server.py", _endpoints)


PEERS = (Peer("Ray Serve", "ray", _start, ("w1", "w2", "w5"), is_busy_when_idle=True),)
