"""Says at the start of a server whether MindSpore fits the release that this package stands for."""

from __future__ import annotations

from mindspore_serving.version import __version__
from telemetry.log import get_logger
from workers.backends import mindspore_discovery

log = get_logger("SERVING")


def warn_of_version() -> None:
    """Log, in MindSpore Serving's words, what does not fit between MindSpore and this package.

    A MindSpore that is not there is no error yet: servables without models never touch it.
    """
    package = mindspore_discovery.find_package()
    if package is None:
        log.info(mindspore_discovery.NOT_FOUND_TEXT)
        return
    warning = mindspore_discovery.version_warning(
        mindspore_discovery.read_version(package), __version__
    )
    if warning is not None:
        log.warning(warning)
