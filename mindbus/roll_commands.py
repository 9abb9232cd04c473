"""`mindbus restart`, `reload`, `promote`, `rollback`: replace workers, and show how it goes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from mindbus.config import add_run_directory, read_run_directory
from mindbus.runtime_client import RefusedError, RuntimeClient
from mindbus.status_table import progress_line
from workers.supervisor.roll import MODES
from workers.supervisor.roll_plan import MIN_READY_DEFAULT, SETTLE_MS_DEFAULT

if TYPE_CHECKING:
    from mindbus.version_watch import VersionWatch

EXIT_OK = 0
EXIT_FAILED = 1

#: How often the server is asked how far it is.
POLL_S = 0.1

#: How often `--watch` looks; a version is rolled out after two looks.
WATCH_INTERVAL_S_DEFAULT = 5.0

HOW = """\
One worker at a time, while everything keeps answering. By surge: start the new one, wait until it
is ready, drain the old one; or in place: drain the old one first, for a device that one process
owns. The exit code is 0 when every worker is replaced, and 1 when the roll stopped: what was not
replaced serves on. Ctrl-C ends the watching; the roll goes on until `mindbus cancel`."""

RESTART_DESCRIPTION = f"""\
Replaces every worker of a running server, or of one servable, by a new process.
{HOW}"""

RELOAD_DESCRIPTION = f"""\
Goes to another version of a servable: the newest directory, or the one that is named.
{HOW}

While both versions run, requests for version 0 are shared between them by their workers; those for
a version that is named go to that version as long as it runs. With --canary PERCENT one worker goes
to the new version, which gets that share of the requests for version 0, until `mindbus promote` or
`mindbus rollback`. A client may name the labels `stable` and `canary` instead of a version."""

PROMOTE_DESCRIPTION = f"""\
Takes the other workers of a servable to its canary's version; also goes on with a reload that
stopped half-way.
{HOW}"""

ROLLBACK_DESCRIPTION = f"""\
Takes the canary of a servable back to the stable version, which gets every request for version 0
from now on; also goes back from a reload that stopped half-way.
{HOW}"""


def add_parsers(commands: Any) -> None:
    """Declare the commands that replace workers, and their flags."""
    restart = _add_parser(
        commands,
        "restart",
        "replace the workers one at a time while everything keeps answering",
        RESTART_DESCRIPTION,
    )
    restart.add_argument("servable", nargs="?", metavar="SERVABLE", help="default: every servable")
    others = restart.add_mutually_exclusive_group()
    others.add_argument(
        "--gateways",
        dest="kind",
        action="store_const",
        const="gateway",
        help="the gateways instead of the workers (mode standalone)",
    )
    others.add_argument(
        "--broker",
        dest="kind",
        action="store_const",
        const="broker",
        help="the broker instead of the workers (mode standalone)",
    )
    reload = _add_parser(
        commands,
        "reload",
        "go to another version of a servable while everything keeps answering",
        RELOAD_DESCRIPTION,
    )
    reload.add_argument("servable", metavar="SERVABLE")
    reload.add_argument(
        *("--version", "--version-number"),
        dest="version_number",
        type=int,
        default=0,
        metavar="N",
        help="0: the newest (default)",
    )
    reload.add_argument(
        "--canary",
        type=int,
        metavar="PERCENT",
        help="one worker only, which gets this share of the requests for version 0",
    )
    reload.add_argument(
        "--watch",
        action="store_true",
        help="stay, and go to each newer version directory once it has been copied",
    )
    reload.add_argument(
        "--interval-s",
        type=float,
        default=WATCH_INTERVAL_S_DEFAULT,
        metavar="S",
        help=f"how often --watch looks (default: {WATCH_INTERVAL_S_DEFAULT:g})",
    )
    for name, text, description in (
        ("promote", "take every worker to the canary's version", PROMOTE_DESCRIPTION),
        ("rollback", "take the canary back to the stable version", ROLLBACK_DESCRIPTION),
    ):
        _add_parser(commands, name, text, description).add_argument("servable", metavar="SERVABLE")
    cancel = commands.add_parser(
        "cancel",
        help="end the roll that is under way after its present step",
        description="Begins no further replacement. A new worker beside the one that it was to "
        "replace is taken back; one that has taken a place already is waited for.",
    )
    add_run_directory(cancel)
    cancel.set_defaults(run=_cancel, parser=cancel)


def _add_parser(commands: Any, name: str, text: str, description: str) -> argparse.ArgumentParser:
    """A command that begins a roll, with the flags that all of these have."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    parser.set_defaults(
        run=run,
        parser=parser,
        command=name,
        version_number=0,
        canary=None,
        kind="worker",
        watch=False,
    )
    return parser


def _cancel(flags: argparse.Namespace) -> int:
    with RuntimeClient(read_run_directory(vars(flags), os.environ)) as client:
        client.cancel_roll()
    return EXIT_OK


def run(flags: argparse.Namespace) -> int:
    """Begin a roll and follow it. Returns the exit code."""
    if flags.watch and flags.dry_run:
        flags.parser.error("argument --dry-run: not allowed with argument --watch")
    directory = read_run_directory(vars(flags), os.environ)
    request = {
        "kind": flags.kind or "worker",
        "servable": flags.servable,
        "version": flags.version_number,
        "canary_percent": flags.canary,
        "mode": flags.mode,
        "min_ready": flags.min_ready,
        "settle_ms": flags.settle_ms,
        "is_dry_run": flags.dry_run,
    }
    with RuntimeClient(directory) as client:
        if flags.watch:
            return _watch(client, flags, request)
        plan = client.roll(flags.command, request)
        if flags.dry_run:
            print("\n".join(plan_lines(plan)))
            return EXIT_OK
        return _follow(client, sys.stdout)


def _watch(client: RuntimeClient, flags: argparse.Namespace, request: dict[str, Any]) -> int:
    """Roll out each newer version that appears, until somebody ends it."""
    from mindbus.version_watch import VersionWatch, look_at_versions

    slots = [slot for slot in client.status()["slots"] if slot["servable"] == flags.servable]
    if not slots:
        raise RefusedError(f"no worker serves {flags.servable!r}")
    directory = slots[0]["servable_directory"]
    watch = VersionWatch(max(slot["version"] for slot in slots))
    print(f"watching {directory}/{flags.servable}", flush=True)
    while True:
        version = watch.look(look_at_versions(directory, flags.servable))
        if version is not None:
            _roll_out(client, watch, {**request, "version": version})
        time.sleep(flags.interval_s)


def _roll_out(client: RuntimeClient, watch: VersionWatch, request: Mapping[str, Any]) -> None:
    version = request["version"]
    try:
        client.roll("reload", request)
    except RefusedError as error:
        print(f"mindbus: version {version}: {error}", file=sys.stderr, flush=True)
        return  # another roll, perhaps: it is tried again
    print(f"version {version}", flush=True)
    outcome = watch.succeeded if _follow(client, sys.stdout) == EXIT_OK else watch.failed
    outcome(version)


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
