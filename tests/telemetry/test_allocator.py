"""Freed memory is kept for the next large block."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCK_BYTES = 16 * 1024 * 1024
PAGE_BYTES = 4096
BLOCKS = 4
TURNS = 10

CODE = f"""
import resource
from telemetry.allocator import keep_blocks
print(keep_blocks())
for _ in range({TURNS}):
    blocks = [bytes({BLOCK_BYTES}) + b"x" for _ in range({BLOCKS})]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.process
def test_large_blocks_that_come_again_and_again_cost_their_pages_once() -> None:
    asked = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    is_kept, faults = asked.stdout.split()
    if is_kept == "False":
        pytest.skip("the C library here has no mallopt")
    pages = (BLOCKS + 1) * BLOCK_BYTES // PAGE_BYTES  # one more while it is made
    assert int(faults) < 2 * pages, "each turn has got its pages anew"
