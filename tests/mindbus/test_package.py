"""What `import mindbus` gives, and what it does not load yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mindbus
from mindbus.bus_client import BusClient


def test_the_clients_are_there_by_their_plain_names() -> None:
    assert mindbus.BusClient is BusClient
    assert all(hasattr(mindbus, name) for name in mindbus.__all__)
    with pytest.raises(AttributeError, match="module 'mindbus' has no attribute 'Client'"):
        _ = mindbus.Client


@pytest.mark.process
def test_the_command_line_begins_without_what_only_some_commands_need() -> None:
    code = "import sys, mindbus.cli; print({'numpy', 'zmq', 'grpc', 'asyncio'} & {*sys.modules})"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout == "set()\n"
