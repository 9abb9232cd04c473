"""Which doors are open at which gateway."""

from typing import Any

from workers.supervisor.door_table import GRPC, REST, Door, DoorTable, Settled


def grpc_door(address: str = "127.0.0.1:0") -> Door:
    return Door(GRPC, address, 100, None)


def command(number: int, kind: str, address: str, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "command": f"open_{kind}",
        "address": address,
        "max_msg_mb_size": 100,
        "tls": None,
        **more,
    }


def sent(table: DoorTable) -> list[tuple[str, dict[str, Any]]]:
    commands, table.outbox[:] = list(table.outbox), []
    return commands


def settled(table: DoorTable) -> list[Settled]:
    outcomes, table.settled[:] = list(table.settled), []
    return outcomes


def open_at(table: DoorTable, gateway: str, bound: str) -> None:
    table.gateway_started(gateway)
    for _, asked in sent(table):
        table.receive_reply({"id": asked["id"], "ok": True, "address": bound})
    assert sent(table) == []


def test_a_door_added_before_its_gateway_is_opened_when_that_starts() -> None:
    table = DoorTable()
    table.add(grpc_door())
    assert sent(table) == []
    table.gateway_started("gateway/0")
    assert sent(table) == [("gateway/0", command(1, GRPC, "127.0.0.1:0"))]
    table.receive_reply({"id": 1, "ok": True, "address": "127.0.0.1:5500"})
    assert settled(table) == [Settled(GRPC, "127.0.0.1:5500")]
    assert table.addresses() == {GRPC: "127.0.0.1:5500"}
    assert table.is_complete("gateway/0")


def test_a_successor_opens_the_port_that_port_0_became() -> None:
    table = DoorTable()
    table.add(grpc_door())
    open_at(table, "gateway/0", "127.0.0.1:41234")
    settled(table)
    table.gateway_lost("gateway/0")
    assert table.addresses() == {}
    table.gateway_started("gateway/0")
    assert not table.is_complete("gateway/0")
    assert sent(table) == [("gateway/0", command(2, GRPC, "127.0.0.1:41234"))]
    table.receive_reply({"id": 2, "ok": True, "address": "127.0.0.1:41234"})
    assert table.is_complete("gateway/0")
    assert table.addresses() == {GRPC: "127.0.0.1:41234"}
    assert settled(table) == []


def test_a_door_that_cannot_be_opened_is_settled_with_the_error_and_may_be_asked_again() -> None:
    table = DoorTable()
    table.gateway_started("gateway/0")
    table.add(grpc_door("127.0.0.1:80"))
    sent(table)
    table.receive_reply({"id": 1, "ok": False, "error": "create server failed"})
    assert settled(table) == [Settled(GRPC, None, "create server failed")]
    assert GRPC not in table
    assert table.is_complete("gateway/0")
    table.add(grpc_door())
    assert sent(table) == [("gateway/0", command(2, GRPC, "127.0.0.1:0"))]


def test_a_successor_that_cannot_open_a_settled_door_is_broken() -> None:
    table = DoorTable()
    table.add(grpc_door())
    open_at(table, "gateway/0", "127.0.0.1:41234")
    settled(table)
    table.gateway_lost("gateway/0")
    table.gateway_started("gateway/0")
    sent(table)
    table.receive_reply({"id": 2, "ok": False, "error": "port is taken"})
    assert table.broken == [("gateway/0", "port is taken")]
    assert not table.is_complete("gateway/0")
    assert settled(table) == []


def test_a_second_gateway_gets_the_address_that_the_first_one_bound() -> None:
    table = DoorTable()
    table.gateway_started("gateway/0")
    table.gateway_started("gateway/1")
    table.add(grpc_door())
    assert sent(table) == [("gateway/0", command(1, GRPC, "127.0.0.1:0"))]
    table.receive_reply({"id": 1, "ok": True, "address": "127.0.0.1:9"})
    assert settled(table) == []
    assert sent(table) == [("gateway/1", command(2, GRPC, "127.0.0.1:9"))]
    table.receive_reply({"id": 2, "ok": True, "address": "127.0.0.1:9"})
    assert settled(table) == [Settled(GRPC, "127.0.0.1:9")]


def test_a_gateway_that_dies_while_it_is_asked_hands_the_door_to_its_successor() -> None:
    table = DoorTable()
    table.gateway_started("gateway/0")
    table.add(grpc_door())
    sent(table)
    table.gateway_lost("gateway/0")
    table.receive_reply({"id": 1, "ok": True, "address": "127.0.0.1:9"})
    assert settled(table) == []
    table.gateway_started("gateway/0")
    assert sent(table) == [("gateway/0", command(2, GRPC, "127.0.0.1:0"))]


def test_doors_of_both_kinds_are_independent() -> None:
    table = DoorTable()
    table.gateway_started("gateway/0")
    table.add(grpc_door())
    table.add(Door(REST, "127.0.0.1:0", 7, {"certificate": "c"}))
    assert [asked["id"] for _, asked in sent(table)] == [1, 2]
    table.receive_reply({"id": 2, "ok": True, "address": "127.0.0.1:2"})
    assert settled(table) == [Settled(REST, "127.0.0.1:2")]
    assert table.addresses() == {REST: "127.0.0.1:2"}
