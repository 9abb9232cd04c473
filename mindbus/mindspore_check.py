"""What a server finds out about MindSpore before it starts workers, without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mindspore_serving.version import __version__
from telemetry.log import get_logger
from workers.backends import mindspore_discovery

log = get_logger("SERVING")

LIBRARY_PATH = "LD_LIBRARY_PATH"


def warn_of_version() -> None:
    """Log, in MindSpore Serving's words, what does not fit between MindSpore and this package.

    A MindSpore that is not there is no error yet: servables without models never touch it.
    """
    package = mindspore_discovery.find_package()
    if package is None:
        return
    warning = mindspore_discovery.version_warning(
        mindspore_discovery.read_version(package), __version__
    )
    if warning is not None:
        log.warning(warning)


def library_environment(environment: Mapping[str, str], ascend_root: Path) -> dict[str, str]:
    """What a worker's environment needs so that MindSpore finds its libraries and those of CANN.

    The loader reads the variable when a process starts, so a worker could not set it for itself.
    Returns: LD_LIBRARY_PATH, or nothing if there is nothing to add. Logs the change.
    """
    current = environment.get(LIBRARY_PATH, "")
    path = mindspore_discovery.library_path(
        current,
        mindspore_discovery.find_package(),
        mindspore_discovery.find_ascend_library(ascend_root),
    )
    if path.text is not None:
        log.info(path.text)
    return {} if path.value == current else {LIBRARY_PATH: path.value}
