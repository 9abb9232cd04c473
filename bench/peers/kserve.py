"""KServe's Python server: uvicorn and grpc.aio, the model in the event loop."""

from __future__ import annotations

from bench.endpoint import Endpoint, small_grpc, small_http
from bench.models import Model
from bench.peers.peer import Peer
from bench.peers.python_server import start_script
from bench.processes import Running


def _endpoints(rest: str, grpc: str) -> list[Endpoint]:
    return [small_http(rest, "/v2/models/small/infer"), small_grpc(grpc, "small")]


def _start(model: Model) -> Running:
    return start_script("KServe", "kserve", model, "kserve_server.py", _endpoints)


PEERS = (Peer("KServe", "kserve", _start),)
