"""`pip install mindbus` without extras: msgpack, numpy and pyzmq are enough for a producer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Every package that only an extra brings cannot be imported in the program that follows.
WITHOUT_EXTRAS = """
import sys
absent = (
    "google", "grpc", "hpack", "httptools", "mindspore", "opentelemetry", "orjson",
    "prometheus_client", "structlog", "uvloop",
)
sys.modules.update(dict.fromkeys(absent))
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS + program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_clients_of_the_bus_need_no_extra() -> None:
    done = run(
        "from mindbus import AsyncBusClient, BusClient\n"
        "with BusClient('ipc:///tmp/no-such-directory/producers.ipc', timeout=0.2) as client:\n"
        "    try:\n"
        "        client.infer('add', 'add_common', {'x1': 1.0})\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__)\n"
    )
    assert (done.stdout, done.stderr) in (("DeadlineExceeded\n", ""), ("Unavailable\n", ""))


def test_a_server_without_its_extras_says_in_one_line_what_to_install() -> None:
    done = run("from mindbus.cli import main\nsys.exit(main(['serve']))\n")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("mindbus: ")
    assert f"is not installed for {sys.executable}: " in line
    assert "`pip install 'mindbus[gateway,mindspore]'`" in line
