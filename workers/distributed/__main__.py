"""`python -m workers.distributed`: one agent, or the scheduler of MindSpore's ranks, as a process.

Its document comes on stdin, with the key of encrypted models, if there is one; its reports leave as
JSON lines on MINDBUS_REPORT_FD. It holds no state and is ended by SIGKILL.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from workers.orphan import begin_as_child
from workers.supervisor.child import REPORT_FD
from workers.supervisor.json_lines import encode_line


def _report(said: dict[str, Any]) -> None:
    os.write(int(os.environ[REPORT_FD]), encode_line(said))


def main() -> int:
    """Run what stdin describes. Returns the exit code."""
    document = begin_as_child()
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
