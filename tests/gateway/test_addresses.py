"""Addresses, and the texts with which MindSpore Serving refuses them."""

from __future__ import annotations

import pytest

from gateway.addresses import (
    AddressError,
    TcpAddress,
    UnixAddress,
    parse_grpc_address,
    parse_rest_address,
)


@pytest.mark.parametrize(
    ("text", "host", "port", "printed"),
    [
        ("127.0.0.1:5500", "127.0.0.1", 5500, "127.0.0.1:5500"),
        ("localhost:1", "localhost", 1, "localhost:1"),
        ("0.0.0.0:65535", "0.0.0.0", 65535, "0.0.0.0:65535"),
        ("[::1]:80", "::1", 80, "[::1]:80"),
        ("::1:80", "::1", 80, "[::1]:80"),
    ],
)
def test_both_doors_take_a_host_and_a_port(text: str, host: str, port: int, printed: str) -> None:
    for parse in (parse_grpc_address, parse_rest_address):
        address = parse(text)
        assert address == TcpAddress(host, port)
        assert str(address) == printed


def test_only_the_grpc_door_takes_a_unix_socket() -> None:
    address = parse_grpc_address("unix:/tmp/a:b.sock")
    assert address == UnixAddress("/tmp/a:b.sock")
    assert str(address) == "unix:/tmp/a:b.sock"
    with pytest.raises(AddressError) as refused:
        parse_rest_address("unix:/tmp/a.sock")
    assert str(refused.value) == (
        "Serving Error: RESTful server does not support binding to unix domain socket"
    )


def test_a_unix_socket_without_a_path_is_refused() -> None:
    with pytest.raises(AddressError) as refused:
        parse_grpc_address("unix:")
    assert str(refused.value) == "Serving Error: Empty grpc server unix domain socket address"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("localhost", "The format of the {door} address 'localhost' is illegal"),
        ("", "The format of the {door} address '' is illegal"),
        (":5500", "Missing ip or port of the {door} address ':5500'"),
        ("localhost:", "Missing ip or port of the {door} address 'localhost:'"),
        ("[]:1", "Missing ip or port of the {door} address '[]:1'"),
        ("h:5a", "The type of {door} address 'h:5a' port is not a number"),
        ("h:\u0665", "The type of {door} address 'h:\u0665' port is not a number"),
        ("h:0", "The port of the {door} address 'h:0' is out of legal range [1 ~ 65535]"),
        ("h:-1", "The port of the {door} address 'h:-1' is out of legal range [1 ~ 65535]"),
        ("h:65536", "The port of the {door} address 'h:65536' is out of legal range [1 ~ 65535]"),
        (
            "h:" + "9" * 5000,
            "The port of the {door} address 'h:" + "9" * 5000 + "' is out of legal range "
            "[1 ~ 65535]",
        ),
    ],
)
def test_a_wrong_address_is_refused_in_the_words_of_mindspore_serving(text: str, rule: str) -> None:
    for parse, door in (
        (parse_grpc_address, "Serving gRPC"),
        (parse_rest_address, "RESTful server"),
    ):
        with pytest.raises(AddressError) as refused:
            parse(text)
        assert str(refused.value) == "Serving Error: " + rule.format(door=door)


def test_port_zero_is_any_free_port_only_where_it_is_allowed() -> None:
    assert parse_rest_address("h:0", zero_allowed=True) == TcpAddress("h", 0)
    assert parse_grpc_address("h:0", zero_allowed=True) == TcpAddress("h", 0)
    with pytest.raises(AddressError):
        parse_rest_address("h:-1", zero_allowed=True)
