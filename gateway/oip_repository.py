"""Triton's model repository extension, over the versions that the server knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.oip_server import OipServer
from protocol import head as heads
from protocol.errors import RequestError

#: The one repository's name, besides "".
REPOSITORY = "mindbus"

READY = "READY"
UNAVAILABLE = "UNAVAILABLE"

#: What starts a server in which clients may load models.
FLAG = "--model-control explicit"

NOT_ALLOWED = (
    f"loading models by clients is not allowed: start the server with `mindbus serve {FLAG}`"
)


class Repository:
    """Index, load and unload."""

    def __init__(self, server: OipServer) -> None:
        self._server = server

    async def index(self, repository: str, only_ready: bool) -> list[dict[str, str]]:
        """Every version of every servable. Raises RequestError for another repository's name."""
        _check_repository(repository)
        models = await self._server.models()
        items = [
            {
                "name": servable.name,
                "version": str(version.number),
                "state": READY if version.not_ready is None else UNAVAILABLE,
                "reason": version.not_ready or "",
            }
            for servable in models.servables.values()
            for version in servable.versions.values()
        ]
        return [item for item in items if item["state"] == READY or not only_ready]

    async def load(self, model: str, parameters: Mapping[str, Any]) -> None:
        """Take a servable to its latest version, or to that of the parameter `version`.

        Returns when its workers are replaced; one that serves that version already is left alone.
        Raises: RequestError.
        """
        control = self._server.control
        if control is None:
            raise RequestError("not_allowed", NOT_ALLOWED)
        for name in parameters:
            if name != "version":
                raise RequestError(
                    "unsupported",
                    f"parameter {name!r:.80} of a load is not supported, only 'version'",
                )
        models = await self._server.models()
        if model not in models.servables:
            raise RequestError(
                "unknown_service",
                f"servable {model!r:.300} is not there: it is one of "
                f"{', '.join(models.servables) or 'none'}",
            )
        await control.load(model, _version(parameters.get("version", 0)))

    async def unload(self, model: str) -> None:
        """Not offered. Raises RequestError."""
        if self._server.control is None:
            raise RequestError("not_allowed", NOT_ALLOWED)
        raise RequestError(
            "unsupported",
            f"model {model!r:.300} cannot be unloaded: what a server serves is decided when it is "
            "started",
        )


def _check_repository(name: str) -> None:
    if name not in ("", REPOSITORY):
        raise RequestError("unknown_service", f"repository {name!r:.80} is not {REPOSITORY!r}")


def _version(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    if type(value) is not int or value < 0:
        raise RequestError(
            "invalid_inputs",
            f"parameter version {value!r:.40} is not a number of a version (labels, such as "
            f"{heads.CANARY}, cannot be loaded)",
        )
    return value
