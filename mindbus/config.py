"""Settings of `mindbus serve`: each is a flag and a MINDBUS_… variable; the flag wins.

One table, `SETTINGS`, makes the flags, reads the variables and is what the documentation lists.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mindbus.config_values import (
    ServableChoice,
    one_of,
    read_bus_address,
    read_device_ids,
    read_path,
    read_servable,
    read_text,
    read_unix_address,
    whole_number,
)
from protocol import limits
from workers.launch import BACKENDS, DEC_MODES
from workers.supervisor.run_directory import default_run_directory

EMBEDDED = "embedded"
STANDALONE = "standalone"
MODES = (EMBEDDED, STANDALONE)
EXPLICIT = "explicit"
CONTROLS = ("none", EXPLICIT)
DEVICE_TARGETS = ("CPU", "GPU", "Ascend")

GRPC_PORT_DEFAULT = 5500
REST_PORT_DEFAULT = 1500
PORT_MAX = 65_535
GRACE_MS_DEFAULT = 10_000
GRACE_MS_MAX = 86_400_000
DEVICE_LIMIT_MS_DEFAULT = 30_000
#: gRPC (proposal A9) has servers end old connections, so that clients spread over new ones.
GATEWAYS_MAX = 64
#: MindSpore Serving's limit of `num_parallel_workers`.
EXTRA_WORKERS_MAX = 64
REQUESTS_MAX_MAX = 10_000_000

T = TypeVar("T")


class ConfigError(Exception):
    """A setting that cannot be used; the text names the setting, the value and the limit."""


@dataclass(frozen=True)
class ServeConfig:
    """What `mindbus serve` was told. No servables: every one in the directory."""

    servable_directory: Path
    run_directory: Path
    servables: tuple[ServableChoice, ...] = ()
    device_ids: tuple[int, ...] = (0,)
    extra_workers: int = 0
    device_target: str | None = None
    host: str = "127.0.0.1"
    grpc_port: int = GRPC_PORT_DEFAULT
    rest_port: int = REST_PORT_DEFAULT
    grpc_unix_address: str | None = None
    max_msg_mb_size: int = limits.MESSAGE_MB_DEFAULT
    requests_max: int = limits.REQUESTS_MAX_DEFAULT
    mode: str = EMBEDDED
    gateways: int = 1
    backend: str = "mindspore"
    producers_addresses: tuple[str, ...] = ()
    grace_ms: int = GRACE_MS_DEFAULT
    hang_ms: int = limits.BUDGET_MS_DEFAULT
    ready_ms: int = limits.READY_MS
    model_control: str = "none"
    settings_control: str = "none"
    device_limit_ms: int = DEVICE_LIMIT_MS_DEFAULT
    worker_log_directory: Path | None = None
    access_log: str = "off"
    npu_smi: str | None = None
    rest_compression: str = "off"
    tls_certificate: Path | None = None
    tls_private_key: Path | None = None
    tls_client_ca: Path | None = None
    dec_key_file: Path | None = None
    dec_mode: str = "AES-GCM"

    @property
    def grpc_address(self) -> str:
        """Where the gRPC door is to be opened."""
        return self.grpc_unix_address or f"{self.host}:{self.grpc_port}"

    @property
    def rest_address(self) -> str:
        """Where the REST door is to be opened."""
        return f"{self.host}:{self.rest_port}"


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class Setting:
    """One line of the table. is_list: the flag may be repeated, the variable has commas."""

    field: str
    metavar: str
    parse: Callable[[str], Any]
    help: str
    flag: str = ""
    is_list: bool = False

    @property
    def option(self) -> str:
        """The flag on the command line."""
        return self.flag or "--" + self.field.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "MINDBUS_" + self.option[2:].upper().replace("-", "_")


SETTINGS = (
    Setting("servable_directory", "DIR", read_path, "where the servables are (default: .)"),
    Setting(
        "servables",
        "NAME[:VERSIONS]",
        read_servable,
        "serve this one; repeatable (default: every sub-directory with a servable_config.py); "
        "VERSIONS: 3, 3+5, all, latest=2 (default: latest)",
        flag="--servable",
        is_list=True,
    ),
    Setting("device_ids", "IDS", read_device_ids, "one worker per id, such as 0,1 (default: 0)"),
    Setting(
        "extra_workers",
        "N",
        whole_number(0, EXTRA_WORKERS_MAX),
        "workers of each servable beside those of the devices, for its Python stages (default: 0)",
    ),
    Setting(
        "device_target",
        "|".join(DEVICE_TARGETS),
        one_of(DEVICE_TARGETS),
        "kind of device (default: the best that is there)",
    ),
    Setting("host", "HOST", read_text, "address of both doors (default: 127.0.0.1)"),
    Setting(
        "grpc_port",
        "PORT",
        whole_number(0, PORT_MAX),
        f"0: any free one (default: {GRPC_PORT_DEFAULT})",
    ),
    Setting(
        "rest_port",
        "PORT",
        whole_number(0, PORT_MAX),
        f"0: any free one (default: {REST_PORT_DEFAULT})",
    ),
    Setting(
        "grpc_unix_address",
        "unix:PATH",
        read_unix_address,
        "gRPC on a unix socket instead of a port",
        flag="--grpc-address",
    ),
    Setting(
        "max_msg_mb_size",
        "N",
        whole_number(limits.MESSAGE_MB_MIN, limits.MESSAGE_MB_MAX),
        f"MiB of one message at the doors (default: {limits.MESSAGE_MB_DEFAULT})",
    ),
    Setting(
        "requests_max",
        "N",
        whole_number(1, REQUESTS_MAX_MAX),
        f"requests in the server at once (default: {limits.REQUESTS_MAX_DEFAULT})",
        flag="--max-enqueued-requests",
    ),
    Setting(
        "mode",
        "|".join(MODES),
        one_of(MODES),
        "broker inside the gateway, or a process of its own (default: embedded)",
    ),
    Setting(
        "gateways",
        "N",
        whole_number(1, GATEWAYS_MAX),
        "gateway processes; more than 1 need --mode standalone (default: 1)",
    ),
    Setting(
        "backend",
        "|".join(BACKENDS),
        one_of(tuple(BACKENDS)),
        "what computes (default: mindspore)",
    ),
    Setting(
        "run_directory",
        "DIR",
        read_path,
        "sockets and lock of this server; one server each "
        "(default: $XDG_RUNTIME_DIR/mindbus, else /tmp/mindbus-UID)",
    ),
    Setting(
        "producers_addresses",
        "ADDRESS",
        read_bus_address,
        "one more address for direct ZeroMQ clients, such as tcp://127.0.0.1:6000; repeatable",
        flag="--producers-address",
        is_list=True,
    ),
    Setting(
        "grace_ms",
        "N",
        whole_number(0, GRACE_MS_MAX),
        f"time to finish running requests when it stops (default: {GRACE_MS_DEFAULT})",
    ),
    Setting(
        "hang_ms",
        "N",
        whole_number(0, GRACE_MS_MAX),
        "a worker in which one stage or batch runs this long is killed and replaced; 0: never "
        f"(default: {limits.BUDGET_MS_DEFAULT})",
    ),
    Setting(
        "ready_ms",
        "N",
        whole_number(1, GRACE_MS_MAX),
        "a servable whose workers hold requests and answer none for so long is not ready "
        f"(default: {limits.READY_MS})",
    ),
    Setting(
        "model_control",
        "|".join(CONTROLS),
        one_of(CONTROLS),
        "explicit: clients of the Open Inference Protocol may have other versions loaded "
        "(default: none)",
    ),
    Setting(
        "settings_control",
        "|".join(CONTROLS),
        one_of(CONTROLS),
        "explicit: clients of the Open Inference Protocol may change log and trace settings "
        "(default: none)",
    ),
    Setting(
        "device_limit_ms",
        "N",
        whole_number(0, GRACE_MS_MAX),
        "how long a device that is busy is tried again before its slot is given up "
        f"(default: {DEVICE_LIMIT_MS_DEFAULT})",
    ),
    Setting(
        "worker_log_directory",
        "DIR",
        read_path,
        "a file for each worker's output (default: the terminal of the server)",
    ),
    Setting(
        "access_log",
        "on|off",
        one_of(("on", "off")),
        "a line in the log for each request at the doors (default: off)",
    ),
    Setting(
        "rest_compression",
        "on|off",
        one_of(("on", "off")),
        "compress replies of 1 KiB and more for REST clients that accept it (default: off)",
    ),
    Setting(
        "npu_smi",
        "PROGRAM",
        read_text,
        "ask this program for the usage of Ascend devices, for /metrics (default: none is asked)",
    ),
    Setting(
        "tls_certificate", "FILE", read_path, "PEM chain of both doors, which then speak TLS only"
    ),
    Setting("tls_private_key", "FILE", read_path, "PEM key of the chain's first certificate"),
    Setting(
        "tls_client_ca",
        "FILE",
        read_path,
        "demand client certificates that this PEM file has signed",
    ),
    Setting(
        "dec_key_file", "FILE", read_path, "file with the key of encrypted models, 16, 24 or 32 B"
    ),
    Setting(
        "dec_mode",
        "|".join(DEC_MODES),
        one_of(DEC_MODES),
        "cipher of encrypted models (default: AES-GCM)",
    ),
)


def add_run_directory(parser: argparse.ArgumentParser) -> None:
    """Declare the flag of the commands that talk to a running server: which one."""
    parser.add_argument(
        "--run-directory",
        metavar="DIR",
        help="which server (default: $XDG_RUNTIME_DIR/mindbus, else /tmp/mindbus-UID) "
        "[MINDBUS_RUN_DIRECTORY]",
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare a flag for each setting; they stay texts until `read_config`."""
    for setting in SETTINGS:
        parser.add_argument(
            setting.option,
            dest=setting.field,
            metavar=setting.metavar,
            action="append" if setting.is_list else "store",
            default=None,
            help=f"{setting.help} [{setting.variable}]",
        )


def read_config(
    flags: Mapping[str, Any], environment: Mapping[str, str], user_id: int | None = None
) -> ServeConfig:
    """Flags over variables over defaults.

    flags: texts (lists of them for repeatable flags) by field name; None where not given.
    An empty variable counts as not set. Raises: ConfigError.
    """
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        given = _given(setting, flags, environment)
        if given is not None:
            values[setting.field] = given
    values.setdefault("servable_directory", Path.cwd())
    values.setdefault("run_directory", read_run_directory(flags, environment, user_id))
    config = ServeConfig(**values)
    _check_tls(config)
    if config.gateways > 1 and config.mode != STANDALONE:
        raise ConfigError(
            f"--gateways {config.gateways} needs --mode {STANDALONE}: "
            f"in mode {config.mode} the broker is inside the one gateway"
        )
    return config


def _check_tls(config: ServeConfig) -> None:
    if (config.tls_certificate is None) != (config.tls_private_key is None):
        raise ConfigError("--tls-certificate and --tls-private-key go together, one is missing")
    if config.tls_client_ca is not None and config.tls_certificate is None:
        raise ConfigError("--tls-client-ca needs --tls-certificate and --tls-private-key")


def read_run_directory(
    flags: Mapping[str, Any], environment: Mapping[str, str], user_id: int | None = None
) -> Path:
    """The run directory alone, for commands that look for a server. Raises ConfigError."""
    setting = next(setting for setting in SETTINGS if setting.field == "run_directory")
    given = _given(setting, flags, environment)
    if given is not None:
        assert isinstance(given, Path)
        return given
    return default_run_directory(environment, os.getuid() if user_id is None else user_id)


def _given(setting: Setting, flags: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """The parsed value of a setting, or None where neither flag nor variable is there."""
    said: Any = flags.get(setting.field)
    origin = setting.option
    if said is None:
        origin = setting.variable
        text = environment.get(origin)
        if not text:
            return None
        said = text.split(",") if setting.is_list else text
    try:
        if setting.is_list:
            return tuple(setting.parse(item) for item in said)
        return setting.parse(said)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from None
