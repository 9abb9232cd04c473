"""`mindbus settings`: show log and trace settings of a running server, and change them."""

from __future__ import annotations

import argparse
import os
from typing import Any

from mindbus.config import add_run_directory, read_run_directory
from mindbus.runtime_client import RuntimeClient

EXIT_OK = 0

#: As glog counts them.
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
ENVIRONMENT = "environment"

DESCRIPTION = """\
Shows the log level and the sampling of traces of a running server, after changing those that are
named. Every process of the server follows at once, and those that are started later. What MindSpore
itself logs is decided when a worker starts (GLOG_v). Spans are made only in a server that was
started with MINDBUS_TRACING=on."""


def add_parser(commands: Any) -> None:
    """Add the command to the parsers of `mindbus`."""
    parser = commands.add_parser(
        "settings", help="show or change log level and tracing", description=DESCRIPTION
    )
    parser.add_argument(
        "--log-level",
        type=_level,
        default=argparse.SUPPRESS,
        metavar="LEVEL",
        help=f"{', '.join(LEVELS)}, 0 to 4, or `{ENVIRONMENT}`: what GLOG_v and "
        "MS_SUBMODULE_LOG_v said at the start",
    )
    parser.add_argument("--tracing", choices=("on", "off"), help="whether spans are made")
    parser.add_argument(
        "--trace-rate",
        type=int,
        metavar="N",
        help="trace one of N requests whose callers have not decided",
    )
    add_run_directory(parser)
    parser.set_defaults(run=_settings, parser=parser)


def _level(text: str) -> int | None:
    name = text.upper()
    if name == ENVIRONMENT.upper():
        return None
    if name in LEVELS:
        return LEVELS.index(name)
    if text in ("0", "1", "2", "3", "4"):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(LEVELS)}, 0 to 4")


def _settings(flags: argparse.Namespace) -> int:
    wishes: dict[str, Any] = {}
    if "log_level" in flags:
        wishes["log_level"] = flags.log_level
    if flags.tracing is not None:
        wishes["is_tracing"] = flags.tracing == "on"
    if flags.trace_rate is not None:
        wishes["trace_rate"] = flags.trace_rate
    with RuntimeClient(read_run_directory(vars(flags), os.environ)) as client:
        if wishes:
            client.change_settings(wishes)
        print(settings_text(client.status()["settings"]))
    return EXIT_OK


def settings_text(settings: dict[str, Any]) -> str:
    """What the command prints. settings: of the status."""
    level, of_environment = settings["log_level"], settings["environment_log_level"]
    log = f"{LEVELS[of_environment]} (from the environment)" if level is None else LEVELS[level]
    sampling = f"one of {settings['trace_rate']}" if settings["trace_rate"] > 1 else "all"
    tracing = f"{sampling}, where MINDBUS_TRACING=on" if settings["is_tracing"] else "off"
    return f"log level: {log}\ntracing:   {tracing}"
