"""The Open Inference Protocol at the gRPC door, with real clients on real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from gateway.grpc_door import GrpcDoor
from gateway.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, HealthService
from gateway.model_directory import RENEW_S
from gateway.ms_service_handler import MsServiceHandler
from gateway.oip_handler import SERVICE, STREAM_REQUESTS_MAX, OipHandler
from gateway.oip_repository import NOT_ALLOWED
from gateway.reflection import ReflectionService
from protocol import head as heads
from protocol import oip_messages as messages
from protocol.errors import RequestError
from tests.gateway.oip_fakes import FakeControl, WorkerBus, server, stats

WAIT_S = 10


class Client:
    """A channel to the door."""

    def __init__(self, channel: grpc.aio.Channel, bus: WorkerBus, control: FakeControl) -> None:
        self.channel = channel
        self.bus = bus
        self.control = control

    async def call(self, name: str, request: Any, kind: Any, **options: Any) -> Any:
        method = self.channel.unary_unary(
            name if name.startswith("/") else f"/{SERVICE}/{name}",
            lambda message: message.SerializeToString(),
            kind.FromString,
        )
        return await method(request, **options)

    async def infer(self, request: Any, **options: Any) -> Any:
        return await self.call("ModelInfer", request, messages.ModelInferResponse, **options)

    async def refused(self, *call: Any, **options: Any) -> tuple[str, str | None, dict[str, Any]]:
        """Code, text and trailing metadata of a call that fails."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(*call, **options)
        error = raised.value
        return error.code().name, error.details(), dict(error.trailing_metadata() or ())

    def stream(self, requests: AsyncIterator[Any]) -> Any:
        return self.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            lambda message: message.SerializeToString(),
            messages.ModelStreamInferResponse.FromString,
        )(requests)

    async def health(self, service: str) -> int:
        request = messages.HealthCheckRequest(service=service)
        name = "/grpc.health.v1.Health/Check"
        response = await self.call(name, request, messages.HealthCheckResponse)
        state: int = response.status
        return state


Scene = Callable[[Client], Awaitable[None]]


def on_door(scene: Scene, *, may_load: bool = False) -> None:
    async def play() -> None:
        bus, control = WorkerBus(), FakeControl()
        oip = server(bus, control if may_load else None)
        rpcs = OipHandler(bus, oip).rpcs() | HealthService(oip).rpcs() | ReflectionService().rpcs()
        door = await GrpcDoor.open(MsServiceHandler(bus), "127.0.0.1:0", 1, rpcs=rpcs)
        try:
            async with grpc.aio.insecure_channel(door.address) as channel:
                await asyncio.wait_for(scene(Client(channel, bus, control)), WAIT_S)
        finally:
            await door.close(0)

    asyncio.run(play())


def add_request(*rows: tuple[float, float], model: str = "add", **fields: Any) -> Any:
    x1 = np.array(rows, np.float32)
    request = messages.ModelInferRequest(model_name=model, **fields)
    for name in ("x1", "x2"):
        request.inputs.add(name=name, datatype="FP32", shape=x1.shape)
        request.raw_input_contents.append(x1.tobytes())
    return request


def values(response: Any) -> list[float]:
    numbers: list[float] = np.frombuffer(response.raw_output_contents[0], np.float32).tolist()
    return numbers


def test_a_request_travels_unopened_and_its_response_comes_back() -> None:
    async def scene(client: Client) -> None:
        response = await client.infer(add_request((1, 2), (3, 4), id="7"))
        assert values(response) == [2, 4, 6, 8]
        assert (response.id, response.model_name, response.model_version) == ("7", "add", "2")
        (head,) = client.bus.asked
        assert (head.service, head.method) == (b"add/0", b"add")
        assert (head.dialect, head.instance_count) == (heads.DIALECT_OIP, 2)
        assert head.budget_ms == 0

    on_door(scene)


def test_deadline_and_timeout_become_the_budget() -> None:
    async def scene(client: Client) -> None:
        request = add_request((1, 2))
        await client.infer(request, timeout=50)
        request.parameters["timeout"].int64_param = 7_000_000
        await client.infer(request, timeout=50)
        await client.infer(request)
        request.parameters["timeout"].int64_param = 70_000_000
        await client.infer(request, timeout=50)
        budgets = [head.budget_ms for head in client.bus.asked]
        assert 45_000 < budgets[0] <= 51_000
        assert all(6_000 < each <= 7_000 for each in budgets[1:3])
        assert 45_000 < budgets[3] <= 51_000

    on_door(scene)


def test_the_priority_becomes_that_of_the_bus() -> None:
    async def scene(client: Client) -> None:
        request = add_request((1, 2))
        await client.infer(request)
        for level in (1, 2, 3):
            request.parameters["priority"].uint64_param = level
            await client.infer(request)
        flags = [head.flags & heads.FLAGS_PRIORITY for head in client.bus.asked]
        assert flags == [0, heads.FLAG_HIGH, 0, heads.FLAG_LOW]

    on_door(scene)


def test_a_request_waits_for_the_first_worker_of_a_servable_that_is_known() -> None:
    async def scene(client: Client) -> None:
        client.bus.stats = {**stats("no worker"), "workers": []}
        call = asyncio.ensure_future(client.infer(add_request((1, 2))))
        while client.bus.stats_asked < 3:
            await asyncio.sleep(0.01)
        assert not call.done()
        client.bus.stats = stats()
        assert values(await call) == [2, 4]

    on_door(scene)


def test_names_are_looked_up_without_a_question_and_renewed_beside_the_requests() -> None:
    async def scene(client: Client) -> None:
        for _ in range(20):
            await client.infer(add_request((1, 2)))
        asked = client.bus.stats_asked
        assert asked < 10
        await asyncio.sleep(RENEW_S)
        await client.infer(add_request((1, 2)))
        while client.bus.stats_asked == asked:
            await asyncio.sleep(0.01)

    on_door(scene)


def test_who_waits_for_the_first_worker_waits_no_longer_than_the_budget() -> None:
    async def scene(client: Client) -> None:
        client.bus.stats = {**stats("no worker"), "workers": []}
        request = add_request((1, 2))
        request.parameters["timeout"].int64_param = 200_000
        said = await client.refused("ModelInfer", request, messages.ModelInferResponse)
        assert said[:2] == (
            "DEADLINE_EXCEEDED",
            "the budget of 200 ms ran out: no worker",
        )
        assert client.bus.asked == []

    on_door(scene)


def test_a_name_that_was_known_outlives_the_broker() -> None:
    async def scene(client: Client) -> None:
        directory = server(client.bus).directory
        spec, _ = await directory.spec("add", "")
        directory._asked_s -= 60
        client.bus.refusal = RequestError("broker_lost", "gone")
        assert await directory.spec("add", "") == (spec, 0)
        with pytest.raises(RequestError, match="gone"):
            await directory.spec("other.one", "")

    on_door(scene)


def test_versions_and_methods_are_asked_for_by_name() -> None:
    async def scene(client: Client) -> None:
        await client.infer(add_request((1, 2), model_version="1"))
        await client.infer(add_request((1, 2), model="add.add", model_version="canary"))
        services = [(head.service, head.method) for head in client.bus.asked]
        assert services == [(b"add/1", b"add"), (b"add/canary/0", b"add")]

    on_door(scene)


@pytest.mark.parametrize(
    ("request_", "code", "reason", "text"),
    [
        (add_request((1, 2), model="nobody"), "NOT_FOUND", "unknown_service",
         "model 'nobody' is not served"),
        (add_request((1, 2), model="add.x"), "NOT_FOUND", "unknown_method", "no method x"),
        (add_request((-1, 2)), "INTERNAL", "failed", "negative"),
        (add_request((1, 2), (-1, 2)), "INTERNAL", "failed", "instance 1 of 2: negative"),
        (messages.ModelInferRequest(model_name="add"), "INVALID_ARGUMENT", "invalid_inputs",
         "input 'x1' of method add of add is missing"),
    ],
)  # fmt: skip
def test_failures_have_their_code_and_reason(
    request_: Any, code: str, reason: str, text: str
) -> None:
    async def scene(client: Client) -> None:
        said = await client.refused("ModelInfer", request_, messages.ModelInferResponse)
        assert said[:2] == (code, text)
        assert said[2]["mindbus-reason"] == reason
        assert "grpc-retry-pushback-ms" not in said[2]

    on_door(scene)


@pytest.mark.parametrize(
    ("reason", "code", "pushback"),
    [
        ("queue_full", "RESOURCE_EXHAUSTED", "1000"),
        ("body_too_large", "RESOURCE_EXHAUSTED", None),
        ("no_worker", "UNAVAILABLE", "1000"),
        ("draining", "UNAVAILABLE", "1000"),
        ("deadline_exceeded", "DEADLINE_EXCEEDED", None),
        ("poison_suspected", "INTERNAL", None),
    ],
)
def test_refusals_of_the_bus_say_whether_to_come_again(
    reason: str, code: str, pushback: str | None
) -> None:
    async def scene(client: Client) -> None:
        await client.infer(add_request((1, 2)))
        client.bus.refusal = RequestError(reason, "because")
        said = await client.refused("ModelInfer", add_request((1, 2)), messages.ModelInferResponse)
        assert said[:2] == (code, "because")
        assert said[2]["mindbus-reason"] == reason
        assert said[2].get("grpc-retry-pushback-ms") == pushback

    on_door(scene)


def test_bytes_that_are_no_message_are_invalid() -> None:
    async def scene(client: Client) -> None:
        for name in ("ModelInfer", "ModelReady", "ModelMetadata", "RepositoryIndex"):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await client.channel.unary_unary(f"/{SERVICE}/{name}")(b"\x0a\x05a")
            assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    on_door(scene)


def test_who_cancels_a_call_cancels_its_request() -> None:
    async def scene(client: Client) -> None:
        call = asyncio.ensure_future(client.infer(add_request((99, 0))))
        await client.bus.waiting.wait()
        call.cancel()
        await client.bus.cancelled.wait()

    on_door(scene)


# ---------------------------------------------------------------- health and metadata


def test_a_server_is_live_and_ready_and_says_what_it_speaks() -> None:
    async def scene(client: Client) -> None:
        empty = messages.ModelReadyRequest()
        assert (await client.call("ServerLive", empty, messages.ServerLiveResponse)).live
        assert (await client.call("ServerReady", empty, messages.ServerReadyResponse)).ready
        said = await client.call("ServerMetadata", empty, messages.ServerMetadataResponse)
        assert (said.name, said.version) == ("mindbus", "1.2.3")
        assert "binary_tensor_data" in said.extensions

    on_door(scene)


def test_a_model_that_does_not_move_is_not_ready_and_so_is_the_server() -> None:
    async def scene(client: Client) -> None:
        client.bus.stats = stats("no worker of add/1 makes progress")
        ready = messages.ModelReadyResponse
        for name, expected in (("add", False), ("other.one", True), ("nobody", False)):
            asked = messages.ModelReadyRequest(name=name)
            assert (await client.call("ModelReady", asked, ready)).ready == expected
        said = await client.call("ServerReady", messages.ModelReadyRequest(),
                                 messages.ServerReadyResponse)  # fmt: skip
        assert not said.ready
        assert await client.health("") == NOT_SERVING
        assert await client.health(SERVICE) == NOT_SERVING
        assert await client.health("add.shout") == NOT_SERVING
        assert await client.health("other.one") == SERVING

    on_door(scene)


def test_a_server_whose_broker_is_lost_is_not_ready_and_still_live() -> None:
    async def scene(client: Client) -> None:
        client.bus.refusal = RequestError("broker_lost", "gone")
        empty = messages.ModelReadyRequest()
        assert (await client.call("ServerLive", empty, messages.ServerLiveResponse)).live
        assert not (await client.call("ServerReady", empty, messages.ServerReadyResponse)).ready
        assert await client.health("add") == NOT_SERVING

    on_door(scene)


def test_a_server_without_servables_is_not_ready() -> None:
    async def scene(client: Client) -> None:
        client.bus.stats = {"services": [], "servables": [], "workers": []}
        empty = messages.ModelReadyRequest()
        assert not (await client.call("ServerReady", empty, messages.ServerReadyResponse)).ready

    on_door(scene)


def test_metadata_names_versions_and_tensors() -> None:
    async def scene(client: Client) -> None:
        kind = messages.ModelMetadataResponse
        asked = messages.ModelMetadataRequest(name="add")
        said = await client.call("ModelMetadata", asked, kind)
        assert (said.name, list(said.versions), said.platform) == ("add", ["1", "2"], "mindspore")
        assert [(t.name, t.datatype, list(t.shape)) for t in said.inputs] == [
            ("x1", "FP32", [-1, 2]),
            ("x2", "FP32", [-1, 2]),
        ]
        missing = messages.ModelMetadataRequest(name="add", version="9")
        assert (await client.refused("ModelMetadata", missing, kind))[:2] == (
            "NOT_FOUND",
            "servable add has no version 9",
        )

    on_door(scene)


def test_a_configuration_tells_the_largest_batch_apart_from_the_dimensions() -> None:
    async def scene(client: Client) -> None:
        kind = messages.ModelConfigResponse
        said = (
            await client.call("ModelConfig", messages.ModelConfigRequest(name="add"), kind)
        ).config
        assert (said.max_batch_size, list(said.input[0].dims), said.input[0].data_type) == (
            8,
            [2],
            11,
        )
        plain = messages.ModelConfigRequest(name="other.one")
        said = (await client.call("ModelConfig", plain, kind)).config
        assert (said.max_batch_size, list(said.input[0].dims)) == (0, [2])
        shout = messages.ModelConfigRequest(name="add.shout")
        said = (await client.call("ModelConfig", shout, kind)).config
        assert (said.max_batch_size, said.input[0].data_type) == (1, 0)

    on_door(scene)


def test_statistics_of_a_model() -> None:
    async def scene(client: Client) -> None:
        asked = messages.ModelStatisticsRequest(name="add.shout", version="1")
        said = await client.call("ModelStatistics", asked, messages.ModelStatisticsResponse)
        (one,) = said.model_stats
        assert (one.name, one.version, one.inference_count) == ("add.shout", "1", 12)
        assert one.execution_count == 5
        assert 0 <= time.time() * 1_000 - 1_000 - one.last_inference < 60_000
        assert (one.inference_stats.queue.ns, one.inference_stats.fail.count) == (300, 1)

    on_door(scene)


def test_any_number_of_probes_asks_the_broker_once_in_a_while() -> None:
    async def scene(client: Client) -> None:
        empty = messages.ModelReadyRequest(name="add")
        ready = messages.ModelReadyResponse
        await asyncio.gather(*(client.call("ModelReady", empty, ready) for _ in range(50)))
        assert client.bus.stats_asked <= 5

    on_door(scene)


# ---------------------------------------------------------------- the health service


def test_a_name_that_nobody_serves_is_not_found() -> None:
    async def scene(client: Client) -> None:
        assert await client.health("") == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.health("nobody")
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND

    on_door(scene)


def test_a_watch_says_what_changes_and_nothing_else() -> None:
    async def scene(client: Client) -> None:
        watch = client.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            lambda message: message.SerializeToString(),
            messages.HealthCheckResponse.FromString,
        )
        nobody = watch(messages.HealthCheckRequest(service="nobody"))
        assert (await nobody.read()).status == SERVICE_UNKNOWN
        nobody.cancel()
        call = watch(messages.HealthCheckRequest(service="add"))
        assert (await call.read()).status == SERVING
        client.bus.stats = stats("it drains")
        assert (await call.read()).status == NOT_SERVING
        client.bus.stats = stats()
        assert (await call.read()).status == SERVING
        call.cancel()

    on_door(scene)


def test_a_watch_ends_when_its_gateway_goes() -> None:
    async def play() -> None:
        service = HealthService(server(WorkerBus()))
        asked = messages.HealthCheckRequest(service="add").SerializeToString()
        watch = service.watch(asked)
        assert await anext(watch) == messages.HealthCheckResponse(status=1).SerializeToString()
        service.leave()
        with pytest.raises(RequestError) as raised:
            await anext(watch)
        assert raised.value.reason == "draining"

    asyncio.run(play())


# ---------------------------------------------------------------- streams


def test_a_stream_answers_each_request_in_its_order() -> None:
    async def scene(client: Client) -> None:
        async def requests() -> AsyncIterator[Any]:
            yield add_request((99, 0), id="slow")
            yield add_request((1, 0), id="fast")
            yield add_request((-1, 0), id="bad")
            yield add_request((1, 0), id="gone", model="nobody")
            await client.bus.waiting.wait()
            client.bus.finish.set()

        said = [response async for response in client.stream(requests())]
        assert [each.infer_response.id for each in said] == ["slow", "fast", "bad", "gone"]
        assert [each.error_message for each in said] == [
            "", "", "negative", "model 'nobody' is not served",
        ]  # fmt: skip
        assert values(said[0].infer_response) == [198, 0]
        assert said[2].infer_response.parameters["mindbus-reason"].string_param == "failed"

    on_door(scene)


def test_a_stream_that_is_cancelled_cancels_its_requests() -> None:
    async def scene(client: Client) -> None:
        async def requests() -> AsyncIterator[Any]:
            yield add_request((99, 0))
            await asyncio.Event().wait()

        call = client.stream(requests())
        await client.bus.waiting.wait()
        call.cancel()
        await client.bus.cancelled.wait()

    on_door(scene)


def test_a_stream_takes_more_requests_than_are_under_way_at_once() -> None:
    async def scene(client: Client) -> None:
        count = 3 * STREAM_REQUESTS_MAX

        async def requests() -> AsyncIterator[Any]:
            for number in range(count):
                yield add_request((number + 100, 0), id=str(number))

        said = [response.infer_response.id async for response in client.stream(requests())]
        assert said == [str(number) for number in range(count)]

    on_door(scene)


# ---------------------------------------------------------------- repository


def test_the_index_has_every_version_and_its_state() -> None:
    async def scene(client: Client) -> None:
        client.bus.stats = stats("it drains")
        kind = messages.RepositoryIndexResponse
        said = await client.call("RepositoryIndex", messages.RepositoryIndexRequest(), kind)
        assert [(m.name, m.version, m.state, m.reason) for m in said.models] == [
            ("add", "1", "UNAVAILABLE", "it drains"),
            ("add", "2", "UNAVAILABLE", "it drains"),
            ("other.one", "7", "READY", ""),
        ]
        ready = messages.RepositoryIndexRequest(ready=True)
        assert len((await client.call("RepositoryIndex", ready, kind)).models) == 1
        other = messages.RepositoryIndexRequest(repository_name="x")
        assert (await client.refused("RepositoryIndex", other, kind))[0] == "NOT_FOUND"

    on_door(scene)


def test_a_load_is_refused_unless_the_server_allows_it() -> None:
    async def scene(client: Client) -> None:
        load = messages.RepositoryModelLoadRequest(model_name="add")
        said = await client.refused(
            "RepositoryModelLoad", load, messages.RepositoryModelLoadResponse
        )
        assert said[:2] == (
            "PERMISSION_DENIED",
            NOT_ALLOWED,
        )
        assert said[2]["mindbus-reason"] == "not_allowed"

    on_door(scene)


def test_a_load_takes_a_servable_to_a_version() -> None:
    async def scene(client: Client) -> None:
        kind = messages.RepositoryModelLoadResponse
        load = messages.RepositoryModelLoadRequest(model_name="add")
        await client.call("RepositoryModelLoad", load, kind)
        load.parameters["version"].int64_param = 3
        await client.call("RepositoryModelLoad", load, kind)
        assert client.control.loaded == [("add", 0), ("add", 3)]
        load.parameters["version"].string_param = "x"
        assert (await client.refused("RepositoryModelLoad", load, kind))[0] == "INVALID_ARGUMENT"
        load.parameters["config"].string_param = "{}"
        del load.parameters["version"]
        assert (await client.refused("RepositoryModelLoad", load, kind))[:2] == (
            "UNIMPLEMENTED",
            "parameter 'config' of a load is not supported, only 'version'",
        )
        other = messages.RepositoryModelLoadRequest(model_name="nobody")
        assert (await client.refused("RepositoryModelLoad", other, kind))[0] == "NOT_FOUND"
        unload = messages.RepositoryModelUnloadRequest(model_name="add")
        said = await client.refused(
            "RepositoryModelUnload", unload, messages.RepositoryModelUnloadResponse
        )
        assert said[0] == "UNIMPLEMENTED"

    on_door(scene, may_load=True)


# ---------------------------------------------------------------- reflection


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
def test_reflection_tells_services_and_files(package: str) -> None:
    async def scene(client: Client) -> None:
        kind = messages.ReflectionRequest
        asked = [
            kind(list_services=""),
            kind(file_containing_symbol="inference.ModelInferRequest"),
            kind(file_containing_symbol=f"{package}.ServerReflection"),
            kind(file_by_filename="protocol/ms_service.proto"),
            kind(file_containing_symbol="nobody"),
            kind(all_extension_numbers_of_type="x"),
        ]

        async def requests() -> AsyncIterator[Any]:
            for each in asked:
                yield each

        call = client.channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            lambda message: message.SerializeToString(),
            messages.ReflectionResponse.FromString,
        )
        said = [response async for response in call(requests())]
        names = [each.name for each in said[0].list_services_response.service]
        assert names == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "inference.GRPCInferenceService",
            "mindspore.serving.proto.MSService",
        ]
        packages = []
        for response in said[1:4]:
            (serialized,) = response.file_descriptor_response.file_descriptor_proto
            file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
            packages.append(file.package)
        assert packages == ["inference", package, "mindspore.serving.proto"]
        assert [each.error_response.error_code for each in said[4:]] == [5, 5]

    on_door(scene)
