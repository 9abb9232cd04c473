"""`mindspore_serving.worker.distributed` of releases 1.2 to 1.4.

Thin: each function says that it is deprecated and calls `mindspore_serving.server.distributed`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mindspore_serving.server import distributed
from protocol.parameter_checks import check_int, check_str
from workers.servable.deprecation import warn_deprecated
from workers.servable.model_call import Model

__all__ = [
    "declare_distributed_servable",
    "start_distributed_servable_in_master",
    "startup_worker_agents",
]

_OLD = "mindspore_serving.worker.distributed."
_NEW = "mindspore_serving.server.distributed."


def declare_distributed_servable(
    rank_size: int,
    stage_size: int,
    with_batch_dim: bool = True,
    without_batch_dim_inputs: int | list[int] | tuple[int, ...] | None = None,
) -> Model:
    """Declare a distributed model; see `declare_servable`."""
    warn_deprecated(_OLD + "declare_distributed_servable", "1.3.0", _NEW + "declare_servable")
    return distributed.declare_servable(
        rank_size, stage_size, with_batch_dim, without_batch_dim_inputs
    )


def start_distributed_servable_in_master(
    servable_directory: str,
    servable_name: str,
    rank_table_json_file: str,
    version_number: int = 1,
    worker_ip: str = "0.0.0.0",
    worker_port: int = 6200,
    wait_agents_time_in_seconds: int = 0,
) -> None:
    """Serve a distributed servable; see `start_servable`. Its worker has a process of its own."""
    warn_deprecated(_OLD + "start_distributed_servable_in_master", "1.3.0", _NEW + "start_servable")
    distributed.start_servable(
        servable_directory,
        servable_name,
        rank_table_json_file,
        version_number,
        _address(worker_ip, worker_port),
        wait_agents_time_in_seconds,
    )


def startup_worker_agents(
    worker_ip: str,
    worker_port: int,
    model_files: Sequence[str | list[str]],
    group_config_files: Sequence[str | list[str]] | None = None,
    agent_start_port: int = 7000,
    agent_ip: str | None = None,
    rank_start: int | None = None,
) -> None:
    """Start the agents of this machine; see `startup_agents`."""
    warn_deprecated(_OLD + "startup_worker_agents", "1.3.0", _NEW + "startup_agents")
    distributed.startup_agents(
        _address(worker_ip, worker_port),
        model_files,
        group_config_files,
        agent_start_port,
        agent_ip,
        rank_start,
    )


def _address(ip: str, port: int) -> str:
    return f"{check_str('worker_ip', ip)}:{check_int('worker_port', port, 1, 65_535)}"
