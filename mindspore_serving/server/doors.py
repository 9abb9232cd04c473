"""`start_grpc_server`, `start_restful_server` and `stop`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.addresses import AddressError, parse_grpc_address, parse_rest_address
from mindbus.server import Tls
from mindspore_serving.server.host import host
from mindspore_serving.server.ssl_config import SSLConfig
from protocol.limits import MESSAGE_MB_DEFAULT, MESSAGE_MB_MAX, MESSAGE_MB_MIN
from protocol.parameter_checks import check_int, check_str
from workers.supervisor.door_table import GRPC, REST


def start_grpc_server(
    address: str, max_msg_mb_size: int = MESSAGE_MB_DEFAULT, ssl_config: SSLConfig | None = None
) -> None:
    """Open the gRPC door at `ip:port`, `host:port` or `unix:<path>`.

    max_msg_mb_size: MiB of one message, both ways, 1 to 512. May be called before or after
    `start_servables`. Says on stdout where it listens.
    Raises: RuntimeError, FileNotFoundError for a file of TLS that is missing.
    """
    check_str("address", address)
    check_int("max_msg_mb_size", max_msg_mb_size, MESSAGE_MB_MIN, MESSAGE_MB_MAX)
    if ssl_config is not None and not isinstance(ssl_config, SSLConfig):
        raise RuntimeError("The type of ssl_config should be type of SSLConfig")
    tls = None if ssl_config is None else _tls(ssl_config)
    if tls is not None:
        for path in (tls.certificate, tls.private_key, tls.custom_ca):
            if path is not None:
                Path(path).read_bytes()
    _open(GRPC, parse_grpc_address, address, max_msg_mb_size, tls)


def start_restful_server(
    address: str, max_msg_mb_size: int = MESSAGE_MB_DEFAULT, ssl_config: SSLConfig | None = None
) -> None:
    """Open the RESTful door at `ip:port` or `host:port`.

    max_msg_mb_size: MiB of one request body, 1 to 512. May be called before or after
    `start_servables`. Says on stdout where it listens.
    Raises: RuntimeError.
    """
    check_str("address", address)
    check_int("max_msg_mb_size", max_msg_mb_size, MESSAGE_MB_MIN, MESSAGE_MB_MAX)
    if ssl_config is not None and not isinstance(ssl_config, SSLConfig):
        raise RuntimeError("The type of ssl_config should be class of SSLConfig")
    tls = None if ssl_config is None else _tls(ssl_config)
    _open(REST, parse_rest_address, address, max_msg_mb_size, tls)


def stop() -> None:
    """Close the doors, finish what runs, end every worker; return when all are gone."""
    host.stop()


def _open(
    kind: str, parse: Callable[[str], object], address: str, max_msg_mb_size: int, tls: Tls | None
) -> None:
    """Open a door; an address that cannot be one is refused before any process starts."""
    try:
        parse(address)
    except AddressError as error:
        raise RuntimeError(f"Raise failed: {error}") from None
    host.open_door(kind, address, max_msg_mb_size, tls)


def _tls(config: SSLConfig) -> Tls:
    ca = config.custom_ca if config.verify_client else None
    return Tls(
        _lasting(config.certificate),
        _lasting(config.private_key),
        None if ca is None else _lasting(ca),
        config.verify_client,
    )


def _lasting(path: str) -> str:
    """A path that still holds after the script changed its directory.

    One that is not there stays as it was given, so that the error names what the user wrote.
    """
    return str(Path(path).absolute()) if Path(path).exists() else path
