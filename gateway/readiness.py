"""Whether a server is ready, as the doors ask for it.

A gateway alone knows the broker only; the embedding process may know more (`mindbus.readiness`).
"""

from __future__ import annotations

from typing import Protocol

from gateway.model_directory import ModelDirectory
from protocol.errors import RequestError


class Readiness(Protocol):
    """Knows why a server is not ready."""

    async def why_not_ready(self) -> str | None:
        """None if every servable that was asked for is ready."""


class BrokerReadiness:
    """Ready is a server whose broker answers and knows servables that are all ready."""

    def __init__(self, directory: ModelDirectory) -> None:
        self._directory = directory

    async def why_not_ready(self) -> str | None:
        """None if every servable of the broker is ready."""
        try:
            models = await self._directory.models()
        except RequestError as error:
            return error.message
        if not models.servables:
            return "no servable is there"
        for servable in models.servables.values():
            version = servable.versions.get(servable.default)
            if version is None:
                return f"{servable.name} has no worker"
            if version.not_ready is not None:
                return version.not_ready
        return None
