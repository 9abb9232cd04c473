"""`make demo`: real handwritten digits through every door of a running server.

Takes the addresses from the server's run directory (MINDBUS_RUN_DIRECTORY or `--run-directory`),
sends one test picture of each digit over gRPC, both forms of REST and straight over ZeroMQ, prints
picture, label and score, and then the latency of each door at one request in flight.
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
from mindbus.bus_errors import BusError
from mindbus.config import ConfigError, read_run_directory
from mindbus.runtime_client import NotRunningError, RuntimeClient
from mindspore_serving.client import Client

#: Darkest to brightest, two columns a point, so that a picture is about as wide as it is high.
SHADES = "  ░░▒▒▓▓██"

#: Requests per door for the latencies; their median and 99th percentile are printed.
LATENCY_REQUESTS = 200

#: The servable that is asked, how long the demo waits for its worker, and how often it looks.
SERVABLE = "digits"
READY_TIMEOUT_S = 120.0
READY_POLL_S = 0.2

Answer = tuple[int, float]
Classify = Callable[[bytes], Answer]


class AnswerError(Exception):
    """A door did not answer with a label; the text is what it said."""


class NotReadyError(Exception):
    """The server cannot serve the demo, or not yet; the text says which."""


def grpc_door(address: str) -> Classify:
    """Classify over gRPC, with the client library of MindSpore Serving."""
    client = Client(address, "digits", "classify")

    def classify(png: bytes) -> Answer:
        # One instance that failed is {"error": …} in the list, a whole request is it without one.
        answer = client.infer([{"image": png}])
        result = answer if isinstance(answer, dict) else answer[0]
        if "error" in result:
            raise AnswerError(f"gRPC: {result['error']}")
        return int(result["label"]), float(result["score"])

    return classify


def rest_door(address: str) -> Classify:
    """Classify over REST, on one connection of the standard library."""
    connection = http.client.HTTPConnection(address, timeout=30)

    def classify(png: bytes) -> Answer:
        image = {"b64": base64.b64encode(png).decode(), "type": "bytes"}
        body = json.dumps({"instances": [{"image": image}]})
        connection.request("POST", "/model/digits:classify", body)
        answer = json.loads(connection.getresponse().read())
        if "instances" not in answer:
            raise AnswerError(f"REST: {answer}")
        (result,) = answer["instances"]
        return result["label"], result["score"]

    return classify


def inference_door(address: str) -> Classify:
    """Classify by Open Inference Protocol v2 over REST, as clients of Triton and KServe do."""
    connection = http.client.HTTPConnection(address, timeout=30)

    def classify(png: bytes) -> Answer:
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
        tensor |= {"data": [base64.b64encode(png).decode()]}
        tensor |= {"parameters": {"content_type": "base64"}}
        body = json.dumps({"inputs": [tensor]})
        connection.request("POST", "/v2/models/digits.classify/infer", body)
        answer = json.loads(connection.getresponse().read())
        if "outputs" not in answer:
            raise AnswerError(f"REST v2: {answer['error']}")
        values = {output["name"]: output["data"][0] for output in answer["outputs"]}
        return values["label"], values["score"]

    return classify


def bus_door(address: str) -> Classify:
    """Classify straight over ZeroMQ."""
    client = BusClient(address)

    def classify(png: bytes) -> Answer:
        try:
            (result,) = client.infer("digits", "classify", [{"image": png}])
        except BusError as error:
            raise AnswerError(f"ZeroMQ: {error}") from None
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
        doors["REST v2"] = inference_door(addresses["rest"])
    doors["ZeroMQ"] = bus_door(status["producers"][0])
    return doors


def wait_ready(
    read_status: Callable[[], dict[str, Any]], timeout_s: float = READY_TIMEOUT_S
) -> dict[str, Any]:
    """Wait until a worker serves `digits`; returns the server's status then.

    Raises: NotReadyError, at once if no worker will ever do so, else at the end of the timeout.
    """
    deadline = time.monotonic() + timeout_s
    is_said = False
    while True:
        status = read_status()
        workers = [slot for slot in status["slots"] if slot["kind"] == "worker"]
        states = [slot["state"] for slot in workers if slot["servable"] == SERVABLE]
        # The doors are opened before there is any worker: so long, nothing is known.
        if workers and not states:
            raise NotReadyError(f"the server has no servable {SERVABLE}")
        if states and set(states) == {"FAILED"}:
            raise NotReadyError(f"every worker of {SERVABLE} has failed; see `mindbus status`")
        if "READY" in states:
            return status
        if time.monotonic() >= deadline:
            raise NotReadyError(f"no worker of {SERVABLE} was ready within {timeout_s:.0f} s")
        if not is_said:
            print("waiting for the workers …", flush=True)
            is_said = True
        time.sleep(READY_POLL_S)


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
            status = wait_ready(server.status)
        doors = open_doors(status)
        wrong = show(doors)
        measure(doors)
    except NotRunningError as error:
        print(f"demo: {error}; start one with `make serve`", file=sys.stderr)
        return 1
    except (AnswerError, NotReadyError, ConfigError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if wrong:
        print(f"demo: {wrong} answers were wrong", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
