"""Which servables are there: looked up by directory listing, without importing anything of them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol.link_path import link_path
from workers.launch import GroupPlace
from workers.servable.loader import resolve_version
from workers.supervisor.start_error import StartError

CONFIG_FILE = "servable_config.py"


@dataclass(frozen=True)
class ServableLaunch:
    """One version of a servable on some devices; a worker process per device.

    version 0: the newest that is there. device_target None: the best that is there.
    extra_workers: processes beside them that run Python stages; without device ids they are the
    only workers, and load the models themselves.
    batch_sizes: for models with a dynamic batch dimension; None = what their declaration says.
    group: of a distributed servable, which has one worker and no extra ones.
    """

    servable_directory: str
    servable_name: str
    version: int = 0
    device_ids: tuple[int, ...] = (0,)
    extra_workers: int = 0
    device_target: str | None = None
    backend: str = "mindspore"
    dec_key: bytes | None = field(default=None, repr=False)
    dec_mode: str = "AES-GCM"
    batch_sizes: tuple[int, ...] | None = None
    group: GroupPlace | None = None

    def resolved_version(self) -> int:
        """The version that will run. A worker that declares models checks that it is there."""
        return resolve_version(
            self.servable_directory, self.servable_name, self.version, has_models=False
        )


def worker_slot(launch: ServableLaunch, version: int, device: int | None, extra: int | None) -> str:
    """The name of a worker's slot, which is its worker id: by its device, or by its number."""
    if launch.group is not None:
        return f"{launch.servable_name}/{version}/distributed"
    place = f"extra{extra}" if device is None else f"device{device}"
    return f"{launch.servable_name}/{version}/{place}"


def worker_document(
    launch: ServableLaunch, version: int, device: int | None, extra: int | None, address: str
) -> dict[str, Any]:
    """What a worker is told (`workers.launch`), less what differs between its incarnations.

    version: resolved. device: None for extra worker number `extra`. address: of the broker.
    """
    key = launch.dec_key
    group = {} if launch.group is None else {"group": vars(launch.group)}
    return group | {
        "servable_directory": str(Path(launch.servable_directory).absolute()),
        "servable_name": launch.servable_name,
        "version": version,
        "version_asked": launch.version,
        "device_target": launch.device_target,
        "device_id": device,
        "backend": launch.backend,
        "workers_address": address,
        "link_path": link_path(address),
        "worker_id": worker_slot(launch, version, device, extra),
        "dec_key": None if key is None else base64.b64encode(key).decode(),
        "dec_mode": launch.dec_mode,
        "batch_sizes": None if launch.batch_sizes is None else list(launch.batch_sizes),
    }


def discover_servables(directory: Path) -> list[str]:
    """Names of the sub-directories with a servable_config.py, sorted.

    Raises: StartError if there is none.
    """
    if not directory.is_dir():
        raise StartError(f"servable directory {directory} does not exist")
    names = sorted(path.parent.name for path in directory.glob(f"*/{CONFIG_FILE}"))
    if not names:
        raise StartError(f"no sub-directory of {directory} has a {CONFIG_FILE}")
    return names


def check_servable(launch: ServableLaunch) -> None:
    """Raises StartError, in MindSpore Serving's words, if the servable's files are not there."""
    directory, name = launch.servable_directory, launch.servable_name
    where = f"servable directory '{directory}', servable name '{name}'"
    servable = Path(directory) / name
    if not servable.is_dir():
        raise StartError(f"Check servable config failed, directory '{servable}' not exist, {where}")
    config = servable / CONFIG_FILE
    if not config.is_file():
        raise StartError(f"Check servable config failed, file '{config}' not exist,  {where}")
