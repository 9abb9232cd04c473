"""The MindSpore Serving release whose behaviour this package offers."""

from __future__ import annotations

__version__ = "2.0.2"


def consistency_warning(mindspore_version: str | None) -> str | None:
    """What to warn of when this MindSpore is installed, in MindSpore Serving's words, or None.

    Releases are consistent when their first two components are equal; MindSpore Serving only
    warns otherwise, and so do we. mindspore_version: None means that it could not be read.
    """
    if not mindspore_version:
        return "Get MindSpore version failed"
    if mindspore_version.split(".")[:2] == __version__.split(".")[:2]:
        return None
    return (
        f"MindSpore version {mindspore_version} and MindSpore Serving version {__version__} "
        "are expected to be consistent. If not, there may be compatibility problems."
    )
