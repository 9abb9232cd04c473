"""The command line: `mindbus serve`, `status`, `restart`, `reload`, … (see `_parser`)."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mindbus.config import (
    EXPLICIT,
    GRACE_MS_DEFAULT,
    GRACE_MS_MAX,
    ConfigError,
    ServeConfig,
    add_flags,
    add_run_directory,
    read_config,
    read_run_directory,
)
from mindbus.config_values import ServableChoice
from mindbus.dec_key import read_dec_key
from mindbus.own_version import version
from mindbus.runtime_client import NotRunningError, RefusedError, RuntimeClient

if TYPE_CHECKING:
    from mindbus.servables import ServableLaunch
    from mindbus.server import ServerSettings, Tls

EXIT_OK = 0
EXIT_ERROR = 1

#: What probes of orchestrators wait by default is a second or two.
READY_TIMEOUT_MS_DEFAULT = 2_000

#: That one of these cannot be found is a bug; that any other cannot is an installation's gap.
OWN_PACKAGES = frozenset(
    ("broker", "gateway", "mindbus", "mindspore_serving", "protocol", "telemetry", "workers")
)


SERVE_DESCRIPTION = """\
Serves every servable of a directory, or those named, in the foreground. Prints where each door
listens and, once every worker is warm, a line that begins with `MindBus: ready`. The first SIGTERM
or Ctrl-C finishes what runs, the second one ends at once."""

SERVE_EPILOG = """\
Each flag can be given by the environment variable in its brackets (lists with commas); the flag
wins. Logs go to stderr: GLOG_v=0 to 4 (default 2: warnings), MS_SUBMODULE_LOG_v="{SERVING:1}",
GLOG_logtostderr=0 with GLOG_log_dir, MINDBUS_LOG_FORMAT=json."""


#: Commands for one slot: what they do, and what else to know.
SLOT_COMMAND_TEXTS = {
    "drain": (
        "have one worker finish what it holds and leave",
        "Its slot stays empty until `mindbus reset`. The last worker of a servable is not drained.",
    ),
    "kill": (
        "kill the process of one slot",
        "What it held is computed by another worker; another process takes its place.",
    ),
    "reset": (
        "fill a slot again that was given up or drained",
        "Deaths from before no longer count.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `mindbus` and of `python -m mindbus`. Returns the exit code."""
    try:
        return _run(arguments)
    except (ConfigError, NotRunningError, RefusedError) as error:
        _complain(str(error))
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OWN_PACKAGES:
            raise
        _complain(
            f"{error.name} is not installed for {sys.executable}: install the packages of a "
            "server, `pip install 'mindbus[gateway,mindspore]'` (or `make setup` in a checkout)"
        )
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has gone (`mindbus status | head`).
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for the flush at the exit
        return EXIT_ERROR


def _run(arguments: Sequence[str] | None) -> int:
    flags, unknown = _parser().parse_known_args(arguments)
    if unknown:
        # By the command's own parser: its usage is the one that helps.
        flags.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    code: int = flags.run(flags)
    return code


def _parser() -> argparse.ArgumentParser:
    from mindbus import infer_command, roll_commands, settings_command

    parser = argparse.ArgumentParser(
        prog="mindbus", description="Serves MindSpore models over gRPC, REST and ZeroMQ."
    )
    parser.add_argument("--version", action="version", version=f"mindbus {version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve until SIGTERM, Ctrl-C or `mindbus stop`",
        description=SERVE_DESCRIPTION,
        epilog=SERVE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(serve)
    serve.set_defaults(run=_serve, parser=serve)
    status = commands.add_parser(
        "status",
        help="show processes, doors and queues",
        description="Show the processes, doors and queues of a running server.",
    )
    add_run_directory(status)
    status.add_argument("--json", action="store_true", help="one JSON document")
    status.set_defaults(run=_status, parser=status)
    stop = commands.add_parser(
        "stop",
        help="drain and stop the server",
        description="Close the doors, finish what runs, end every process; return then.",
    )
    add_run_directory(stop)
    stop.add_argument(
        "--grace-ms",
        type=_grace_ms,
        default=GRACE_MS_DEFAULT,
        metavar="N",
        help=f"time to finish running requests (default: {GRACE_MS_DEFAULT})",
    )
    stop.set_defaults(run=_stop, parser=stop)
    ready = commands.add_parser(
        "ready",
        help="tell by the exit code whether the server, or one servable, is ready",
        description="Exit code 0: requests are answered. 1: not, and why; also when nothing runs, "
        "or nothing answers in time.",
    )
    ready.add_argument("servable", nargs="?", metavar="SERVABLE", help="default: every servable")
    ready.add_argument(
        "--timeout-ms",
        type=_grace_ms,
        default=READY_TIMEOUT_MS_DEFAULT,
        metavar="N",
        help=f"how long an answer may take (default: {READY_TIMEOUT_MS_DEFAULT})",
    )
    add_run_directory(ready)
    ready.set_defaults(run=_ready, parser=ready)
    roll_commands.add_parsers(commands)
    for name, (text, more) in SLOT_COMMAND_TEXTS.items():
        command = commands.add_parser(name, help=text, description=f"{text.capitalize()}. {more}")
        command.add_argument("slot", metavar="SLOT", help="as `mindbus status` shows it")
        add_run_directory(command)
        command.set_defaults(run=_slot_command, parser=command, command=name)
    settings_command.add_parser(commands)
    infer_command.add_parser(commands)
    show_version = commands.add_parser("version", help="show the version")
    show_version.set_defaults(run=_version, parser=show_version)
    return parser


def _grace_ms(text: str) -> int:
    grace_ms = int(text)
    if not 0 <= grace_ms <= GRACE_MS_MAX:
        raise argparse.ArgumentTypeError(f"{grace_ms} is not in 0..{GRACE_MS_MAX}")
    return grace_ms


def _complain(text: str) -> None:
    print(f"mindbus: {text}", file=sys.stderr, flush=True)


def _announce(line: str) -> None:
    """Print a line of a server; whoever read it may be gone (`| head`, a closed terminal)."""
    try:
        print(line, flush=True)
    except OSError:
        # What is buffered has to go somewhere, or the interpreter's exit fails at it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---------------------------------------------------------------- serve


def _serve(flags: argparse.Namespace) -> int:
    # Here and not above: `status` and `stop` need none of it and shall answer at once.
    from mindbus.mindspore_check import warn_of_version
    from mindbus.server import Server, StartError
    from mindbus.status_table import ready_line
    from telemetry.log import configure

    configure("mindbus")
    config = read_config(vars(flags), os.environ)
    server = Server(_server_settings(config))
    server.install_signal_handlers()
    try:
        launches = _launches(config)
        if config.backend == "mindspore":
            warn_of_version()
        size, tls = config.max_msg_mb_size, _tls(config)
        with _hint("--grpc-address" if config.grpc_unix_address else "--grpc-port", tls):
            server.open_grpc(config.grpc_address, size, tls)
        with _hint("--rest-port", None):
            server.open_rest(config.rest_address, size, tls)
        server.start_servables(launches)
        _announce(ready_line(server.status()))
    except StartError as error:
        server.stop()
        _complain(str(error))
        return EXIT_ERROR
    code = server.wait()
    if server.failure is not None:
        _complain(str(server.failure))
    else:
        _announce("MindBus: stopped")
    forced_by = server.forced_by
    return code if forced_by is None else 128 + forced_by


@contextmanager
def _hint(option: str, tls: Tls | None) -> Iterator[None]:
    """Say with MindSpore Serving's text for a door that cannot be opened what to try.

    tls: given if the text is the same for files of TLS that cannot be used.
    """
    from mindbus.server import StartError

    try:
        yield
    except StartError as error:
        if "start failed" not in str(error):
            raise
        files = "" if tls is None else "; or a TLS file that cannot be used?"
        raise StartError(
            f"{error} (in use, or not an address of this machine? see --host and {option}{files})"
        ) from None


def _server_settings(config: ServeConfig) -> ServerSettings:
    from mindbus.server import ServerSettings
    from workers.supervisor.hang_policy import HangLimits
    from workers.supervisor.restart_policy import RestartLimits

    return ServerSettings(
        run_directory=config.run_directory,
        mode=config.mode,
        gateways=config.gateways,
        requests_max=config.requests_max,
        ready_ms=config.ready_ms,
        model_control=config.model_control == EXPLICIT,
        settings_control=config.settings_control == EXPLICIT,
        producers_addresses=config.producers_addresses,
        grace_ms=config.grace_ms,
        restarts=RestartLimits(
            drain_limit_ms=config.grace_ms, device_limit_ms=config.device_limit_ms
        ),
        hang=HangLimits(hang_ms=config.hang_ms),
        worker_log_directory=config.worker_log_directory,
        has_access_log=config.access_log == "on",
        npu_smi=config.npu_smi,
        rest_compression=config.rest_compression == "on",
    )


def _tls(config: ServeConfig) -> Tls | None:
    from mindbus.server import Tls

    if config.tls_certificate is None:
        return None
    ca = config.tls_client_ca
    return Tls(
        str(config.tls_certificate),
        str(config.tls_private_key),
        None if ca is None else str(ca),
        ca is not None,
    )


def _launches(config: ServeConfig) -> list[ServableLaunch]:
    """One launch per version of a servable. Raises StartError, ConfigError."""
    from mindbus.servables import ServableLaunch, check_servable, discover_servables
    from workers.prctl import keep_memory_private
    from workers.servable.loader import version_numbers

    dec_key = None
    if config.dec_key_file is not None:
        keep_memory_private()
        dec_key = read_dec_key(config.dec_key_file)
    choices = config.servables or tuple(
        ServableChoice(name) for name in discover_servables(config.servable_directory)
    )
    launches = [
        ServableLaunch(
            servable_directory=str(config.servable_directory),
            servable_name=choice.name,
            version=version,
            device_ids=config.device_ids,
            extra_workers=config.extra_workers,
            device_target=config.device_target,
            backend=config.backend,
            dec_key=dec_key,
            dec_mode=config.dec_mode,
        )
        for choice in choices
        for version in choice.versions.versions(
            version_numbers(config.servable_directory, choice.name)
        )
    ]
    for launch in launches:
        # Before any door opens: what is plainly not there needs no server to find out.
        check_servable(launch)
    return launches


# ---------------------------------------------------------------- slots, status, stop, version


def _slot_command(flags: argparse.Namespace) -> int:
    with RuntimeClient(read_run_directory(vars(flags), os.environ)) as client:
        client.slot_command(flags.command, flags.slot)
    return EXIT_OK


def _status(flags: argparse.Namespace) -> int:
    from mindbus.broker_stats import read_stats
    from mindbus.status_table import format_status, merge_stats

    with RuntimeClient(read_run_directory(vars(flags), os.environ)) as client:
        status = client.status()
    producers = status["producers"]
    merged = merge_stats(status, read_stats(producers[0]) if producers else None)
    print(json.dumps(merged, indent=2) if flags.json else format_status(merged))
    return EXIT_OK


def _ready(flags: argparse.Namespace) -> int:
    from mindbus.broker_stats import read_stats
    from mindbus.readiness import why_not_ready

    timeout_s = max(1, flags.timeout_ms) / 1_000
    with RuntimeClient(read_run_directory(vars(flags), os.environ), timeout_s) as client:
        status = client.status()
    producers = status["producers"]
    stats = read_stats(producers[0], timeout_s) if producers else None
    reason = why_not_ready(status, stats, flags.servable)
    print("ready" if reason is None else f"not ready: {reason}")
    return EXIT_OK if reason is None else EXIT_ERROR


def _stop(flags: argparse.Namespace) -> int:
    with RuntimeClient(read_run_directory(vars(flags), os.environ)) as client:
        code = client.stop(flags.grace_ms)
    print("MindBus: stopped")
    return code


def _version(_flags: argparse.Namespace) -> int:
    print(f"mindbus {version()}")
    return EXIT_OK
