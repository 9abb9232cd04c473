"""`start_servable_in_master`: master and one worker in this process; `stop`."""

from __future__ import annotations

from mindspore_serving.in_process import InProcessServer
from mindspore_serving.server import doors
from mindspore_serving.server.host import host
from mindspore_serving.server.merging import merge_configs
from mindspore_serving.server.servables import to_launches
from mindspore_serving.server.start_config import ServableStartConfig
from protocol.parameter_checks import check_int
from telemetry.log import get_logger
from workers.servable.deprecation import warn_deprecated

log = get_logger("SERVING")


def start_servable_in_master(
    servable_directory: str,
    servable_name: str,
    version_number: int = 0,
    device_type: str | None = None,
    device_id: int = 0,
) -> None:
    """Serve one servable with doors, broker and worker in this process; return when it serves.

    Call it before the doors are opened: a door that is open already belongs to a process of its
    own, and then the worker becomes one, too.
    Raises: RuntimeError.
    """
    check_int("device_id", device_id, 0)
    config = ServableStartConfig(
        servable_directory, servable_name, device_id, version_number, device_type
    )
    if host.is_running:
        log.info("a server runs already, the worker gets a process of its own")
    host.start_servables(to_launches(merge_configs([config])), InProcessServer)


def stop() -> None:
    """Stop everything; see `mindspore_serving.server.stop`."""
    warn_deprecated("mindspore_serving.worker.stop", "1.3.0", "mindspore_serving.server.stop")
    doors.stop()
