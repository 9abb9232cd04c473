"""`mindbus restart` and `reload`: replace workers one by one, and show how it goes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from mindbus.config import add_run_directory, read_run_directory
from mindbus.runtime_client import RuntimeClient
from mindbus.status_table import progress_line
from workers.supervisor.roll import MIN_READY_DEFAULT, MODES, SETTLE_MS_DEFAULT

EXIT_OK = 0
EXIT_FAILED = 1

#: How often the server is asked how far it is.
POLL_S = 0.1

HOW = """\
One worker at a time, while everything keeps answering. By surge: start the new one, wait until it
is ready, drain the old one; or in place: drain the old one first, for a device that one process
owns. The exit code is 0 when every worker is replaced, and 1 when the roll stopped: what was not
replaced serves on."""

RESTART_DESCRIPTION = f"""\
Replaces every worker of a running server, or of one servable, by a new process.
{HOW}"""

RELOAD_DESCRIPTION = f"""\
Goes to another version of a servable: the newest directory, or the one that is named.
{HOW}
While both versions run, requests for version 0 are shared between them; those for a version that is
named go to that version as long as it runs."""


def add_parsers(commands: Any) -> None:
    """Declare `restart` and `reload` and their flags."""
    restart = commands.add_parser(
        "restart",
        help="replace the workers one at a time while everything keeps answering",
        description=RESTART_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    restart.add_argument("servable", nargs="?", metavar="SERVABLE", help="default: every servable")
    restart.set_defaults(version_number=None)
    _add_flags(restart, "restart")
    reload = commands.add_parser(
        "reload",
        help="go to another version of a servable while everything keeps answering",
        description=RELOAD_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reload.add_argument("servable", metavar="SERVABLE")
    reload.add_argument(
        "--version-number", type=int, default=0, metavar="N", help="0: the newest (default)"
    )
    _add_flags(reload, "reload")


def _add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    parser.add_argument(
        "--mode",
        choices=MODES,
        help="default: surge on the CPU, in place on other devices",
    )
    parser.add_argument(
        "--min-ready",
        type=int,
        default=MIN_READY_DEFAULT,
        metavar="N",
        help=f"workers that stay ready at any moment (default: {MIN_READY_DEFAULT})",
    )
    parser.add_argument(
        "--settle-ms",
        type=int,
        default=SETTLE_MS_DEFAULT,
        metavar="N",
        help="how long a new worker must stay ready before the next one is touched "
        f"(default: {SETTLE_MS_DEFAULT})",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan, do nothing")
    add_run_directory(parser)
    parser.set_defaults(run=run, parser=parser, command=command)


def run(flags: argparse.Namespace) -> int:
    """Begin a roll and follow it. Returns the exit code."""
    directory = read_run_directory(vars(flags), os.environ)
    request = {
        "servable": flags.servable,
        "version": flags.version_number,
        "mode": flags.mode,
        "min_ready": flags.min_ready,
        "settle_ms": flags.settle_ms,
        "is_dry_run": flags.dry_run,
    }
    with RuntimeClient(directory) as client:
        plan = client.roll(flags.command, request)
        if flags.dry_run:
            print("\n".join(plan_lines(plan)))
            return EXIT_OK
        return _follow(client, sys.stdout)


def plan_lines(plan: Sequence[Mapping[str, Any]]) -> list[str]:
    """The plan for people, a line per worker in the order in which they are replaced."""
    width = max(len(step["old"]) for step in plan)
    return [
        f"{number}. {step['old']:<{width}}  {step['mode']}"
        + (f", new slot {step['new']}" if step["new"] != step["old"] else "")
        for number, step in enumerate(plan, start=1)
    ]


def _follow(client: RuntimeClient, output: TextIO) -> int:
    """Show the roll until it is over; a terminal gets a moving bar, a file a line per change."""
    is_terminal = output.isatty()
    shown = ""
    while True:
        roll = client.status()["roll"]
        line = progress_line(roll)
        if line != shown:
            print(f"\r\x1b[K{line}" if is_terminal else line, end="" if is_terminal else "\n")
            output.flush()
            shown = line
        if roll["is_over"]:
            break
        time.sleep(POLL_S)
    if is_terminal:
        print()
    if roll["failure"] is not None:
        print(f"mindbus: the roll stopped: {roll['failure']}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK
