"""Several start configurations become the servables to start: checked, resolved and merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mindbus.servables import ServableLaunch, check_servable
from mindspore_serving.server.devices import may_share_devices
from mindspore_serving.server.start_config import ServableStartConfig
from workers.servable.loader import resolve_version, version_directory


@dataclass(frozen=True)
class Deployment:
    """One version of one servable, and all that start configurations say about it.

    version_number: resolved, at least 1. device_ids: ascending, without repetition.
    is_unversioned: the newest version was asked for and there is no version directory, which is
    an error if the servable has models.
    """

    servable_directory: str
    servable_name: str
    version_number: int
    device_type: str
    device_ids: tuple[int, ...]
    num_parallel_workers: int
    dec_key: bytes | None = field(repr=False)
    dec_mode: str
    is_unversioned: bool = False


def as_configs(servable_configs: object) -> tuple[ServableStartConfig, ...]:
    """One configuration, or a list or tuple of them, as a tuple; RuntimeError for others."""
    configs = servable_configs
    if isinstance(configs, ServableStartConfig):
        configs = (configs,)
    if not isinstance(configs, list | tuple):
        raise RuntimeError(
            f"Parameter '{servable_configs}' should be ServableStartConfig, list or tuple of "
            f"ServableStartConfig, but actually {type(servable_configs)}"
        )
    for config in configs:
        if not isinstance(config, ServableStartConfig):
            raise RuntimeError(
                f"The item of parameter '{servable_configs}' should be ServableStartConfig, but "
                f"actually {type(config)}"
            )
    return tuple(configs)


def merge_configs(
    configs: Sequence[ServableStartConfig],
    devices_may_be_shared: Callable[[], bool] = may_share_devices,
) -> list[Deployment]:
    """Merge configurations of the same servable and version, in order of first mention.

    Raises: RuntimeError for a missing directory or file, for configurations that contradict each
    other, and for a device used twice where it cannot be shared.
    """
    directories: dict[str, str] = {}
    merged: dict[tuple[str, int], Deployment] = {}
    for config in configs:
        name, directory = config.servable_name, config.servable_directory
        if name not in directories:
            check_servable(ServableLaunch(directory, name))
            directories[name] = directory
        elif directories[name] != directory:
            raise RuntimeError(
                f"The servable directory of servable name {name} is different in multiple "
                f"configurations, servable directory: {directory} and {directories[name]}"
            )
        deployment = _deployment(config)
        key = (name, deployment.version_number)
        merged[key] = _united(merged[key], deployment) if key in merged else deployment
    deployments = list(merged.values())
    _check_devices(deployments, devices_may_be_shared)
    return deployments


def _deployment(config: ServableStartConfig) -> Deployment:
    # Whether the servable has models is known only after its import, which happens in the worker:
    # it refuses a version that lacks a directory which it needs.
    directory, name = config.servable_directory, config.servable_name
    version = resolve_version(directory, name, config.version_number, has_models=False)
    has_directory = version_directory(directory, name, version).is_dir()
    return Deployment(
        servable_directory=directory,
        servable_name=name,
        version_number=version,
        device_type=config.device_type,
        device_ids=tuple(sorted(config.device_ids)),
        num_parallel_workers=config.num_parallel_workers,
        dec_key=config.dec_key,
        dec_mode=config.dec_mode,
        is_unversioned=config.version_number == 0 and not has_directory,
    )


def _united(first: Deployment, second: Deployment) -> Deployment:
    if (first.dec_key, first.dec_mode) != (second.dec_key, second.dec_mode):
        raise RuntimeError(
            f"The dec key or dec mode of servable name {first.servable_name} is different in "
            "multiple configurations."
        )
    return replace(
        first,
        device_ids=tuple(sorted({*first.device_ids, *second.device_ids})),
        num_parallel_workers=max(first.num_parallel_workers, second.num_parallel_workers),
    )


def _check_devices(
    deployments: Sequence[Deployment], devices_may_be_shared: Callable[[], bool]
) -> None:
    used: set[int] = set()
    for deployment in deployments:
        if deployment.device_type == "cpu":
            continue
        for device_id in deployment.device_ids:
            if device_id in used and not devices_may_be_shared():
                raise RuntimeError(
                    f"Ascend 910 device id {device_id} is used repeatedly in servable "
                    f"{deployment.servable_name}"
                )
            used.add(device_id)
