"""wrk and h2load: closed loops written in C, and what they print, read. Both count, neither reads.

wrk counts answers that are not 2xx or 3xx as failed. h2load knows HTTP statuses only, and a gRPC
call that fails has 200, too: so the caller checks one answer by value, and here the bytes of all
answers are compared with what as many right ones have.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from bench.bodies import grpc_frame
from bench.endpoint import GRPC, HTTP, Endpoint
from bench.figures import Figures, percentile

#: Program -> package of Debian and its kin.
PROGRAMS = {"wrk": "wrk", "h2load": "nghttp2-client"}

#: gRPC calls in flight are spread over so many connections, when there are enough of them.
GRPC_CONNECTIONS = 4

#: Before each gRPC message: whether it is compressed, and its length.
GRPC_PREFIX_BYTES = 5

#: How much longer than its load a program may take.
SPARE_SECONDS = 30

WRK_SCRIPT = """\
wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
{headers}
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("FIGURES %d %d %d %d %d\\n", summary.requests, summary.duration,
    errors.status + errors.read + errors.write + errors.timeout + errors.connect,
    latency:percentile(50), latency:percentile(99)))
end
"""


class LoadError(Exception):
    """A load generator ended without figures; the text has what it said."""


def missing_packages() -> list[str]:
    """Debian packages of the load generators that are not here."""
    return [package for program, package in PROGRAMS.items() if shutil.which(program) is None]


def versions() -> dict[str, str]:
    """What the programs say of themselves."""
    said = {}
    for program, flag in (("wrk", "-v"), ("h2load", "--version")):
        ended = subprocess.run([program, flag], capture_output=True, text=True, check=False)
        first_line = (ended.stdout or ended.stderr).split("\n")[0]
        said[program] = first_line.removeprefix(program).split("[")[0].strip()
    return said


def load(endpoint: Endpoint, concurrency: int, seconds: float, answer_bytes: int) -> Figures:
    """Keep `concurrency` requests in flight on an HTTP or gRPC door. Raises LoadError.

    answer_bytes: of one right answer.
    """
    with tempfile.TemporaryDirectory(prefix="load-") as directory:
        if endpoint.kind == HTTP:
            return _wrk(endpoint, concurrency, seconds, Path(directory))
        assert endpoint.kind == GRPC, endpoint.kind
        return _h2load(endpoint, concurrency, seconds, answer_bytes, Path(directory))


# ---------------------------------------------------------------- wrk


def _wrk(endpoint: Endpoint, concurrency: int, seconds: float, directory: Path) -> Figures:
    (directory / "body").write_bytes(endpoint.body)
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in endpoint.headers)
    script = directory / "load.lua"
    script.write_text(WRK_SCRIPT.format(body=directory / "body", headers=headers))
    whole_seconds = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{whole_seconds}s", "--timeout", "30s"]
    url = f"http://{endpoint.address}{endpoint.path}"
    return parse_wrk(_run([*command, "-s", str(script), url], seconds))


def parse_wrk(output: str) -> Figures:
    """Figures of the line that WRK_SCRIPT prints. Raises LoadError."""
    found = re.search(r"^FIGURES (\d+) (\d+) (\d+) (\d+) (\d+)$", output, re.MULTILINE)
    if found is None:
        raise LoadError(f"wrk gave no figures: {output[-500:]!r}")
    requests, duration_us, failed, p50_us, p99_us = map(int, found.groups())
    return Figures(requests, duration_us / 1e6, p50_us / 1e3, p99_us / 1e3, failed)


# ---------------------------------------------------------------- h2load


class H2LoadCounts(NamedTuple):
    """What h2load prints. answer_bytes: DATA of all answers. rate_per_s: of its main phase."""

    done: int
    succeeded: int
    seconds: float
    rate_per_s: float
    answer_bytes: int


def connections_of(concurrency: int) -> tuple[int, int]:
    """Connections, and calls in flight on each of them."""
    connections = min(concurrency, GRPC_CONNECTIONS)
    assert concurrency % connections == 0, concurrency
    return connections, concurrency // connections


def _h2load(
    endpoint: Endpoint, concurrency: int, seconds: float, answer_bytes: int, directory: Path
) -> Figures:
    (directory / "body").write_bytes(grpc_frame(endpoint.body))
    log = directory / "log"
    connections, streams = connections_of(concurrency)
    command = [
        "h2load",
        f"-D{max(1, round(seconds))}",
        f"-c{connections}",
        f"-m{streams}",
        "-t1",
        "-w24",  # windows of 16 MiB, so that none of W3's answers waits for the load generator
        "-W26",
        f"-d{directory / 'body'}",
        "-Hcontent-type: application/grpc",
        "-Hte: trailers",
        f"--log-file={log}",
        f"http://{endpoint.address}{endpoint.path}",
    ]
    counts = parse_h2load(_run(command, seconds))
    latencies_ms = parse_h2load_log(log.read_text())
    if not latencies_ms:
        raise LoadError("h2load logged no answer")
    return Figures(
        counts.done,
        counts.done / counts.rate_per_s if counts.rate_per_s else counts.seconds,
        percentile(latencies_ms, 0.5),
        percentile(latencies_ms, 0.99),
        failed_calls(counts, GRPC_PREFIX_BYTES + answer_bytes),
    )


def failed_calls(counts: H2LoadCounts, answer_bytes: int) -> int:
    """How many answers were no right ones, judged by status and by the bytes of all of them.

    answer_bytes: DATA of a right answer. Those that were cut off when the time was up make up to
    2 % of the bytes, which is forgiven.
    """
    short = counts.succeeded * answer_bytes - counts.answer_bytes
    wrong = round(short / answer_bytes) if short > 0.02 * counts.answer_bytes else 0
    return counts.done - counts.succeeded + wrong


def parse_h2load(output: str) -> H2LoadCounts:
    """The totals that h2load prints. Raises LoadError."""
    finished = re.search(r"^finished in ([\d.]+)(us|ms|s|m)?, ([\d.]+) req/s", output, re.M)
    requests = re.search(r"^requests: .* (\d+) done, (\d+) succeeded", output, re.M)
    traffic = re.search(r"^traffic: .*\((\d+)\) data$", output, re.M)
    if finished is None or requests is None or traffic is None:
        raise LoadError(f"h2load gave no figures: {output[-500:]!r}")
    unit = {"us": 1e-6, "ms": 1e-3, "m": 60.0}.get(finished[2] or "s", 1.0)
    return H2LoadCounts(
        int(requests[1]),
        int(requests[2]),
        float(finished[1]) * unit,
        float(finished[3]),
        int(traffic[1]),
    )


def parse_h2load_log(log: str) -> list[float]:
    """Latencies in ms of the answers with status 200, ordered; a line is start, status, µs."""
    lines = (line.split() for line in log.splitlines())
    return sorted(int(us) / 1e3 for _, status, us in lines if status == "200")


def _run(command: list[str], seconds: float) -> str:
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + SPARE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{command[0]} did not end") from error
    if ended.returncode:
        raise LoadError(f"{command[0]} failed: {(ended.stderr or ended.stdout)[-500:]!r}")
    return ended.stdout
