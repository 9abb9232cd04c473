"""Rank tables: both layouts are read, and every rule is refused in MindSpore Serving's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.group import Place
from workers.distributed.rank_table import RankTableError, check_ranks, read_rank_table

FILE = "/srv/hccl.json"


def servers(*ips: str, cards: int = 8) -> dict[str, Any]:
    """A table in the layout `server_list`, with so many cards in each machine."""
    return {
        "version": "1.0",
        "server_list": [
            {
                "server_id": ip,
                "device": [
                    {"device_id": str(card), "rank_id": str(number * cards + card)}
                    for card in range(cards)
                ],
            }
            for number, ip in enumerate(ips)
        ],
    }


def groups(*devices: tuple[str, str, str]) -> dict[str, Any]:
    """A table in the layout `group_list`: (ip, device, rank) of each instance."""
    instances = [
        {"server_id": ip, "devices": [{"device_id": device, "device_ip": "1"}], "rank_id": rank}
        for ip, device, rank in devices
    ]
    return {"group_list": [{"group_name": "g", "instance_list": instances}]}


def read(table: Any) -> tuple[Place, ...]:
    return read_rank_table(json.dumps(table), FILE)


def test_both_layouts_give_the_places_in_order_of_ranks() -> None:
    expected = (Place("10.0.0.1", 0), Place("10.0.0.1", 1), Place("10.0.0.2", 0))
    table = servers("10.0.0.1", cards=2)
    table["server_list"] += [
        {"server_id": "10.0.0.2", "device": [{"device_id": "0", "rank_id": "2"}]}
    ]
    assert read(table) == expected
    rows = [(place.ip, str(place.device_id), str(rank)) for rank, place in enumerate(expected)]
    assert read(groups(*rows)) == expected


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ([], f"{FILE} is not json object"),
        ({}, f"server_list attr is empty in {FILE}"),
        ({"server_list": []}, f"server_list attr is empty in {FILE}"),
        ({"server_list": "all"}, f"server_list attr is empty in {FILE}"),
        ({"server_list": [{"device": []}]}, f"server_id attr is empty in {FILE}"),
        ({"server_list": [{"server_id": "a"}]}, f"device attr is empty in {FILE}"),
        ({"server_list": [{"server_id": 7}]}, f"server_id attr is empty in {FILE}"),
        (
            {"server_list": [{"server_id": "a", "device": [{"rank_id": "0"}]}]},
            f"device_id attr is empty in {FILE}",
        ),
        (
            {"server_list": [{"server_id": "a", "device": [{"device_id": 0, "rank_id": "0"}]}]},
            f"device_id attr is empty in {FILE}",
        ),
        (
            {"server_list": [{"server_id": "a", "device": [{"device_id": "0"}]}]},
            f"rank_id attr is empty in {FILE}",
        ),
        ({"group_list": []}, f"group_list attr is empty in {FILE}"),
        ({"group_list": [{}]}, f"instance_list attr is empty in {FILE}"),
        ({"group_list": [{"instance_list": [{}]}]}, f"server_id attr is empty in {FILE}"),
        (
            {"group_list": [{"instance_list": [{"server_id": "a"}]}]},
            f"devices attr is empty in {FILE}",
        ),
        (groups(("a", "01", "0")), f"device_id attr is invalid argument in {FILE}"),
        (groups(("a", "-1", "0")), f"device_id attr is invalid argument in {FILE}"),
        (groups(("a", "٣", "0")), f"device_id attr is invalid argument in {FILE}"),
        (groups(("a", "9" * 5000, "0")), f"device_id attr is invalid argument in {FILE}"),
        (groups(("a", "0", "00")), f"rank_id attr is invalid argument in {FILE}"),
        (groups(("a", "0", "x")), f"rank_id attr is invalid argument in {FILE}"),
        (groups(("a", "0", "1")), f"device size not match rank_id in {FILE}"),
        (groups(("a", "0", "1"), ("a", "1", "0")), f"device size not match rank_id in {FILE}"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused(table: Any, text: str) -> None:
    with pytest.raises(RankTableError) as caught:
        read(table)
    assert str(caught.value) == text


def test_a_file_that_is_not_json_is_named() -> None:
    with pytest.raises(RankTableError, match=rf"parse error: .*'{FILE}'"):
        read_rank_table("{", FILE)


def check(table: Any, rank_size: int, stage_size: int, has_cards: bool = True) -> None:
    check_ranks(read(table), rank_size, stage_size, FILE, has_cards)


def test_tables_that_keep_the_rules_are_taken() -> None:
    check(servers("a", cards=2), 2, 1)
    check(servers("a", "b", cards=4), 8, 1)
    check(groups(("a", "3", "0"), ("a", "1", "1")), 2, 1)
    check(servers("a", "b"), 16, 2)
    check(servers("a", "b", "c", "d"), 32, 2)


def test_on_the_cpu_stages_need_not_fill_machines() -> None:
    check(servers("a", cards=2), 2, 2, has_cards=False)
    with pytest.raises(RankTableError, match="of one machine when stage size 2 > 1"):
        check(servers("a", cards=2), 2, 2, has_cards=True)


def device(table: dict[str, Any], server: int, card: int, device_id: str) -> dict[str, Any]:
    """The table with another device id in one place."""
    table["server_list"][server]["device"][card]["device_id"] = device_id
    return table


PREFIX = "Check rank table config failed, "


@pytest.mark.parametrize(
    ("table", "rank_size", "stage_size", "text"),
    [
        (
            servers("a", cards=2),
            4,
            1,
            (
                f"Rank size 2 declared in rank table file '{FILE}' not equal to 4 declared in "
                "servable config"
            ),
        ),
        (
            servers("a", cards=3),
            3,
            2,
            "Rank size must be an integral multiple of stage size, rank size: 3, stage size: 2",
        ),
        (
            device(servers("a", cards=2), 0, 1, "0"),
            2,
            1,
            f"{PREFIX}device id repeatedly used by rank 1 in device ip a",
        ),
        (
            device(servers("a", cards=2), 0, 1, "8"),
            2,
            1,
            f"{PREFIX}device id cannot larger than 8",
        ),
        (
            servers("a", cards=4),
            4,
            2,
            "Rank size 4 must >= card count 8 of one machine when stage size 2 > 1",
        ),
        (
            servers("a"),
            8,
            2,
            (
                "Parallel count(rank size/stage size) 4 in one stage must be N * 8(card count of "
                "one machine) when rank size >= 8, rank size: 8, stage size: 2"
            ),
        ),
        (
            device(servers("a", "b"), 1, 1, "2"),
            16,
            2,
            f"{PREFIX}expected device id of rank 9 to be 1",
        ),
        (
            servers("a", "b", "c", "d", cards=4),
            16,
            2,
            f"{PREFIX}expected device id of rank 4 to be 4",
        ),
        (
            groups(*[("b" if rank == 10 else "a", str(rank % 8), str(rank)) for rank in range(16)]),
            16,
            2,
            f"{PREFIX}expected device ip b of rank 10 to be equal with device ip a of rank 8",
        ),
    ],
)
def test_what_contradicts_the_declaration_is_refused(
    table: Any, rank_size: int, stage_size: int, text: str
) -> None:
    with pytest.raises(RankTableError) as caught:
        check(table, rank_size, stage_size)
    assert str(caught.value) == text
