"""Clients of the soak: each keeps asking through one door, and checks each answer by its value."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

from mindbus.bus_client import BusClient
from mindbus.bus_errors import BusError, Unavailable
from protocol import ms_service_pb2 as pb
from tests.processes.doors import PREDICT, GrpcDoor, RestDoor, tensor
from tests.processes.server_process import ServerProcess

#: No answer may take longer; the longest fault is much shorter.
HANG_S = 45.0

METHODS = ("double", "slow", "copy")

#: What a client may be told while something is broken; anything else that is no answer is a bug.
EXCUSED_TEXTS = ("broker", "going down", "worker", "enqueued requests count exceeds")
EXCUSED_CODES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

RIGHT, EXCUSED, TAKEN_BACK = "right", "excused", "taken back"


class History:
    """What all clients saw, by door and outcome. wrong: what must never be, with its story."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.excuses: Counter[str] = Counter()
        self.wrong: list[str] = []
        #: how long the slowest took, when it ended (monotonic), and what it was
        self.slowest: tuple[float, float, str] = (0.0, 0.0, "")
        self._lock = threading.Lock()

    def note(self, door: str, outcome: str, story: str, took_s: float) -> None:
        """One request ended."""
        with self._lock:
            self.outcomes[door, outcome] += 1
            slow = (took_s, time.monotonic(), f"{door}, {outcome} {story[:100]}")
            self.slowest = max(self.slowest, slow)
            if outcome == EXCUSED:
                self.excuses[f"{door}: {story[:100]}"] += 1
            elif outcome not in (RIGHT, TAKEN_BACK) or took_s > HANG_S:
                self.wrong.append(f"{door}: {outcome} after {took_s:.1f} s: {story[:400]}")

    def count(self, outcome: str) -> int:
        """How many ended so, on all doors."""
        with self._lock:
            return sum(n for (_, each), n in self.outcomes.items() if each == outcome)


def judged(text: str) -> tuple[str, str]:
    """The outcome of a failure that was told as a text."""
    return (EXCUSED if any(each in text for each in EXCUSED_TEXTS) else "unexcused"), text


def compared(values: Any, rows: np.ndarray[Any, Any], method: str) -> tuple[str, str]:
    """The outcome of results: RIGHT only if each row has its own value."""
    expected = rows if method == "copy" else 2 * rows
    if len(values) == len(rows) and np.array_equal(np.asarray(values, np.float32), expected):
        return RIGHT, ""
    return "wrong value", f"{values} for {rows.tolist()} of {method}"


class GrpcClient:
    """Through MSService, on a channel that is kept."""

    door = "grpc"

    def __init__(self, server: ServerProcess) -> None:
        self._form = GrpcDoor(server.grpc_address, "probe")
        self._channel = grpc.insecure_channel(
            server.grpc_address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._call = self._channel.unary_unary(
            PREDICT,
            request_serializer=pb.PredictRequest.SerializeToString,
            response_deserializer=pb.PredictReply.FromString,
        )

    def ask(self, method: str, rows: np.ndarray[Any, Any], leaves: bool) -> tuple[str, str]:
        """One request; with `leaves` it is cancelled before its answer is read."""
        message = self._form.request(method, [{"x": tensor(row)} for row in rows])
        future = self._call.future(message, timeout=HANG_S + 10, wait_for_ready=False)
        if leaves:
            future.cancel()
            return TAKEN_BACK, ""
        try:
            reply = future.result()
        except grpc.RpcError as error:
            outcome = EXCUSED if error.code() in EXCUSED_CODES else "unexcused"
            return outcome, f"{error.code()} {error.details()}"
        if reply.error_msg:
            return judged(reply.error_msg[0].error_msg.decode())
        data = [np.frombuffer(each.items["y"].data, np.float32) for each in reply.instances]
        return compared(data, rows, method)

    def close(self) -> None:
        """Close the channels."""
        self._form.close()
        self._channel.close()


class RestClient:
    """Through REST, on a connection that is made again when it broke."""

    door = "rest"

    def __init__(self, server: ServerProcess) -> None:
        self._address = server.rest_address
        self._door = RestDoor(self._address, "probe")

    def ask(self, method: str, rows: np.ndarray[Any, Any], leaves: bool) -> tuple[str, str]:
        """One request; with `leaves` the connection is closed before its answer."""
        if leaves:
            connection = http.client.HTTPConnection(self._address, timeout=HANG_S)
            try:
                body = json.dumps({"instances": [{"x": row.tolist()} for row in rows]})
                connection.request("POST", f"/model/probe:{method}", body)
            except OSError as error:
                return EXCUSED, type(error).__name__
            finally:
                connection.close()
            return TAKEN_BACK, ""
        try:
            answer = self._door.infer(method, [{"x": row.tolist()} for row in rows])
        except (TimeoutError, AssertionError) as error:
            return "unexcused", repr(error)
        except (OSError, http.client.HTTPException) as error:
            self._door.close()
            self._door = RestDoor(self._address, "probe")
            return EXCUSED, type(error).__name__
        if "error_msg" in answer:
            return judged(str(answer["error_msg"]))
        return compared([each["y"] for each in answer["instances"]], rows, method)

    def close(self) -> None:
        """Close the connection."""
        self._door.close()


class DirectClient:
    """Through the bus, on one client that finds its broker again by itself."""

    door = "bus"

    def __init__(self, server: ServerProcess) -> None:
        self._client = BusClient(server.producers_address, timeout=HANG_S + 10)

    def ask(self, method: str, rows: np.ndarray[Any, Any], leaves: bool) -> tuple[str, str]:
        """One request; with `leaves` it is taken back at once."""
        future = self._client.submit("probe", method, [{"x": row} for row in rows])
        if leaves:
            future.cancel()
            return TAKEN_BACK, ""
        try:
            results = future.result(HANG_S + 20)
        except Unavailable as error:
            return EXCUSED, str(error)
        except BusError as error:
            return judged(f"{type(error).__name__} {error}")
        return compared([result["y"] for result in results], rows, method)

    def close(self) -> None:
        """Close the client."""
        self._client.close()


class Crowd:
    """Threads, each with a client of its own, that ask until they are stopped."""

    def __init__(self, server: ServerProcess, seed: int, per_door: int = 2) -> None:
        self.history = History()
        self._server = server
        self._over = threading.Event()
        kinds: tuple[Callable[[ServerProcess], Any], ...] = (GrpcClient, RestClient, DirectClient)
        numbers = itertools.count(seed * 1_000)
        self._threads = [
            threading.Thread(target=self._run, args=(kind, next(numbers)), daemon=True)
            for kind in kinds * per_door
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish. What does not finish is a hang, and noted as wrong."""
        self._over.set()
        until_s = time.monotonic() + HANG_S + 30
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
            if thread.is_alive():
                self.history.wrong.append(f"{thread.name} never came back")

    def _run(self, kind: Callable[[ServerProcess], Any], seed: int) -> None:
        dice = random.Random(seed)
        generator = np.random.default_rng(seed)
        client = kind(self._server)
        while not self._over.wait(dice.uniform(0, 0.04)):
            rows = generator.random((dice.randint(1, 6), 4), np.float32)
            begin_s = time.monotonic()
            try:
                outcome, story = client.ask(dice.choice(METHODS), rows, dice.random() < 0.05)
            except Exception as error:
                outcome, story = "unexpected", repr(error)
            self.history.note(client.door, outcome, story, time.monotonic() - begin_s)
        client.close()
