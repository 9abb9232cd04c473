"""`start_servable`: the worker of a distributed servable."""

from __future__ import annotations

import os

from mindbus.mindspore_check import warn_of_version
from mindbus.servables import ServableLaunch, check_servable
from mindspore_serving.server.devices import TARGETS, available_device_types
from mindspore_serving.server.host import host
from mindspore_serving.server.start_config import absolute_path
from protocol.parameter_checks import check_int, check_str
from workers.launch import GroupPlace
from workers.supervisor.start_error import StartError


def start_servable(
    servable_directory: str,
    servable_name: str,
    rank_table_json_file: str,
    version_number: int = 1,
    distributed_address: str = "0.0.0.0:6200",
    wait_agents_time_in_seconds: int = 0,
) -> None:
    """Start the worker of a distributed servable; return when its agents have come and it serves.

    servable_directory, rank_table_json_file: relative paths begin at the directory of the script.
    rank_table_json_file: which rank runs on which device of which machine.
    version_number: 0 is taken for 1; the agents choose the model files.
    distributed_address: `ip:port` where the agents reach the worker; open to whoever reaches it.
    wait_agents_time_in_seconds: how long the worker waits for all agents; 0 = for ever.
    Raises: RuntimeError; a server that ran before goes on unharmed.
    """
    directory = absolute_path(check_str("servable_directory", servable_directory))
    name = check_str("servable_name", servable_name)
    version = check_int("version_number", version_number, 0) or 1
    rank_table = absolute_path(check_str("rank_table_json_file", rank_table_json_file))
    address = check_address("distributed_address", distributed_address)
    wait_s = check_int("wait_agents_time_in_seconds", wait_agents_time_in_seconds, 0)
    backend = os.environ.get("MINDBUS_BACKEND") or "mindspore"
    launch = ServableLaunch(
        servable_directory=directory,
        servable_name=name,
        version=version,
        device_target=TARGETS[available_device_types()[0]],
        backend=backend,
        group=GroupPlace(rank_table, address, wait_s),
    )
    try:
        check_servable(launch)
    except StartError as error:
        raise RuntimeError(str(error)) from None
    if backend == "mindspore":
        warn_of_version()
    host.start_servables([launch])


def check_address(name: str, value: object) -> str:
    """Return `value` if it is `ip:port`. Raises: RuntimeError."""
    address = check_str(name, value)
    ip, _, port = address.rpartition(":")
    if not ip or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise RuntimeError(f"Parameter '{name}' should be 'ip:port', but actually '{address}'")
    return address
