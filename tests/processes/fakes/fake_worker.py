"""A worker that does what `<servable>/fake.json` says instead of loading a model.

    {"boot": "ready" | "failed" | "exit" | "hang", "error": text, "exit_code": n,
     "drain": "exit" | "hang", "grandchild": path}

The file is read at each start, so a test can change the next generation's behaviour.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from workers.orphan import die_with_parent


def report(content: dict[str, Any]) -> None:
    """Say a line to the supervisor."""
    os.write(int(os.environ["MINDBUS_REPORT_FD"]), json.dumps(content).encode() + b"\n")


def main() -> int:
    """Follow the script; returns the exit code."""
    document = json.load(sys.stdin)
    die_with_parent(document["parent_pid"])
    servable = Path(document["servable_directory"], document["servable_name"])
    script = json.loads((servable / "fake.json").read_text())
    (servable / f"document.{document['generation']}.json").write_text(json.dumps(document))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if "grandchild" in script:
        grandchild = subprocess.Popen(["sleep", "600"])
        Path(script["grandchild"]).write_text(str(grandchild.pid))
    report({"state": "loading"})
    match script["boot"]:
        case "failed":
            report({"state": "failed", "error": script["error"]})
            return 3
        case "exit":
            return int(script["exit_code"])
        case "hang":
            while True:
                signal.pause()
    report(
        {
            "state": "ready",
            "device": {"target": "CPU", "id": document["device_id"]},
            "version": document["version"],
            "methods": ["add"],
            "models": {},
            "python_methods": ["add"],
        }
    )
    signal.sigwait([signal.SIGTERM])
    report({"state": "draining"})
    with (servable / "events").open("a") as events:
        events.write(f"{document['worker_id'].rpartition('/')[2]} draining\n")
    while script.get("drain") == "hang":
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
