"""A bus with a broker and a worker behind it that compute in place, for Open Inference Protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gateway.bus import Reply
from gateway.model_directory import ModelDirectory
from gateway.oip_server import ModelControl, OipServer
from gateway.oip_settings import WARNING
from gateway.readiness import BrokerReadiness
from protocol import head as heads
from protocol import method_tensors, native, status
from protocol.dialects import DIALECTS
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.values import (
    EchoedInstances,
    Failure,
    InstanceSpec,
    MethodSignature,
    MethodTensors,
    RequestSpec,
    Result,
    StringValue,
)
from telemetry.wall_clock import wall_ms
from tests.gateway.fakes import AwaitedBus

FLOATS = InstanceSpec("float32", (2,))

#: Adds two rows, or fails if the first one begins with a negative number.
ADD = MethodSignature(
    "add", "add", ("x1", "x2"), ("y",), MethodTensors(True, (FLOATS, FLOATS), (FLOATS,), 8)
)
#: Text in, text out.
SHOUT = MethodSignature("add", "shout", ("text",), ("loud",))
HIDDEN = MethodSignature("add", "@call_m_0", ("x0",), ("y0",))
#: The same as `add`, in a servable whose name has a dot and whose model has no batch dimension.
PLAIN = ADD._replace(
    servable="other.one", name="plus", tensors=MethodTensors(False, (FLOATS, FLOATS), (FLOATS,), 1)
)


COUNTS = {
    "success": 3, "success_ns": 900, "queue_ns": 300, "instances": 12, "fail": 1, "fail_ns": 50,
    "quiet_ms": 1_000,
}  # fmt: skip


def stats(not_ready: str | None = None) -> dict[str, Any]:
    """What a broker with three versions of two servables says."""
    services = [("add", 1), ("add", 2), ("other.one", 7)]
    methods = {"add": [ADD, SHOUT, HIDDEN], "other.one": [PLAIN]}
    return {
        "services": [
            {
                "service": f"{name}/{version}",
                "servable": name,
                "version": version,
                "not_ready": not_ready if name == "add" else None,
                "methods": {method.name: COUNTS for method in methods[name] if method != HIDDEN},
            }
            for name, version in services
        ],
        "book": {
            "workers": [
                [f"{name}/{version}", "executions", [["method", method.name]], [], [5], 0]
                for name, version in services
                for method in methods[name]
            ]
        },
        "servables": [
            {"servable": "add", "version": 2, "labels": {"canary": 1, "stable": 2}},
            {"servable": "other.one", "version": 7, "labels": {}},
        ],
        "workers": [
            {
                "service": f"{name}/{version}",
                "is_extra": False,
                "methods": [[m.name, list(m.inputs), list(m.outputs)] for m in methods[name]],
                "tensors": method_tensors.as_document(methods[name]),
            }
            for name, version in services
        ],
    }


class WorkerBus(AwaitedBus):
    """A bus that answers STATS with `stats` and computes requests at once.

    A request whose first number is 99 waits until `finish` is set. refusal: its answer to all.
    """

    def __init__(self) -> None:
        self.stats = stats()
        self.refusal: RequestError | None = None
        self.asked: list[heads.Head] = []
        self.stats_asked = 0
        self.finish = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.waiting = asyncio.Event()

    async def reply(self, head: bytes, frames: Sequence[Buffer]) -> Reply:
        fields = heads.unpack(head)
        if fields.command == heads.STATS:
            self.stats_asked += 1
            if self.refusal is not None:
                return self._failure(self.refusal, heads.DIALECT_NATIVE)
            answer = heads.Head(heads.STATS, body_frames=1)
            return heads.pack(answer), [native.pack_meta(self.stats)]
        self.asked.append(fields)
        if self.refusal is not None:
            return self._failure(self.refusal, heads.DIALECT_NATIVE)
        assert fields.body_frames == len(frames)
        try:
            body = await self._compute(fields, frames)
        except RequestError as error:
            return self._failure(error, fields.dialect)
        reply = heads.Head(heads.REPLY, dialect=fields.dialect, body_frames=len(body))
        return heads.pack(reply), body

    async def _compute(self, fields: heads.Head, frames: Sequence[Buffer]) -> list[Buffer]:
        dialect = DIALECTS[fields.dialect]
        name = fields.service.decode().split("/")[0]
        methods = {(m.servable, m.name): m for m in (ADD, SHOUT, PLAIN)}
        method = methods.get((name, fields.method.decode()))
        if method is None:
            raise RequestError("unknown_method", f"no method {fields.method.decode()}")
        method = method._replace(version=2)
        instances = dialect.decode_request([bytes(frame) for frame in frames], method)
        assert isinstance(instances, EchoedInstances)
        first = np.asarray(instances[0][0]) if method is not SHOUT else None
        if first is not None and method.name != "shout" and first.flat[0] == 99:
            self.waiting.set()
            try:
                await self.finish.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        results = [_result(method, instance) for instance in instances]
        return dialect.encode_reply(RequestSpec(name, "", 0, instances.echo), method, results)

    def _failure(self, error: RequestError, dialect: int) -> tuple[bytes, Sequence[Buffer]]:
        code = status.REASONS[error.reason].grpc
        head = heads.Head(heads.REPLY, dialect=dialect, status=code, body_frames=1)
        return heads.pack(head), native.encode_failure(None, error.reason, error.message)


def _result(method: MethodSignature, instance: Any) -> Result:
    if method.name == "shout":
        (value,) = instance
        text = value.text if isinstance(value, StringValue) else bytes(value.content).decode()
        return (StringValue(text.upper()),)
    x1, x2 = instance
    return Failure(status.MS_FAILED, "negative") if x1.flat[0] < 0 else (x1 + x2,)


def server(
    bus: WorkerBus, control: ModelControl | None = None, settings: FakeSettings | None = None
) -> OipServer:
    """An OipServer around the bus; on the running loop."""
    directory = ModelDirectory(bus)
    settings = settings or FakeSettings(is_allowed=False)
    return OipServer(directory, BrokerReadiness(directory), "1.2.3", wall_ms, settings, control)


class FakeSettings:
    """The settings of a server that was started with WARNING, and without limits on traces."""

    def __init__(self, is_allowed: bool = True, has_tracer: bool = True) -> None:
        self.is_allowed = is_allowed
        self.has_tracer = has_tracer
        self.settings = self.at_start()

    def now(self) -> dict[str, Any]:
        return self.settings

    def at_start(self) -> dict[str, Any]:
        return {"log_level": WARNING, "is_tracing": self.has_tracer, "trace_rate": 1}

    async def change(self, wishes: Mapping[str, Any]) -> None:
        self.settings = {**self.settings, **wishes}


class FakeControl:
    """Remembers what it was asked to load."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, int]] = []

    async def load(self, servable: str, version: int) -> None:
        self.loaded.append((servable, version))
