"""The direct clients of the bus, both kinds, against a ROUTER that the test answers by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindbus import bus_errors
from mindbus.async_bus_client import AsyncBusClient
from mindbus.bus_calls import decode_results, encode_call
from mindbus.bus_client import BusClient
from mindbus.bus_errors import CLASS_OF_REASON, BusError
from protocol import head as heads
from protocol import limits, native, status
from protocol.values import BytesValue, MethodSignature, StringValue
from tests.gateway.fakes import Asked, FakeBroker, fake_broker, in_thread

METHOD = MethodSignature("add", "m", ("x",), ("y",))
WAIT_S = 10


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with fake_broker() as broker:
        yield broker


@pytest.fixture
def client(broker: FakeBroker) -> Iterator[BusClient]:
    with BusClient(broker.address, timeout=WAIT_S) as client:
        yield client


def decoded(asked: Asked, *names: str) -> list[tuple[Any, ...]]:
    """The instances of a request as a worker would see them."""
    method = METHOD._replace(inputs=names)
    return native.decode_request(asked.frames, method)


def in_background(function: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
    """What a call in another thread came to."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments, **named))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


# ---------------------------------------------------------------- the synchronous client


def test_values_reach_the_worker_and_come_back_as_they_are(
    broker: FakeBroker, client: BusClient
) -> None:
    x = np.arange(6, dtype=np.float16).reshape(2, 3)
    call = in_background(
        client.infer,
        "add",
        "m",
        [{"x": x, "t": "text", "b": b"\x00\xff", "n": 3, "f": 0.5, "q": True}],
        version=4,
    )
    asked = broker.receive()
    assert (asked.head.service, asked.head.method) == (b"add/4", b"m")
    assert asked.head.dialect == heads.DIALECT_NATIVE
    assert 0 < asked.head.budget_ms <= WAIT_S * 1000, "less what it waited for the connection"
    ((got, text, content, n, f, q),) = decoded(asked, "x", "t", "b", "n", "f", "q")
    np.testing.assert_array_equal(got, x)
    assert got.dtype == np.float16
    assert (text, content) == (StringValue("text"), BytesValue(b"\x00\xff"))
    assert [(v.dtype.name, v.item()) for v in (n, f, q)] == [
        ("int64", 3),
        ("float64", 0.5),
        ("bool", True),
    ]
    broker.answer_native(asked, [{"y": x + 1, "t": "réponse", "b": b"\x01"}])
    (result,) = call.result(WAIT_S)
    np.testing.assert_array_equal(result["y"], x + 1)
    assert (result["t"], result["b"]) == ("réponse", b"\x01")


def test_a_large_array_comes_back_without_losing_a_byte(
    broker: FakeBroker, client: BusClient
) -> None:
    x = np.random.default_rng(7).standard_normal((300, 1000))
    future = client.submit("add", "m", {"x": x})
    asked = broker.receive()
    assert asked.head.flags & heads.FLAG_BODY_LARGE
    assert len(asked.frames) == 2
    broker.answer_frames(asked, asked.frames)
    np.testing.assert_array_equal(future.result(WAIT_S)[0]["x"], x)


def test_many_requests_are_in_flight_at_once_and_each_gets_its_own_answer(
    broker: FakeBroker, client: BusClient
) -> None:
    futures = [client.submit("add", "m", {"x": i}) for i in range(500)]
    asked = [broker.receive() for _ in futures]
    for one in reversed(asked):
        ((x,),) = decoded(one, "x")
        broker.answer_native(one, [{"y": x * 2}])
    assert [f.result(WAIT_S)[0]["y"].item() for f in futures] == list(range(0, 1000, 2))


def test_threads_share_a_client(broker: FakeBroker, client: BusClient) -> None:
    def echo() -> None:
        for _ in range(400):
            asked = broker.receive()
            broker.answer_frames(asked, asked.frames)

    def calls(start: int) -> list[int]:
        return [client.infer("add", "m", {"x": start + i})[0]["x"].item() for i in range(100)]

    echoing = in_background(echo)
    running = [in_background(calls, start) for start in range(0, 400, 100)]
    assert [one.result(WAIT_S) for one in running] == [
        list(range(start, start + 100)) for start in range(0, 400, 100)
    ]
    echoing.result(WAIT_S)


@pytest.mark.parametrize("reason", list(status.REASONS))
def test_each_reason_has_its_exception(broker: FakeBroker, client: BusClient, reason: str) -> None:
    future = client.submit("add", "m", {"x": 1})
    broker.fail(broker.receive(), reason, "the text")
    with pytest.raises(CLASS_OF_REASON[reason], match="the text") as failed:
        future.result(WAIT_S)
    error = failed.value
    assert error.reason == reason
    assert error.grpc_code == status.REASONS[reason].grpc
    assert error.is_retryable == status.REASONS[reason].retry
    assert error.results is None


def answer_mixed(broker: FakeBroker) -> None:
    """One instance good, one failed in a stage, one with wrong inputs."""
    meta = {
        "instances": [{"y": 5}, None, None],
        "errors": [None, [3, "stage failed"], [2, "bad input"]],
    }
    broker.answer_frames(broker.receive(), [native.pack_meta(meta)])


def test_an_instance_that_failed_raises_with_the_outcome_of_every_instance(
    broker: FakeBroker, client: BusClient
) -> None:
    future = client.submit("add", "m", [{"x": i} for i in range(3)])
    answer_mixed(broker)
    with pytest.raises(bus_errors.Internal) as failed:
        future.result(WAIT_S)
    assert str(failed.value) == "stage failed (2 of 3 instances failed)"
    assert failed.value.reason == "system_error"
    good, internal, invalid = failed.value.results or ()
    assert isinstance(good, dict)
    assert good["y"] == 5
    assert isinstance(internal, bus_errors.Internal)
    assert isinstance(invalid, bus_errors.InvalidInputs)
    assert str(invalid) == "bad input"


def test_errors_may_be_returned_in_the_places_of_failed_instances(
    broker: FakeBroker, client: BusClient
) -> None:
    instances = [{"x": i} for i in range(3)]
    future = client.submit("add", "m", instances, return_errors=True)
    answer_mixed(broker)
    good, internal, invalid = future.result(WAIT_S)
    assert good["y"] == 5
    assert isinstance(internal, bus_errors.Internal)
    assert isinstance(invalid, bus_errors.InvalidInputs)


@pytest.mark.parametrize("frames", [[], [b"\xc1"], [b"\x80"], [native.pack_meta({"instances": 1})]])
def test_a_reply_that_cannot_be_read_is_an_internal_error(
    broker: FakeBroker, client: BusClient, frames: list[bytes]
) -> None:
    future = client.submit("add", "m", {"x": 1})
    broker.answer_frames(broker.receive(), frames)
    with pytest.raises(bus_errors.Internal, match="unreadable"):
        future.result(WAIT_S)


def test_a_bug_while_a_reply_is_decoded_costs_that_call_only(
    broker: FakeBroker, client: BusClient
) -> None:
    def decode(*_: Any) -> Any:
        raise RuntimeError("a mistake of ours")

    head, frames = encode_call("add", "m", {"x": 1}, 0, WAIT_S)
    (future,) = client._send([(head, frames)], decode, None)
    broker.answer_native(broker.receive(), [{"y": 1}])
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        future.result(WAIT_S)
    other = client.submit("add", "m", {"x": 1})
    broker.answer_native(broker.receive(), [{"y": 2}])
    assert other.result(WAIT_S)[0]["y"] == 2


def test_a_future_that_is_cancelled_takes_the_request_back(
    broker: FakeBroker, client: BusClient
) -> None:
    future = client.submit("add", "m", {"x": 1})
    asked = broker.receive()
    assert future.cancel()
    cancel = broker.receive()
    assert (cancel.head.command, cancel.head.request_id) == (heads.CANCEL, asked.head.request_id)
    broker.answer_frames(asked, asked.frames)
    second = client.submit("add", "m", {"x": 2})
    asked = broker.receive()
    broker.answer_frames(asked, asked.frames)
    assert second.result(WAIT_S)[0]["x"] == 2
    with pytest.raises(CancelledError):
        future.result(0)


def test_a_broker_that_dies_fails_what_is_outstanding_and_may_come_back(
    broker: FakeBroker, client: BusClient
) -> None:
    futures = [client.submit("add", "m", {"x": 1}) for _ in range(2)]
    broker.receive()
    broker.stop()
    for future in futures:
        with pytest.raises(bus_errors.Unavailable) as lost:
            future.result(WAIT_S)
        assert lost.value.reason == "broker_lost"
    future = client.submit("add", "m", {"x": 2})
    broker.start()
    asked = broker.receive()
    broker.answer_frames(asked, asked.frames)
    assert future.result(WAIT_S)[0]["x"] == 2


@pytest.mark.shows("R22")
def test_a_broker_that_is_not_there_is_unavailable_after_the_timeout() -> None:
    with (
        BusClient("ipc:///tmp/mindbus-nobody.ipc", timeout=0.02) as client,
        pytest.raises(bus_errors.Unavailable, match="no connection"),
    ):
        client.infer("add", "m", {"x": 1})


@pytest.mark.shows("R22")
def test_a_broker_that_never_answers_ends_in_deadline_exceeded(
    broker: FakeBroker, client: BusClient
) -> None:
    with pytest.raises(bus_errors.DeadlineExceeded):
        client.infer("add", "m", {"x": 1}, timeout=0.01)


def test_statistics_come_as_a_map(broker: FakeBroker, client: BusClient) -> None:
    asking = in_background(client.stats)
    asked = broker.receive()
    assert asked.head.command == heads.STATS
    head = heads.pack(heads.Head(heads.STATS, body_frames=1))
    body = native.pack_meta({"workers": [1, 2]})
    broker.reply(asked.client, (asked.head.request_id, head, [body]))
    assert asking.result(WAIT_S) == {"workers": [1, 2]}
    asking = in_background(client.stats)
    broker.fail(broker.receive(), "draining", "going down")
    with pytest.raises(bus_errors.Unavailable, match="going down"):
        asking.result(WAIT_S)


def test_closing_fails_what_runs_cancels_it_in_the_broker_and_refuses_more(
    broker: FakeBroker,
) -> None:
    client = BusClient(broker.address)
    future = client.submit("add", "m", {"x": 1})
    asked = broker.receive()
    client.close()
    client.close()
    with pytest.raises(bus_errors.Unavailable, match="closed"):
        future.result(WAIT_S)
    cancel = broker.receive()
    assert (cancel.head.command, cancel.head.request_id) == (heads.CANCEL, asked.head.request_id)
    for call in (lambda: client.infer("add", "m", {"x": 1}), client.stats):
        with pytest.raises(RuntimeError, match="is closed"):
            call()


def test_closing_leaves_no_thread_and_no_file_open(broker: FakeBroker) -> None:
    def count() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = count()
    for _ in range(3):
        with BusClient(broker.address) as client:
            client.submit("add", "m", {"x": 1})
    assert count() == before


def test_a_client_may_be_closed_from_a_callback(broker: FakeBroker) -> None:
    client = BusClient(broker.address)
    closed = threading.Event()

    def callback(future: Future[Any]) -> None:
        client.close()
        closed.set()

    client.submit("add", "m", {"x": 1}).add_done_callback(callback)
    asked = broker.receive()
    broker.answer_frames(asked, asked.frames)
    assert closed.wait(WAIT_S)


def test_a_child_process_cannot_use_its_parents_client(
    broker: FakeBroker, client: BusClient
) -> None:
    client._pid += 1  # as it looks to a child of a fork
    with pytest.raises(RuntimeError, match="fork"):
        client.infer("add", "m", {"x": 1})
    client._pid -= 1


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((1, "m", {}), TypeError, "servable must be a str, not 1"),
        (("", "m", {}), ValueError, "servable must not be empty"),
        (("add", None, {}), TypeError, "method must be a str, not None"),
        (("add", "m" * 300, {}), ValueError, "method of 300 B exceeds method_bytes_max 255"),
        (("s" * 300, "m", {}), ValueError, "exceeds service_key_bytes_max 223"),
        (("add", "m", None), TypeError, "instances must be a dict, or a list or tuple of dicts"),
        (("add", "m", []), ValueError, "instances must not be empty"),
        (("add", "m", [{}, 5]), TypeError, "instance 1 must be a dict, not 5"),
        (("add", "m", {1: 2}), TypeError, "input name must be a str, not 1"),
        (("add", "m", {"x": None}), TypeError, "input 'x': a value of <class 'NoneType'>"),
        (("add", "m", {"x": [1]}), TypeError, "input 'x': a value of <class 'list'>"),
        (("add", "m", {"x": 1 << 64}), TypeError, "input 'x': int 18446744073709551616"),
        (("add", "m", {"x": np.array(["a"])}), TypeError, "input 'x': dtype <U1"),
        (("add", "m", {"x": 1}, "1"), TypeError, "version must be an int, not '1'"),
        (("add", "m", {"x": 1}, True), TypeError, "version must be an int, not True"),
        (("add", "m", {"x": 1}, -1), ValueError, "version must be 0 (the latest) or above, not -1"),
        (("add", "m", {"x": 1}, 0, "1"), TypeError, "timeout must be a number of seconds, not '1'"),
        (("add", "m", {"x": 1}, 0, 0), ValueError, "timeout must be above 0 and at most 86400 s"),
        (("add", "m", {"x": 1}, 0, float("nan")), ValueError, "timeout must be above 0"),
    ],
)
def test_arguments_that_cannot_be_sent_are_named_at_once(
    client: BusClient, arguments: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    for call in (client.infer, client.submit):
        with pytest.raises(error) as refused:
            call(*arguments)
        assert text in str(refused.value)


def test_a_request_over_the_limit_is_refused_before_it_is_sent(client: BusClient) -> None:
    # Zeros that nobody touches take no memory.
    too_large = np.zeros(limits.CLIENT_MESSAGE_BYTES_MAX, np.uint8)
    with pytest.raises(bus_errors.BodyTooLarge) as refused:
        client.infer("add", "m", {"x": too_large})
    assert "exceeds client_message_bytes_max 536870912 B (service add/0)" in str(refused.value)


def test_a_request_at_the_limit_is_encoded() -> None:
    room = 64  # for the names in the meta frame
    _, frames = encode_call(
        "add", "m", {"x": np.zeros(limits.CLIENT_MESSAGE_BYTES_MAX - room, np.uint8)}, 0, 1
    )
    assert sum(map(len, frames)) <= limits.CLIENT_MESSAGE_BYTES_MAX


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        BusClient("nonsense")
    with pytest.raises(TypeError, match="address must be a str, not 5"):
        BusClient(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        BusClient("ipc:///tmp/x", timeout=-1)


def test_every_reason_of_the_table_has_a_class() -> None:
    assert CLASS_OF_REASON.keys() == status.REASONS.keys()
    assert all(issubclass(kind, BusError) for kind in CLASS_OF_REASON.values())


def test_a_single_failed_instance_keeps_its_own_text() -> None:
    head = heads.pack(heads.Head(heads.REPLY, body_frames=1))
    body = native.pack_meta({"instances": [None], "errors": [[1, "the model failed"]]})
    with pytest.raises(bus_errors.Internal) as failed:
        decode_results(head, [body], return_errors=False)
    assert str(failed.value) == "the model failed"


# ---------------------------------------------------------------- the asyncio client


def test_the_asyncio_client_answers_each_call_with_its_own_reply(broker: FakeBroker) -> None:
    async def play() -> list[int]:
        async with AsyncBusClient(broker.address, timeout=WAIT_S) as client:

            def echo() -> None:
                for _ in range(50):
                    asked = broker.receive()
                    broker.answer_frames(asked, asked.frames)

            echoing = asyncio.create_task(in_thread(echo))
            calls = [client.infer("add", "m", {"x": i}) for i in range(50)]
            replies = await asyncio.gather(*calls)
            await echoing
            return [reply[0]["x"].item() for reply in replies]

    assert asyncio.run(play()) == list(range(50))


def test_the_asyncio_client_raises_what_the_other_raises(broker: FakeBroker) -> None:
    async def play() -> None:
        async with AsyncBusClient(broker.address, timeout=WAIT_S) as client:
            call = asyncio.create_task(client.infer("add", "m", {"x": 1}))
            broker.fail(await in_thread(broker.receive), "queue_full", "full")
            with pytest.raises(bus_errors.Overloaded, match="full"):
                await call
            with pytest.raises(TypeError, match="input 'x'"):
                await client.infer("add", "m", {"x": None})
            call = asyncio.create_task(client.stats())
            broker.fail(await in_thread(broker.receive), "draining", "going")
            with pytest.raises(bus_errors.Unavailable, match="going"):
                await call
        with pytest.raises(RuntimeError, match="is closed"):
            await client.infer("add", "m", {"x": 1})

    asyncio.run(play())


def test_cancelling_a_call_of_the_asyncio_client_takes_the_request_back(
    broker: FakeBroker,
) -> None:
    async def play() -> None:
        async with AsyncBusClient(broker.address, timeout=WAIT_S) as client:
            call = asyncio.create_task(client.infer("add", "m", {"x": 1}))
            asked = await in_thread(broker.receive)
            call.cancel()
            cancel = await in_thread(broker.receive)
            assert cancel.head.command == heads.CANCEL
            assert cancel.head.request_id == asked.head.request_id

    asyncio.run(play())
