"""`start_servables`: from start configurations to workers that serve."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mindbus.mindspore_check import warn_of_version
from mindbus.servables import ServableLaunch
from mindspore_serving.server.devices import TARGETS, available_device_types
from mindspore_serving.server.host import host
from mindspore_serving.server.merging import Deployment, as_configs, merge_configs
from mindspore_serving.server.start_config import ServableStartConfig
from protocol.parameter_checks import check_bool
from telemetry.log import get_logger

log = get_logger("SERVING")

#: Said for `enable_lite=True`. PyPI has `mindspore-lite` for Python 3.7 only (2.0.0).
NO_LITE_TEXT = (
    "enable_lite has no effect: MindSpore Lite is not supported. Current inference backend: "
    "MindSpore. It runs MindIR models, on the same devices; MindIR_Lite models are refused"
)


def start_servables(
    servable_configs: ServableStartConfig | Sequence[ServableStartConfig],
    enable_lite: bool = False,
) -> None:
    """Start the workers of one or more servables; return when all of them serve.

    The script may end afterwards: the server runs until `stop`, SIGTERM or SIGINT.
    enable_lite: taken for compatibility; MindSpore runs MindIR models either way, and there is
    no backend for MindIR_Lite models.
    Raises: RuntimeError; a server that ran before goes on unharmed.
    """
    configs = as_configs(servable_configs)
    if check_bool("enable_lite", enable_lite):
        log.warning(NO_LITE_TEXT)
    host.start_servables(to_launches(merge_configs(configs)))


def to_launches(deployments: Sequence[Deployment]) -> list[ServableLaunch]:
    """What the server is asked for, one launch per deployment."""
    backend = os.environ.get("MINDBUS_BACKEND") or "mindspore"
    available = available_device_types()
    if backend == "mindspore":
        warn_of_version()
    return [to_launch(deployment, backend, available) for deployment in deployments]


def to_launch(deployment: Deployment, backend: str, available: tuple[str, ...]) -> ServableLaunch:
    """One deployment as the server wants it. available: as of `available_device_types`."""
    device_type = deployment.device_type
    if device_type == "none" and (not deployment.device_ids or available[0] == "cpu"):
        # Nobody asked for a device, or there is none but the CPU: MindSpore need not search for
        # others, which takes it seconds and many warnings.
        device_type = "cpu"
    return ServableLaunch(
        servable_directory=deployment.servable_directory,
        servable_name=deployment.servable_name,
        version=0 if deployment.is_unversioned else deployment.version_number,
        device_ids=deployment.device_ids,
        extra_workers=extra_workers(deployment),
        device_target=TARGETS[device_type],
        backend=backend,
        dec_key=deployment.dec_key,
        dec_mode=deployment.dec_mode,
    )


def extra_workers(deployment: Deployment) -> int:
    """How many workers there are beside those of the devices; without devices, how many at all."""
    return max(0, deployment.num_parallel_workers - len(deployment.device_ids))
