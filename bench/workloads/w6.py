"""W6, real models: the digits net and ResNet-50 on MindSpore's CPU, through every door.

What counts is instances per second, as a share of what a bare loop in one process reaches with
its best batch size. Digits runs with one instance per request and with 32, ResNet-50 with one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import bodies, machine
from bench.endpoint import BUS, GRPC, HTTP, Endpoint
from bench.mindbus_server import ROOT, start_servables
from bench.plan import FAILURES, Contender, Plan, all_running, load_endpoint
from bench.processes import Running
from bench.records import values_of
from protocol import ms_service_pb2 as pb
from protocol import native

NAME = "w6"

MODELS = ROOT / "build" / "bench" / "servables"
PREPARE_SECONDS_MAX = 300
LOOP_SECONDS_MAX = 240

CONFIG = '''\
"""A real model, without any Python around it."""

from mindspore_serving.server import register

model = register.declare_model("{name}.mindir", "MindIR", with_batch_dim=True)


@register.register_method(output_names=["scores"])
def predict(image):
    """Probabilities of the classes."""
    return register.add_stage(model, image, outputs_count=1)
'''


@dataclass(frozen=True)
class RealModel:
    """name: of the servable. shape: of one instance. instances: per request.

    seconds_min: of a load; a slow model answers few requests in a second. It runs in the first
    mode only, for a batch of it takes as long as hundreds of hops between processes.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    instances: int
    concurrency: int
    seconds_min: float = 0.0

    @property
    def title(self) -> str:
        """As the report has it."""
        return f"{self.name}, {self.instances} per request"

    def batch(self) -> npt.NDArray[Any]:
        """The instances of a request."""
        values = np.random.default_rng(0).random((self.instances, *self.shape), np.float32)
        return values * np.float32(16 if self.name == "digits" else 1)


DIGITS_ONE = RealModel("digits", (1, 8, 8), 10, 1, 64)
DIGITS_MANY = RealModel("digits", (1, 8, 8), 10, 32, 8)
RESNET = RealModel("resnet50", (3, 224, 224), 1000, 1, 16, seconds_min=5.0)
REAL_MODELS = (DIGITS_ONE, DIGITS_MANY, RESNET)


def servables(plan: Plan, workload: str, names: Sequence[str]) -> Path | None:
    """Make the models that are not there; None, which is missed, if MindSpore is not there."""
    scripts = {"digits": ["examples.prepare_demo"], "resnet50": ["examples.prepare_examples"]}
    for name in names:
        model = MODELS / name / "1" / f"{name}.mindir"
        if model.is_file():
            continue
        made = ROOT / "build" / "bench" / "made" / name
        flags = ["--directory", str(made), *(["resnet50"] if name == "resnet50" else [])]
        command = [sys.executable, "-m", *scripts[name], *flags]
        ended = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PREPARE_SECONDS_MAX,
            check=False,
        )
        found = sorted(made.rglob(f"{name}.mindir"))
        if not found:
            plan.miss(workload, f"{name} on MindSpore", (ended.stderr or ended.stdout)[-400:])
            return None
        model.parent.mkdir(parents=True, exist_ok=True)
        for path in found[0].parent.iterdir():
            shutil.copy(path, model.parent)
        (MODELS / name / "servable_config.py").write_text(CONFIG.format(name=name))
    return MODELS


# ---------------------------------------------------------------- the bare loop


def bare_loop(plan: Plan, real: RealModel, round_number: int) -> None:
    """Measure the best batch size of a loop around the model in a process of its own."""
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench.bare_loop",
            str(MODELS / real.name / "1" / f"{real.name}.mindir"),
            json.dumps(real.shape),
            str(max(plan.seconds, real.seconds_min)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LOOP_SECONDS_MAX,
        check=False,
    )
    if ended.returncode:
        plan.miss(NAME, f"bare loop of {real.name}", ended.stderr[-400:])
        return
    rates: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    best = max(rates, key=lambda size: rates[size])
    values = {"instances_per_s": rates[best], "batch": float(best)}
    plan.add(NAME, "bare loop", real.name, 1, round_number, values)


# ---------------------------------------------------------------- the doors


def start(mode: str, real: RealModel, home: Path) -> Running:
    """Serve a model with MindSpore. Raises StartError."""
    directory = tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp")
    served = Path(directory.name, "servables")
    served.mkdir()
    (served / real.name).symlink_to(home / real.name)
    return start_servables(
        mode,
        served,
        lambda grpc, rest, run: endpoints_of(real, grpc, rest, run),
        directory,
        name=real.name,
        backend="mindspore",
        seconds=180.0,
    )


def endpoints_of(real: RealModel, grpc: str, rest: str, run_directory: Path) -> list[Endpoint]:
    """Every door. That probabilities sum to 1 is what every answer is checked for."""
    batch = real.batch()
    checks = _Checks(real)
    body, json_bytes = bodies.oip_binary({"image": batch}, "scores", has_batch=True)
    headers = (
        ("Content-Type", "application/octet-stream"),
        ("Inference-Header-Content-Length", str(json_bytes)),
    )
    infer = bodies.oip_grpc(real.name, {"image": batch}, has_batch=True)
    instances = [{"image": image} for image in batch]
    producers = f"ipc://{run_directory / 'producers.ipc'}"
    return [
        Endpoint(
            "binary REST",
            HTTP,
            rest,
            f"/v2/models/{real.name}/infer",
            body,
            headers,
            check=checks.tail,
        ),
        Endpoint("gRPC", GRPC, grpc, bodies.INFER_PATH, infer, check=checks.tail),
        Endpoint(
            "MSService gRPC",
            GRPC,
            grpc,
            bodies.PREDICT_PATH,
            bodies.ms_grpc_instances(real.name, "predict", instances),
            check=checks.ms,
        ),
        Endpoint(
            "native bus",
            BUS,
            producers,
            parts=tuple(bodies.bus_parts_of(real.name, "predict", instances)),
            check=checks.bus,
            is_exact=False,
        ),
    ]


class _Checks:
    """What holds for any right answer: each instance's probabilities sum to 1."""

    def __init__(self, real: RealModel) -> None:
        self._instances = real.instances
        self._bytes = real.instances * real.classes * 4

    def tail(self, answer: bytes) -> None:
        """Of the Open Inference Protocol, whose answers end with the tensor."""
        self._sums_to_one(np.frombuffer(answer[-self._bytes :], np.float32))

    def ms(self, answer: bytes) -> None:
        """Of MSService."""
        instances = pb.PredictReply.FromString(answer).instances
        scores = b"".join(instance.items["scores"].data for instance in instances)
        self._sums_to_one(np.frombuffer(scores, np.float32))

    def bus(self, meta: bytes) -> None:
        """Of the bus."""
        instances = native.decode_reply([meta])
        self._sums_to_one(np.concatenate([instance["scores"] for instance in instances]))

    def _sums_to_one(self, scores: npt.NDArray[Any]) -> None:
        assert scores.nbytes == self._bytes, (scores.nbytes, self._bytes)
        sums = scores.reshape(self._instances, -1).sum(axis=1)
        assert np.allclose(sums, 1, atol=1e-3), sums


def run(plan: Plan) -> None:
    """The bare loop and the doors, in turn."""
    home = servables(plan, NAME, ("digits", "resnet50"))
    if home is None:
        return
    for real in REAL_MODELS:
        contenders = [
            Contender(f"MindBus {mode}", partial(start, mode, real, home))
            for mode in (plan.modes[:1] if real.seconds_min else plan.modes)
        ]
        with all_running(plan, NAME, contenders) as started:
            for round_number in range(plan.rounds):
                bare_loop(plan, real, round_number)
                for contender, running in started:
                    assert running is not None
                    for endpoint in running.endpoints:
                        _measure(plan, real, contender.name, endpoint, round_number)


def _measure(
    plan: Plan, real: RealModel, system: str, endpoint: Endpoint, round_number: int
) -> None:
    load_before = machine.load_average()
    try:
        figures = load_endpoint(endpoint, real.concurrency, max(plan.seconds, real.seconds_min))
    except FAILURES as error:
        plan.miss(NAME, system, f"{real.title}, {endpoint.door}: {error}"[:600])
        return
    values = values_of(figures) | {"instances_per_s": figures.rate * real.instances}
    door = f"{real.title}: {endpoint.door}"
    plan.add(NAME, system, door, real.concurrency, round_number, values, load_before)
