"""Warnings about interfaces that MindSpore Serving has deprecated and old servables still use."""

from __future__ import annotations

import warnings


def warn_deprecated(name: str, since: str, replacement: str) -> None:
    """Warn the caller of the calling function, in the words of MindSpore Serving.

    A FutureWarning, because Python hides DeprecationWarnings of imported files, and servables
    are always imported.
    """
    warnings.warn(
        f"'{name}' is deprecated from version {since} and will be removed in a future version, "
        f"use '{replacement}' instead.",
        FutureWarning,
        stacklevel=3,
    )
