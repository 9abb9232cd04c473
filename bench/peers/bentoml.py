"""BentoML: Starlette under uvicorn, one worker."""

from __future__ import annotations

from bench.models import Model
from bench.peers.json_body import json_endpoint
from bench.peers.peer import SERVERS, Peer, directory_of
from bench.processes import Running, free_port, start_and_wait

ENVIRONMENT = "bentoml"


def _start(model: Model) -> Running:
    port = free_port()
    flags = ["--working-dir", str(SERVERS), "--host", "127.0.0.1", "--port", str(port)]
    return start_and_wait(
        "BentoML",
        [
            str(directory_of(ENVIRONMENT) / "bin" / "bentoml"),
            "serve",
            "bentoml_service:Small",
            *flags,
        ],
        [json_endpoint(f"127.0.0.1:{port}", "/infer")],
        environment={"BENCH_MODEL": model.as_json(), "BENTOML_DO_NOT_TRACK": "1"},
    )


PEERS = (Peer("BentoML", ENVIRONMENT, _start),)
