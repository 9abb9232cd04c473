"""Which ranks a launcher runs, and with which files. Pure.

Texts are MindSpore Serving's. Files are a tuple with one entry for each local device: a text, or a
tuple of texts, which are the subgraphs of one model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from protocol.group import Place

#: One file, or the files of several subgraphs.
Entry = str | tuple[str, ...]

_BOTH_OR_NONE = (
    "Parameter 'agent_ip' and parameter 'rank_start' must have values at the same time, or both "
    "None at the same time."
)


class LaunchPlanError(Exception):
    """Agents cannot be started as asked; the text names the parameter or the rank table."""


@dataclass(frozen=True)
class AgentsSettings:
    """What a start script says of the agents of its machine.

    libraries: variables by which MindSpore finds its libraries.
    device_target: CPU, GPU or Ascend. dec_key: never shown, not even by `repr`.
    """

    address: str
    model_files: tuple[Entry, ...]
    group_config_files: tuple[Entry, ...] | None
    start_port: int
    agent_ip: str | None
    rank_start: int | None
    device_target: str
    backend: str
    dec_key: bytes | None = field(repr=False)
    dec_mode: str
    libraries: Mapping[str, str] = field(default_factory=dict)


class LocalRank(NamedTuple):
    """One agent to start. files: subgraphs. group_files: of its collective communication."""

    rank: int
    device_id: int
    files: tuple[str, ...]
    group_files: tuple[str, ...]


def check_together(agent_ip: object, rank_start: object) -> None:
    """Raises: LaunchPlanError unless both are given or none."""
    if (agent_ip is None) != (rank_start is None):
        raise LaunchPlanError(_BOTH_OR_NONE)


def check_files(settings: AgentsSettings) -> None:
    """Raises: LaunchPlanError unless every entry has as many files as the others."""
    counts = {_count(entry) for entry in settings.model_files}
    group_counts = {_count(entry) for entry in settings.group_config_files or ()}
    if len(counts) > 1 or len(group_counts) > 1:
        raise LaunchPlanError(
            "please check the number of  model files and group config files, model files: "
            f"{_plain(settings.model_files)}, group config files: "
            f"{_plain(settings.group_config_files)}"
        )
    if group_counts - {1}:
        raise LaunchPlanError(
            "please check the number of  group config files, currently only support one at most"
        )


def local_ranks(
    settings: AgentsSettings, places: Sequence[Place], local_ip: str
) -> tuple[LocalRank, ...]:
    """The ranks of this machine. local_ip: the ip in the rank table that is this machine's.

    Raises: LaunchPlanError if there are not as many files as ranks.
    """
    ranks = [rank for rank, place in enumerate(places) if place.ip == local_ip]
    files, group_files = settings.model_files, settings.group_config_files
    if len(ranks) != len(files):
        raise LaunchPlanError(
            f"Card count {[places[rank].device_id for rank in ranks]} described rank table does "
            f"not equal to model files size {len(files)}, model files: {_plain(files)}"
        )
    if group_files is not None and len(group_files) != len(files):
        raise LaunchPlanError(
            f"Model files count {len(files)} does not equal to group config files count "
            f"{len(group_files)} when group_config_files is not None, model files: "
            f"{_plain(files)}, group config files: {_plain(group_files)}"
        )
    groups: Sequence[Entry] = group_files or [()] * len(files)
    return tuple(
        LocalRank(rank, places[rank].device_id, _several(own), _several(group))
        for rank, own, group in zip(ranks, files, groups, strict=True)
    )


def rank_table_ip(rank_start: int, places: Sequence[Place]) -> str:
    """The ip, in the rank table, of the machine whose first rank is this. Raises as above."""
    if rank_start >= len(places):
        raise LaunchPlanError(
            f"Parameter 'rank_start' cannot equal or larger than rank size {len(places)}."
        )
    return places[rank_start].ip


def agent_environment(
    settings: AgentsSettings, local: LocalRank, rank_size: int, scheduler: str, rank_table: str
) -> dict[str, str]:
    """What MindSpore reads in an agent's environment.

    scheduler: `host:port`, empty on Ascend, whose ranks meet by the file `rank_table`.
    """
    environment = {"RANK_ID": str(local.rank), "DEVICE_ID": str(local.device_id)}
    if settings.device_target == "Ascend":
        environment |= {"MS_ENABLE_HCCL": "1", "RANK_TABLE_FILE": rank_table}
        if local.group_files:
            environment["PARA_GROUP_FILE"] = ";".join(local.group_files)
        return environment
    return environment | _meeting(rank_size, scheduler, "MS_WORKER", str(local.rank))


def scheduler_environment(rank_size: int, scheduler: str) -> dict[str, str]:
    """What MindSpore reads in the environment of the process where its ranks meet."""
    return _meeting(rank_size, scheduler, "MS_SCHED", "scheduler")


def _meeting(rank_size: int, scheduler: str, role: str, node: str) -> dict[str, str]:
    host, _, port = scheduler.rpartition(":")
    return {
        "MS_WORKER_NUM": str(rank_size),
        "MS_SCHED_HOST": host,
        "MS_SCHED_PORT": port,
        "MS_ROLE": role,
        "MS_NODE_ID": node,
    }


def describe(settings: AgentsSettings, locals_: Sequence[LocalRank], local_ip: str) -> str:
    """What was started, for the line that scripts wait for."""
    facts: Mapping[str, Any] = {
        "distributed worker_address": settings.address,
        "agent_ip": local_ip,
        "agent_start_port": settings.start_port,
        "device ids": [local.device_id for local in locals_],
        "rank ids": [local.rank for local in locals_],
        "model files": _plain(settings.model_files),
        "group config files": _plain(settings.group_config_files),
    }
    return ", ".join(f"{name}: {value}" for name, value in facts.items())


def _count(entry: Entry) -> int:
    return len(_several(entry))


def _several(entry: Entry) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else entry


def _plain(entries: Sequence[Entry] | None) -> list[str | list[str]] | None:
    """As the user wrote it: one text, or a list of them, for each device."""
    if entries is None:
        return None
    return [entry if isinstance(entry, str) else list(entry) for entry in entries]
