"""The rank table: which rank runs on which device of which machine. Pure.

Two layouts are read, as Huawei's tools write them:

    {"server_list": [{"server_id": "10.0.0.1", "device": [{"device_id": "0", "rank_id": "0"}, …]}]}
    {"group_list": [{"instance_list": [{"server_id": "10.0.0.1", "rank_id": "0",
                                        "devices": [{"device_id": "0"}]}, …]}]}

Ranks are numbered from 0 in the order of the file. Ids are decimal texts without leading zeros.
Texts are MindSpore Serving's, with the blanks that it left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from protocol import limits
from protocol.group import Place

#: NPUs of one machine: the stages of a model that has several fill whole machines.
CARDS_PER_MACHINE = 8

#: A `device_id` or `rank_id` is a 32-bit number.
_ID_DIGITS_MAX = 9


class RankTableError(Exception):
    """A rank table that cannot be used; the text names the file and what is wrong."""


def read_rank_table(text: str, file: str) -> tuple[Place, ...]:
    """The place of each rank, in the order of ranks. file: for error texts.

    Raises: RankTableError.
    """
    try:
        table = json.loads(text)
    except ValueError as error:
        raise RankTableError(f"parse error: {error}, rank table file '{file}'") from None
    if not isinstance(table, dict):
        raise RankTableError(f"{file} is not json object")
    ids = _group_list(table, file) if "group_list" in table else _server_list(table, file)
    places: list[Place] = []
    for ip, device_id, rank_id in ids:
        place = Place(ip, _number(device_id, "device_id", file))
        if _number(rank_id, "rank_id", file) != len(places):
            raise RankTableError(f"device size not match rank_id in {file}")
        if len(places) == limits.GROUP_RANKS_MAX:
            raise RankTableError(
                f"more ranks than group_ranks_max {limits.GROUP_RANKS_MAX} in {file}"
            )
        places.append(place)
    return tuple(places)


def check_ranks(
    places: tuple[Place, ...], rank_size: int, stage_size: int, file: str, has_cards: bool
) -> None:
    """Compare a rank table with what `servable_config.py` declares.

    has_cards: the ranks run on NPUs, 8 in a machine. On the CPU, where device ids are names of
    slots, a model of several stages need not fill machines.
    Raises: RankTableError.
    """
    if rank_size % stage_size != 0:
        raise RankTableError(
            "Rank size must be an integral multiple of stage size, rank size: "
            f"{rank_size}, stage size: {stage_size}"
        )
    if len(places) != rank_size:
        raise RankTableError(
            f"Rank size {len(places)} declared in rank table file '{file}' not equal to "
            f"{rank_size} declared in servable config"
        )
    if stage_size == 1 or not has_cards:
        _check_one_stage(places)
    else:
        _check_stages(places, stage_size)


# ---------------------------------------------------------------- layouts


def _server_list(table: dict[str, Any], file: str) -> Iterator[tuple[str, str, str]]:
    for server in _array(table, "server_list", file):
        ip = _text(server, "server_id", file)
        for device in _array(server, "device", file):
            yield ip, _text(device, "device_id", file), _text(device, "rank_id", file)


def _group_list(table: dict[str, Any], file: str) -> Iterator[tuple[str, str, str]]:
    for group in _array(table, "group_list", file):
        for instance in _array(group, "instance_list", file):
            ip = _text(instance, "server_id", file)
            device = _array(instance, "devices", file)[0]
            yield ip, _text(device, "device_id", file), _text(instance, "rank_id", file)


def _array(value: Any, key: str, file: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list) or not found:
        raise RankTableError(f"{key} attr is empty in {file}")
    return found


def _text(value: Any, key: str, file: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, str) or not found:
        raise RankTableError(f"{key} attr is empty in {file}")
    return found


def _number(text: str, key: str, file: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS_MAX
    if not is_number or str(int(text)) != text:
        raise RankTableError(f"{key} attr is invalid argument in {file}")
    return int(text)


# ---------------------------------------------------------------- stages


def _check_one_stage(places: tuple[Place, ...]) -> None:
    used: set[Place] = set()
    for rank, place in enumerate(places):
        if place in used:
            raise RankTableError(
                f"Check rank table config failed, device id repeatedly used by rank {rank} in "
                f"device ip {place.ip}"
            )
        if place.device_id >= CARDS_PER_MACHINE:
            raise RankTableError("Check rank table config failed, device id cannot larger than 8")
        used.add(place)


def _check_stages(places: tuple[Place, ...], stage_size: int) -> None:
    rank_size, cards = len(places), CARDS_PER_MACHINE
    if rank_size < cards:
        raise RankTableError(
            f"Rank size {rank_size} must >= card count {cards} of one machine when stage size "
            f"{stage_size} > 1"
        )
    if rank_size // stage_size % cards != 0:
        raise RankTableError(
            f"Parallel count(rank size/stage size) {rank_size // stage_size} in one stage must be "
            f"N * {cards}(card count of one machine) when rank size >= 8, rank size: {rank_size}, "
            f"stage size: {stage_size}"
        )
    for rank, place in enumerate(places):
        if place.device_id != rank % cards:
            raise RankTableError(
                f"Check rank table config failed, expected device id of rank {rank} to be "
                f"{rank % cards}"
            )
        first = rank - rank % cards
        if place.ip != places[first].ip:
            raise RankTableError(
                f"Check rank table config failed, expected device ip {place.ip} of rank {rank} to "
                f"be equal with device ip {places[first].ip} of rank {first}"
            )
