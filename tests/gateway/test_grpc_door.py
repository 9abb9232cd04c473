"""The gRPC door, with real clients on real sockets."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio
import pytest
import uvloop

from gateway.doors import DoorError
from gateway.grpc_connection import UNTAKEN_BYTES_MAX
from gateway.grpc_door import PREDICT, GrpcDoor
from gateway.ms_service_handler import MsServiceHandler
from gateway.tls import TlsSettings
from protocol import head as heads
from protocol import limits
from protocol.errors import RequestError
from tests.gateway.fakes import FakeBus, KeyMaterial, busy_port, reply_head
from tests.gateway.http2_client import END_STREAM, RST_STREAM, Http2Client
from tests.gateway.test_ms_service_handler import predict_request

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Echo:
    """Answers with the body's own bytes; `slow` never ends, `bad` is malformed, `big` is big."""

    def __init__(self) -> None:
        self.budgets_ms: list[int | None] = []
        self.cancelled = asyncio.Event()
        self.arrived = asyncio.Event()
        self.finish = asyncio.Event()

    forwarder = None

    async def predict(self, body: bytes, budget_ms: int | None) -> bytes:
        self.budgets_ms.append(budget_ms)
        self.arrived.set()
        if body == b"slow":
            try:
                await self.finish.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if body == b"bad":
            raise RequestError("malformed", "body is not a PredictRequest")
        return bytes(int(body[3:])) if body.startswith(b"big") else body


Call = Callable[..., Awaitable[bytes]]
Scene = Callable[[Echo, GrpcDoor, Call], Awaitable[None]]


def on_door(scene: Scene, address: str = "127.0.0.1:0", run=asyncio.run) -> None:  # type: ignore[no-untyped-def]
    async def play() -> None:
        echo = Echo()
        door = await GrpcDoor.open(echo, address, 1)
        try:
            async with grpc.aio.insecure_channel(door.address, options=UNLIMITED) as channel:
                await scene(echo, door, channel.unary_unary(PREDICT))
        finally:
            await door.close(0)

    run(play())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_bytes_go_in_and_come_out_unchanged(run) -> None:  # type: ignore[no-untyped-def]
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        assert await call(b"\x00\xff") == b"\x00\xff"
        assert await call(b"") == b""

    on_door(scene, run=run)


def test_calls_that_come_faster_than_they_are_looked_at_are_not_refused_by_the_library() -> None:
    calls = 4_000

    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        client = await Http2Client.connect(door.address)
        for _ in range(calls):
            client.call(b"")
        answered = 0
        while answered < calls:
            frame = await client.receive()
            assert frame.kind != RST_STREAM
            assert not frame.flags & END_STREAM or client.data_bytes[frame.stream] == 5
            answered += frame.flags & END_STREAM
        client.close()

    on_door(scene, run=uvloop.run)


def test_port_zero_becomes_a_real_port() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        host, _, port = door.address.rpartition(":")
        assert host == "127.0.0.1"
        assert 1 <= int(port) <= 65535

    on_door(scene)


@pytest.mark.parametrize(("size", "passes"), [(-1, True), (0, True), (1, False)])
def test_a_message_over_the_limit_is_refused_with_the_text_that_clients_know(
    size: int, passes: bool
) -> None:
    size += limits.MIB

    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        if passes:
            assert len(await call(bytes(size))) == size
            return
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(bytes(size))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"Received message larger than max ({size} vs. {limits.MIB})" in str(
            refused.value.details()
        )
        assert ("mindbus-reason", "body_too_large") in list(refused.value.trailing_metadata() or ())
        assert echo.budgets_ms == []

    on_door(scene)


@pytest.mark.parametrize(("size", "passes"), [(0, True), (1, False)])
def test_the_limit_holds_for_replies_as_well(size: int, passes: bool) -> None:
    size += limits.MIB

    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        if passes:
            assert len(await call(b"big%d" % size)) == size
            return
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"big%d" % size)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"Sent message larger than max ({size} vs. {limits.MIB})" in str(
            refused.value.details()
        )

    on_door(scene)


def test_malformed_bytes_are_an_invalid_argument_with_a_reason_for_machines() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"bad")
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details() == "body is not a PredictRequest"
        assert ("mindbus-reason", "malformed") in list(refused.value.trailing_metadata() or ())

    on_door(scene)


def test_the_clients_deadline_becomes_the_budget() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        await call(b"a")
        await call(b"a", timeout=60)
        without, within = echo.budgets_ms
        assert without is None
        # gRPC rounds a deadline up to three digits on the wire.
        assert within is not None
        assert 50_000 < within <= 61_000

    on_door(scene)


def test_a_deadline_that_passes_cancels_the_handler() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await call(b"slow", timeout=0.05)
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(echo.cancelled.wait(), 10)

    on_door(scene)


def test_a_client_that_cancels_cancels_the_request_in_the_bus() -> None:
    async def play() -> None:
        bus = FakeBus()
        door = await GrpcDoor.open(MsServiceHandler(bus), "127.0.0.1:0", 1)
        async with grpc.aio.insecure_channel(door.address) as channel:
            call = channel.unary_unary(PREDICT)(predict_request())
            await asyncio.wait_for(bus.arrived.wait(), 10)
            call.cancel()
            await asyncio.wait_for(bus.cancelled.wait(), 10)
        await door.close(0)

    asyncio.run(play())


@pytest.mark.parametrize(
    "name",
    ["/mindspore.serving.proto.MSService/Other", "/mindspore.serving.proto.MSMaster/Exit", "/a/b"],
)
def test_other_rpcs_are_unimplemented(name: str) -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        async with grpc.aio.insecure_channel(door.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(name)(b"")
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED

    on_door(scene)


def test_a_handler_answers_through_the_door() -> None:
    async def play() -> None:
        bus = FakeBus((reply_head(heads.DIALECT_MS_SERVICE), [b"re", b"ply"]))
        door = await GrpcDoor.open(MsServiceHandler(bus), "127.0.0.1:0", 1)
        async with grpc.aio.insecure_channel(door.address) as channel:
            assert await channel.unary_unary(PREDICT)(predict_request(3)) == b"reply"
        await door.close(0)
        assert bus.asked[0][0].instance_count == 3

    asyncio.run(play())


def test_a_unix_socket_serves_as_well() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        assert await call(b"a") == b"a"

    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        on_door(scene, f"unix:{directory}/door.sock")


def open_fails(address: str, tls: TlsSettings | None = None) -> str:
    async def play() -> str:
        with pytest.raises(DoorError) as refused:
            await GrpcDoor.open(Echo(), address, 1, tls)
        return str(refused.value)

    return asyncio.run(play())


CREATE_FAILED = (
    "Serving Error: Serving gRPC server start failed, create server failed, address {address}"
)


def test_a_port_in_use_is_named() -> None:
    with busy_port() as port:
        address = f"127.0.0.1:{port}"
        assert open_fails(address) == CREATE_FAILED.format(address=address)


@pytest.mark.parametrize("address", ["999.0.0.1:80", "unix:/nonexistent/directory/door.sock"])
def test_an_address_that_cannot_be_bound_is_named(address: str) -> None:
    assert open_fails(address) == CREATE_FAILED.format(address=address)


def test_an_illegal_address_is_refused_in_its_own_words() -> None:
    assert open_fails("localhost") == (
        "Serving Error: The format of the Serving gRPC address 'localhost' is illegal"
    )


def test_two_doors_never_share_a_port() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        with pytest.raises(DoorError) as refused:
            await GrpcDoor.open(echo, door.address, 1)
        assert str(refused.value) == CREATE_FAILED.format(address=door.address)

    on_door(scene)


def test_closing_lets_running_calls_finish_and_takes_no_more() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        running = asyncio.ensure_future(call(b"slow"))
        await asyncio.wait_for(echo.arrived.wait(), 10)
        closing = asyncio.create_task(door.close(10))
        await asyncio.sleep(0)
        echo.finish.set()
        assert await running == b"slow"
        await closing
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await call(b"a")
        assert gone.value.code() == grpc.StatusCode.UNAVAILABLE

    on_door(scene)


# ---------------------------------------------------------------- leaving


@pytest.mark.shows("F25")
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_two_doors_accept_from_one_queue_and_either_may_close(run) -> None:  # type: ignore[no-untyped-def]
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        other_echo = Echo()
        other = await GrpcDoor.open(other_echo, door.address, 1, listener=door.listener.dup())
        assert other.address == door.address
        await door.close(0)
        for _ in range(3):
            async with grpc.aio.insecure_channel(door.address) as channel:
                assert await channel.unary_unary(PREDICT)(b"x") == b"x"
        assert (len(echo.budgets_ms), len(other_echo.budgets_ms)) == (0, 3)
        await other.close(0)

    on_door(scene, run=run)


@pytest.mark.shows("F25")
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_client_that_never_stops_calling_and_never_retries_loses_no_call(run) -> None:  # type: ignore[no-untyped-def]
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        doors = [door]
        answered = 0
        is_over = asyncio.Event()

        async def ask() -> None:
            nonlocal answered
            while not is_over.is_set():
                assert await call(b"x") == b"x"
                answered += 1

        clients = [asyncio.ensure_future(ask()) for _ in range(8)]
        for _ in range(10):
            before = answered
            while answered < before + 50:
                await asyncio.sleep(0.001)
            doors.append(
                await GrpcDoor.open(Echo(), door.address, 1, listener=doors[-1].listener.dup())
            )
            await doors[-2].leave(5)
            await doors[-2].close(5)
        is_over.set()
        await asyncio.gather(*clients)
        await doors[-1].close(0)

    on_door(scene, run=run)


def test_who_leaves_finishes_what_runs_and_ends_its_idle_connections() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        idle = await Http2Client.connect(door.address)
        assert (await idle.receive_end(idle.call(b"x"))) == 6
        echo.arrived.clear()
        running = asyncio.ensure_future(call(b"slow"))
        await asyncio.wait_for(echo.arrived.wait(), 10)
        leaving = asyncio.create_task(door.leave(20))
        assert await idle.wait_closed()
        assert not leaving.done()
        echo.finish.set()
        assert await running == b"slow"
        await asyncio.wait_for(leaving, 10)

    on_door(scene)


def test_a_call_that_does_not_end_within_the_grace_is_told_so() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        running = asyncio.ensure_future(call(b"slow"))
        await asyncio.wait_for(echo.arrived.wait(), 10)
        await door.close(0.05)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await running
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        assert ended.value.details() == "the server is going down"
        assert echo.cancelled.is_set()

    on_door(scene)


# ---------------------------------------------------------------- raw clients


def test_the_server_ends_a_call_at_its_deadline_also_for_a_client_that_does_not() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        client = await Http2Client.connect(door.address)
        client.call(b"slow", ("grpc-timeout", "50m"))
        frame = await asyncio.wait_for(client.receive(), 10)
        assert frame.flags & END_STREAM
        assert b"\x0bgrpc-status\x014" in frame.payload
        await asyncio.wait_for(echo.cancelled.wait(), 10)
        # and one whose message never comes
        client.open_call(("grpc-timeout", "50m"))
        frame = await asyncio.wait_for(client.receive(), 10)
        assert b"\x0bgrpc-status\x014" in frame.payload
        assert len(echo.budgets_ms) == 1
        client.close()

    on_door(scene)


def test_who_speaks_something_else_is_told_and_others_are_served() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        host, _, port = door.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"this is not HTTP/2" in await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert await call(b"x") == b"x"

    on_door(scene)


def test_a_client_that_goes_away_cancels_what_it_asked_for() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        client = await Http2Client.connect(door.address)
        client.call(b"slow")
        await asyncio.wait_for(echo.arrived.wait(), 10)
        client.close()
        await asyncio.wait_for(echo.cancelled.wait(), 10)

    on_door(scene)


def test_a_bug_of_a_handler_is_an_internal_error_and_the_connection_goes_on() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(b"bigx")  # which is no number
        assert failed.value.code() == grpc.StatusCode.INTERNAL
        assert await call(b"x") == b"x"

    on_door(scene)


def test_compressed_requests_are_unpacked() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            assert await call(b"x" * 10_000, compression=compression) == b"x" * 10_000

    on_door(scene)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_large_messages_go_both_ways(run) -> None:  # type: ignore[no-untyped-def]
    body = bytes(range(256)) * (200 * 1024)  # 50 MiB

    async def play() -> None:
        door = await GrpcDoor.open(Echo(), "127.0.0.1:0", 64)
        try:
            async with grpc.aio.insecure_channel(door.address, options=UNLIMITED) as channel:
                call = channel.unary_unary(PREDICT)
                replies = await asyncio.gather(*(call(body) for _ in range(3)))
                assert all(reply == body for reply in replies)
        finally:
            await door.close(0)

    run(play())


def test_a_client_that_reads_nothing_gets_no_endless_answers() -> None:
    """Small answers, for which no window has to be opened: of an RPC that does not exist."""

    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        client = await Http2Client.connect(door.address, receive_buffer=4_096)
        for _ in range(200):
            for _ in range(200):
                client.open_call(path="/a/" + "x" * 200)
            with suppress(TimeoutError):
                await asyncio.wait_for(client.drain(), 0.02)
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert limits.MIB < door.unread_bytes() < 3 * UNTAKEN_BYTES_MAX
        assert await call(b"x") == b"x"
        client.close()
        while door.unread_bytes():
            await asyncio.sleep(0.01)

    on_door(scene, run=uvloop.run)


@pytest.mark.pure
def test_a_connection_that_has_closed_leaves_nothing_behind() -> None:
    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        kept = []
        for _ in range(10):
            client = await Http2Client.connect(door.address)
            await client.receive_end(client.call(b"x"))
            kept += [weakref.ref(each) for each in door._connections]
            client.close()
        while door._connections:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        gc.collect()
        assert [each() for each in kept if each() is not None] == []

    on_door(scene)


def test_a_file_at_the_place_of_a_unix_socket_is_not_removed(tmp_path: Path) -> None:
    file, socket_file = tmp_path / "file", tmp_path / "door.sock"
    file.write_text("precious")
    failed = CREATE_FAILED.format(address=f"unix:{file}")
    assert open_fails(f"unix:{file}") == failed
    assert file.read_text() == "precious"

    async def scene(echo: Echo, door: GrpcDoor, call: Call) -> None:
        assert await call(b"x") == b"x"

    for _ in range(2):  # the second one finds what the first one left
        on_door(scene, f"unix:{socket_file}")
        assert socket_file.exists()


# ---------------------------------------------------------------- TLS


def call_with_tls(
    tls: TlsSettings, credentials: grpc.ChannelCredentials | None
) -> bytes | grpc.StatusCode:
    """The reply, or the status of a call that failed."""

    async def play() -> bytes | grpc.StatusCode:
        door = await GrpcDoor.open(Echo(), "localhost:0", 1, tls)
        if credentials is None:
            channel = grpc.aio.insecure_channel(door.address)
        else:
            channel = grpc.aio.secure_channel(door.address, credentials)
        try:
            async with channel:
                reply: bytes = await channel.unary_unary(PREDICT)(b"a", timeout=10)
                return reply
        except grpc.aio.AioRpcError as error:
            return error.code()
        finally:
            await door.close(0)

    return asyncio.run(play())


def credentials_of(
    ca: str, key: str | None = None, certificate: str | None = None
) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        Path(ca).read_bytes(),
        Path(key).read_bytes() if key else None,
        Path(certificate).read_bytes() if certificate else None,
    )


def test_tls_serves_clients_that_trust_the_certificate(key_material: KeyMaterial) -> None:
    keys = key_material
    assert call_with_tls(keys.tls(), credentials_of(keys.ca)) == b"a"
    unavailable = grpc.StatusCode.UNAVAILABLE
    assert call_with_tls(keys.tls(), credentials_of(keys.other_ca)) == unavailable
    assert call_with_tls(keys.tls(), None) == unavailable


def test_a_plain_client_of_a_tls_door_is_logged_with_its_wrong_version_number(
    key_material: KeyMaterial, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call_with_tls(key_material.tls(), None) is grpc.StatusCode.UNAVAILABLE
    assert "WRONG_VERSION_NUMBER" in capfd.readouterr().err


def test_verify_client_asks_for_a_certificate_of_the_custom_ca(key_material: KeyMaterial) -> None:
    keys = key_material
    tls = keys.tls(custom_ca=keys.ca, verify_client=True)
    ours = credentials_of(keys.ca, keys.client_key, keys.client_certificate)
    foreign = credentials_of(keys.ca, keys.foreign_key, keys.foreign_certificate)
    assert call_with_tls(tls, ours) == b"a"
    assert call_with_tls(tls, foreign) == grpc.StatusCode.UNAVAILABLE
    assert call_with_tls(tls, credentials_of(keys.ca)) == grpc.StatusCode.UNAVAILABLE


def test_key_material_that_cannot_be_used_is_refused(
    key_material: KeyMaterial, tmp_path: Path
) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    address = "127.0.0.1:0"
    failed = CREATE_FAILED.format(address=address)
    assert open_fails(address, key_material.tls(private_key=str(nonsense))) == failed
    assert open_fails(address, key_material.tls(certificate=str(nonsense))) == failed
    for key in (key_material.client_key, key_material.rsa_key):
        assert open_fails(address, key_material.tls(private_key=key)) == failed
    ca = key_material.tls(custom_ca=str(nonsense), verify_client=True)
    assert open_fails(address, ca) == failed
    missing = str(tmp_path / "missing.pem")
    assert open_fails(address, key_material.tls(certificate=missing)) == (
        f"[Errno 2] No such file or directory: '{missing}'"
    )
