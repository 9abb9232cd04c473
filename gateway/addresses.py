"""Addresses of the doors, and the texts with which MindSpore Serving refuses them.

Source of the texts: `start_grpc_server` and `start_restful_server` of MindSpore Serving 2.0, less
the prefix `Raise failed: `, which its Python layer puts before every error.
"""

from __future__ import annotations

import re
from typing import NamedTuple

UNIX_PREFIX = "unix:"

PORT_MAX = 65_535

_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)


class AddressError(ValueError):
    """An address that no door can open; the text is the one that MindSpore Serving users know."""


class TcpAddress(NamedTuple):
    """A host (name, IPv4, or IPv6 without brackets) and a port; 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class UnixAddress(NamedTuple):
    """The path of a unix domain socket."""

    path: str

    def __str__(self) -> str:
        return UNIX_PREFIX + self.path


def parse_grpc_address(text: str, *, zero_allowed: bool = False) -> TcpAddress | UnixAddress:
    """Read `ip:port`, `host:port`, `[ipv6]:port` or `unix:path`.

    zero_allowed: whether port 0 may stand for any free port. Raises: AddressError.
    """
    if text.startswith(UNIX_PREFIX):
        path = text.removeprefix(UNIX_PREFIX)
        if not path:
            raise AddressError("Serving Error: Empty grpc server unix domain socket address")
        return UnixAddress(path)
    return _parse_tcp(text, "Serving gRPC", zero_allowed)


def parse_rest_address(text: str, *, zero_allowed: bool = False) -> TcpAddress:
    """Read `ip:port`, `host:port` or `[ipv6]:port`; unix sockets are refused.

    zero_allowed: whether port 0 may stand for any free port. Raises: AddressError.
    """
    if text.startswith(UNIX_PREFIX):
        raise AddressError(
            "Serving Error: RESTful server does not support binding to unix domain socket"
        )
    return _parse_tcp(text, "RESTful server", zero_allowed)


def _parse_tcp(text: str, door: str, zero_allowed: bool) -> TcpAddress:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise AddressError(f"Serving Error: The format of the {door} address '{text}' is illegal")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or not port:
        raise AddressError(f"Serving Error: Missing ip or port of the {door} address '{text}'")
    if not _NUMBER.fullmatch(port):
        raise AddressError(
            f"Serving Error: The type of {door} address '{text}' port is not a number"
        )
    least = 0 if zero_allowed else 1
    if len(port) > 10 or not least <= int(port) <= PORT_MAX:
        raise AddressError(
            f"Serving Error: The port of the {door} address '{text}' is out of legal range "
            f"[1 ~ {PORT_MAX}]"
        )
    return TcpAddress(host, int(port))
