"""The broker as a supervised process: `python -m mindbus.broker_process`, settings on stdin.

The same as `python -m broker --stdin`, but bound to the life of its parent.
"""

from __future__ import annotations

import json
import sys

from broker.__main__ import run
from workers.orphan import die_with_parent


def main() -> int:
    """Entry of the process; returns the broker's exit code."""
    document = json.load(sys.stdin)
    die_with_parent(document["parent_pid"])
    return run(document)


if __name__ == "__main__":
    sys.exit(main())
