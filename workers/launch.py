"""What a worker is told on stdin: one JSON document, read into a checked value. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocol import head
from protocol.errors import RemoteProtocolError

#: Backends by the name that a launch document uses: module and class.
BACKENDS = {
    "mindspore": ("workers.backends.mindspore_graph", "MindSporeBackend"),
    "numpy": ("workers.backends.numpy_scripted", "NumpyBackend"),
}

DEC_MODES = ("AES-GCM", "AES-CBC")


@dataclass(frozen=True)
class GroupPlace:
    """Where the group of a distributed servable meets. address: `ip:port` of its worker.

    wait_s: how long the worker waits for its agents; 0 = for ever.
    """

    rank_table_file: str
    address: str
    wait_s: int


class LaunchError(Exception):
    """A launch document that cannot be followed; the text names the key and the value."""


@dataclass(frozen=True)
class Launch:
    """One worker: what it serves, on which device, and where its broker is.

    version: resolved, at least 1. version_asked: what it was resolved from; 0 = the newest.
    device_target: None = the best that is there. device_id: None = an extra worker, without one.
    models: what the device workers of the service have loaded, by model key (as
    `ModelDescription.as_document`); None = this worker loads its models itself.
    producers_address: where calls of these models go.
    worker_id, generation: the slot and its incarnation. dec_key: never shown, not even by `repr`.
    batch_sizes: for models with a dynamic batch dimension; None = what their declaration says.
    group: of a distributed servable. link_path: where the broker has its link; None = the worker
    comes over ZeroMQ.
    """

    servable_directory: str
    servable_name: str
    version: int
    version_asked: int
    device_target: str | None
    device_id: int | None
    backend: str
    workers_address: str
    worker_id: str
    generation: int
    dec_key: bytes | None = field(repr=False)
    dec_mode: str
    parent_pid: int
    batch_sizes: tuple[int, ...] | None
    models: Mapping[str, Any] | None = None
    producers_address: str = ""
    group: GroupPlace | None = None
    link_path: str | None = None

    @property
    def service(self) -> str:
        """The routing unit `servable/version`."""
        return f"{self.servable_name}/{self.version}"


def read_launch(document: Mapping[str, Any]) -> Launch:
    """Check a launch document. Unknown keys are ignored. Raises LaunchError."""
    launch = Launch(
        servable_directory=_text(document, "servable_directory"),
        servable_name=_text(document, "servable_name"),
        version=_number(document, "version", 1),
        version_asked=_number(document, "version_asked", 0),
        device_target=_optional_text(document, "device_target"),
        device_id=_optional_number(document, "device_id"),
        backend=_one_of(document, "backend", tuple(BACKENDS)),
        workers_address=_text(document, "workers_address"),
        worker_id=_text(document, "worker_id"),
        generation=_number(document, "generation", 0),
        dec_key=decode_key(document),
        dec_mode=_one_of(document, "dec_mode", DEC_MODES),
        parent_pid=_number(document, "parent_pid", 0),
        batch_sizes=_sizes(document),
        models=_models(document),
        producers_address=_optional_text(document, "producers_address") or "",
        group=_group(document),
        link_path=_optional_text(document, "link_path"),
    )
    if launch.models is not None:
        _text(document, "producers_address")
    try:
        head.service_key(launch.servable_name, launch.version)
    except RemoteProtocolError as error:
        raise LaunchError(f"key 'servable_name': {error}") from None
    return launch


def _field(document: Mapping[str, Any], key: str) -> Any:
    if key not in document:
        raise LaunchError(f"key {key!r} of the launch document is missing")
    return document[key]


def _text(document: Mapping[str, Any], key: str) -> str:
    value = _field(document, key)
    if not isinstance(value, str) or not value:
        raise LaunchError(f"key {key!r} of the launch document is {value!r}, not a text")
    return value


def _optional_text(document: Mapping[str, Any], key: str) -> str | None:
    return None if document.get(key) is None else _text(document, key)


def _one_of(document: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    value = _text(document, key)
    if value not in allowed:
        raise LaunchError(
            f"key {key!r} of the launch document is {value!r}, not one of {', '.join(allowed)}"
        )
    return value


def _number(document: Mapping[str, Any], key: str, least: int) -> int:
    value = _field(document, key)
    if type(value) is not int or value < least:
        raise LaunchError(
            f"key {key!r} of the launch document is {value!r}, not a number of at least {least}"
        )
    return value


def _optional_number(document: Mapping[str, Any], key: str) -> int | None:
    return None if _field(document, key) is None else _number(document, key, 0)


def decode_key(document: Mapping[str, Any]) -> bytes | None:
    """The key of encrypted models in a document for stdin, or None. Raises LaunchError."""
    value = document.get("dec_key")
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):  # never with the value, as the others do
        raise LaunchError("key 'dec_key' of the launch document is not base64") from None


def _models(document: Mapping[str, Any]) -> dict[str, Any] | None:
    value = document.get("models")
    if value is not None and not isinstance(value, dict):
        raise LaunchError(f"key 'models' of the launch document is {value!r}, not a map")
    return value


def _sizes(document: Mapping[str, Any]) -> tuple[int, ...] | None:
    value = document.get("batch_sizes")
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(_is_size(item) for item in value):
        raise LaunchError(
            f"key 'batch_sizes' of the launch document is {value!r}, not a list of numbers >= 1"
        )
    return tuple(sorted(set(value)))


def _group(document: Mapping[str, Any]) -> GroupPlace | None:
    value = document.get("group")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise LaunchError(f"key 'group' of the launch document is {value!r}, not an object")
    return GroupPlace(
        _text(value, "rank_table_file"), _text(value, "address"), _number(value, "wait_s", 0)
    )


def _is_size(item: object) -> bool:
    return type(item) is int and item >= 1
