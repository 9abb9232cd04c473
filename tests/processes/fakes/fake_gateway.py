"""A gateway that really listens at its doors and serves nothing.

What it is told goes, a line each, into the file `events` beside its run directory's sockets.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from workers.orphan import die_with_parent


def main() -> int:
    """Take commands until their end."""
    document = json.load(sys.stdin)
    die_with_parent(document["parent_pid"])
    directory = Path(document["workers_address"].removeprefix("ipc://")).parent
    channel = socket.socket(fileno=int(os.environ["MINDBUS_CONTROL_FD"]))

    def say(content: dict[str, Any]) -> None:
        channel.sendall(json.dumps(content).encode() + b"\n")

    say(
        {
            "event": "started",
            # A port 0 becomes one that only this process would have chosen.
            "producers": [
                address.replace(":0", f":{os.getpid()}")
                for address in document["producers_addresses"]
            ],
            "workers": document["workers_address"],
        }
    )
    doors = []
    with (directory / "events").open("a", buffering=1) as events:
        for line in channel.makefile("r"):
            command = json.loads(line)
            events.write(f"gateway {command['command']}\n")
            reply = {"id": command.get("id"), "ok": True}
            if command["command"].startswith("open_"):
                host, _, port = command["address"].rpartition(":")
                door = socket.socket()
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    door.bind((host, int(port)))
                    door.listen()
                except OSError:
                    reply = {"id": command["id"], "ok": False, "error": f"cannot bind {port}"}
                else:
                    doors.append(door)
                    reply["address"] = f"{host}:{door.getsockname()[1]}"
            say(reply)
        events.write("gateway end\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
