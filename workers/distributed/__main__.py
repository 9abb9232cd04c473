"""`python -m workers.distributed`: one agent, or the scheduler of MindSpore's ranks, as a process.

Its document comes on stdin, with the key of encrypted models, if there is one; its reports leave as
JSON lines on MINDBUS_REPORT_FD. It holds no state and is ended by SIGKILL.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from workers.orphan import die_with_parent, take_group_along
from workers.prctl import keep_memory_private
from workers.supervisor.child import REPORT_FD
from workers.supervisor.json_lines import encode_line


def _report(said: dict[str, Any]) -> None:
    os.write(int(os.environ[REPORT_FD]), encode_line(said))


def main() -> int:
    """Run what stdin describes. Returns the exit code."""
    document = json.load(sys.stdin)
    if document.get("dec_key") is not None:
        keep_memory_private()
    die_with_parent(int(document["parent_pid"]))
    take_group_along()
    os.set_inheritable(int(os.environ[REPORT_FD]), False)
    # Only now: these imports take long, and nobody shall outlive his parent meanwhile.
    from telemetry.log import configure
    from workers.distributed.agent import run_agent, run_scheduler

    configure("agent")
    if document["role"] == "scheduler":
        return run_scheduler()
    return run_agent(document, _report, os._exit)


if __name__ == "__main__":
    sys.exit(main())
