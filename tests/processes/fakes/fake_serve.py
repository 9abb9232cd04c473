"""A server with fake children as a program of its own, for tests that kill the supervisor.

    python -m tests.processes.fakes.fake_serve RUN_DIRECTORY SERVABLE_DIRECTORY

Prints `up <pids>` once every slot is READY; the first signal drains, the second kills.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mindbus.server import Commands, ServableLaunch, Server, ServerSettings, StartError
from workers.supervisor.child import python_command

COMMANDS = Commands(
    worker=python_command("-m", "tests.processes.fakes.fake_worker"),
    gateway=python_command("-m", "tests.processes.fakes.fake_gateway"),
)


def main() -> int:
    """Serve every servable of the directory until a signal."""
    run_directory, servables = map(Path, sys.argv[1:])
    server = Server(ServerSettings(run_directory=run_directory, commands=COMMANDS))
    server.install_signal_handlers()
    print("begun", flush=True)
    try:
        server.open_grpc("127.0.0.1:0")
        server.start_servables(
            [ServableLaunch(str(servables), path.name) for path in sorted(servables.iterdir())]
        )
    except StartError as error:
        server.stop()
        print(error, file=sys.stderr)
        return 1
    pids = [str(slot["pid"]) for slot in server.status()["slots"]]
    print("up", *pids, flush=True)
    return server.wait()


if __name__ == "__main__":
    sys.exit(main())
