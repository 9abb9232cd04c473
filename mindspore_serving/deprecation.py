"""What the names of older releases say when they are used."""

from telemetry.log import get_logger

log = get_logger("SERVING")


def warn_deprecated(name: str, replacement: str) -> None:
    """Log, in MindSpore Serving's words, that `replacement` is the name of today."""
    log.warning(
        f"'{name}' is deprecated from version 1.3.0 and will be removed in a future version, "
        f"use '{replacement}' instead."
    )
