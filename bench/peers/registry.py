"""All peers, and those of them that a run uses."""

from __future__ import annotations

from collections.abc import Sequence

from bench.peers import bentoml, kserve, litserve, mlserver, mosec, ray, triton
from bench.peers.peer import Peer

PEERS: tuple[Peer, ...] = (
    *triton.PEERS,
    *mosec.PEERS,
    *mlserver.PEERS,
    *kserve.PEERS,
    *litserve.PEERS,
    *ray.PEERS,
    *bentoml.PEERS,
)

ENVIRONMENTS = tuple(dict.fromkeys(peer.environment for peer in PEERS))

#: The package whose version the report shows, where it is not named as the environment.
PACKAGES = {"triton": "nvidia-pytriton"}


def choose(names: Sequence[str], workload: str) -> list[Peer]:
    """The peers of these environments that can run a workload, installed or not."""
    return [peer for peer in PEERS if peer.environment in names and workload in peer.workloads]
