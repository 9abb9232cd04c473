"""`make demo`: real handwritten digits through every door of a running server.

Takes the addresses from the server's run directory (MINDBUS_RUN_DIRECTORY or `--run-directory`),
sends one test picture of each digit over gRPC, REST and straight over ZeroMQ, prints picture,
label and score, and then the latency of each door at one request in flight.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from examples.digits_dataset import WHITE, encode_png, load_split
from mindbus.bus_client import BusClient
from mindbus.config import read_run_directory
from mindbus.runtime_client import NotRunningError, RuntimeClient
from mindspore_serving.client import Client

#: Darkest to brightest, two columns a point, so that a picture is about as wide as it is high.
SHADES = "  ░░▒▒▓▓██"

#: Requests per door for the latencies; their median and 99th percentile are printed.
LATENCY_REQUESTS = 200

Answer = tuple[int, float]
Classify = Callable[[bytes], Answer]


def grpc_door(address: str) -> Classify:
    """Classify over gRPC, with the client library of MindSpore Serving."""
    client = Client(address, "digits", "classify")

    def classify(png: bytes) -> Answer:
        (result,) = client.infer([{"image": png}])
        return int(result["label"]), float(result["score"])

    return classify


def rest_door(address: str) -> Classify:
    """Classify over REST, on one connection of the standard library."""
    connection = http.client.HTTPConnection(address, timeout=30)

    def classify(png: bytes) -> Answer:
        image = {"b64": base64.b64encode(png).decode(), "type": "bytes"}
        body = json.dumps({"instances": [{"image": image}]})
        connection.request("POST", "/model/digits:classify", body)
        (result,) = json.loads(connection.getresponse().read())["instances"]
        return result["label"], result["score"]

    return classify


def bus_door(address: str) -> Classify:
    """Classify straight over ZeroMQ."""
    client = BusClient(address)

    def classify(png: bytes) -> Answer:
        (result,) = client.infer("digits", "classify", [{"image": png}])
        return int(result["label"]), float(result["score"])

    return classify


def open_doors(status: dict[str, Any]) -> dict[str, Classify]:
    """One way to classify per door that the server has open."""
    addresses = {door["kind"]: door["address"] for door in status["doors"]}
    doors: dict[str, Classify] = {}
    if "grpc" in addresses:
        doors["gRPC"] = grpc_door(addresses["grpc"])
    if "rest" in addresses:
        doors["REST"] = rest_door(addresses["rest"])
    doors["ZeroMQ"] = bus_door(status["producers"][0])
    return doors


def picture(image: np.ndarray[Any, Any]) -> list[str]:
    """The lines of one picture. image: [8, 8] from 0 to 16."""
    levels = (image / WHITE * (len(SHADES) // 2 - 1)).round().astype(int)
    return ["".join(SHADES[2 * level : 2 * level + 2] for level in row) for row in levels]


def show(doors: dict[str, Classify]) -> int:
    """Print one picture of each digit beside what every door says; returns the wrong answers."""
    _, test = load_split()
    wrong = 0
    for digit in range(10):
        image = test.images[np.flatnonzero(test.labels == digit)[0]]
        answers = {name: classify(encode_png(image)) for name, classify in doors.items()}
        lines = [
            f"{name:<7} label {label}   score {score:.4f}"
            for name, (label, score) in answers.items()
        ]
        wrong += sum(label != digit for label, _ in answers.values())
        for at, row in enumerate(picture(image)):
            said = lines[at - 2] if 2 <= at < 2 + len(lines) else ""
            print(f"  {row}   {said}".rstrip())
        print()
    return wrong


def measure(doors: dict[str, Classify]) -> None:
    """Print the latency of each door, one request in flight."""
    _, test = load_split()
    png = encode_png(test.images[0])
    print(f"latency of one picture, {LATENCY_REQUESTS} requests one after the other")
    for name, classify in doors.items():
        taken_ms = []
        for _ in range(LATENCY_REQUESTS):
            begin = time.perf_counter()
            classify(png)
            taken_ms.append((time.perf_counter() - begin) * 1_000)
        p99_ms = statistics.quantiles(taken_ms, n=100)[98]
        print(f"  {name:<7} median {statistics.median(taken_ms):6.2f} ms   p99 {p99_ms:6.2f} ms")


def main() -> int:
    """Entry of `make demo`. Returns 0 if every door read every digit right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run-directory", type=Path)
    flags = vars(parser.parse_args())
    try:
        with RuntimeClient(read_run_directory(flags, os.environ)) as server:
            status = server.status()
    except NotRunningError as error:
        print(f"demo: {error}; start one with `make serve`", file=sys.stderr)
        return 1
    doors = open_doors(status)
    wrong = show(doors)
    measure(doors)
    if wrong:
        print(f"demo: {wrong} answers were wrong", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
