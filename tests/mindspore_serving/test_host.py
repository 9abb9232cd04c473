"""The one server of a process, with a fake in the server's place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mindbus.servables import ServableLaunch
from mindbus.server import Tls
from mindspore_serving.server.host import Host, run_directory
from workers.supervisor.door_table import GRPC, REST
from workers.supervisor.start_error import StartError

LAUNCH = ServableLaunch("/d", "add")


class FakeServer:
    """Does nothing but remember; `error` is what the next call fails with."""

    def __init__(self, directory: Path, requests_max: int) -> None:
        self.directory = directory
        self.requests_max = requests_max
        self.calls: list[object] = []
        self.error: str | None = None
        self.is_running = False
        self._ended = threading.Event()

    def _call(self, *call: object) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise StartError(self.error)
        self.is_running = True

    def start_servables(self, launches: Sequence[ServableLaunch]) -> None:
        self._call("servables", *launches)

    def open_grpc(self, address: str, max_msg_mb_size: int, tls: Tls | None) -> str:
        self._call("grpc", address, max_msg_mb_size, tls)
        return address

    def open_rest(self, address: str, max_msg_mb_size: int, tls: Tls | None) -> str:
        self._call("rest", address, max_msg_mb_size, tls)
        return address

    def set_limits(self, requests_max: int) -> None:
        self.requests_max = requests_max

    def request_stop(self, grace_ms: int | None = None) -> None:
        self.is_running = False
        self._ended.set()

    def wait(self) -> int:
        if self.is_running:
            assert self._ended.wait(5)
        return 0


class Made:
    """A host, and the fakes that it made."""

    def __init__(self) -> None:
        self.servers: list[FakeServer] = []
        self.host = Host(self.make)
        self.prepare: Callable[[FakeServer], None] = lambda server: None

    def make(self, directory: Path, requests_max: int) -> FakeServer:
        server = FakeServer(directory, requests_max)
        self.prepare(server)
        self.servers.append(server)
        return server


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.delenv("MINDBUS_RUN_DIRECTORY", raising=False)
    # In a thread that is not the main one, so that the signal handlers of pytest stay.
    made = Made()
    yield made
    made.host.stop()


def _aside(action: Callable[[], None]) -> None:
    """Run on another thread, where no signal handlers are installed."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_doors_and_servables_share_one_server_in_any_order(made: Made) -> None:
    tls = Tls("c", "k")
    _aside(lambda: made.host.open_door(GRPC, "a:1", 100, None))
    _aside(lambda: made.host.start_servables([LAUNCH]))
    _aside(lambda: made.host.open_door(REST, "a:2", 7, tls))
    [server] = made.servers
    assert server.calls == [
        ("grpc", "a:1", 100, None),
        ("servables", LAUNCH),
        ("rest", "a:2", 7, tls),
    ]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (GRPC, "Raise failed: Serving Error: Serving gRPC server is already running"),
        (REST, "Raise failed: Serving Error: RESTful server is already running"),
    ],
)
def test_a_door_opens_once_and_the_server_goes_on(made: Made, kind: str, text: str) -> None:
    _aside(lambda: made.host.open_door(kind, "a:1", 100, None))
    with pytest.raises(RuntimeError) as raised:
        _aside(lambda: made.host.open_door(kind, "a:2", 100, None))
    assert str(raised.value) == text
    assert made.host.is_running


def test_a_door_that_failed_can_be_tried_again(made: Made) -> None:
    def fail(server: FakeServer) -> None:
        server.is_running = True
        server.error = "Serving Error: no port"

    made.prepare = fail
    with pytest.raises(RuntimeError) as raised:
        _aside(lambda: made.host.open_door(GRPC, "a", 100, None))
    assert str(raised.value) == "Raise failed: Serving Error: no port"
    [server] = made.servers
    server.error = None
    _aside(lambda: made.host.open_door(GRPC, "a:1", 100, None))
    assert [call[1] for call in server.calls if isinstance(call, tuple)] == ["a", "a:1"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            "Serving Error: Master gRPC server is already running",
            "Raise failed: Serving Error: Master gRPC server is already running",
        ),
        ("Fail to start workers: {x}", "Fail to start workers: {x}"),
    ],
)
def test_only_errors_of_the_core_are_said_to_be_raised(made: Made, error: str, text: str) -> None:
    made.prepare = lambda server: setattr(server, "error", error)
    with pytest.raises(RuntimeError) as raised:
        _aside(lambda: made.host.start_servables([LAUNCH]))
    assert str(raised.value) == text


def test_after_a_stop_the_next_start_makes_a_new_server(made: Made) -> None:
    _aside(lambda: made.host.open_door(GRPC, "a:1", 100, None))
    made.host.stop()
    assert not made.host.is_running
    _aside(lambda: made.host.open_door(GRPC, "a:1", 100, None))
    first, second = made.servers
    assert first.calls == second.calls
    assert first.directory != second.directory


def test_a_stop_without_a_server_does_nothing(made: Made) -> None:
    made.host.stop()
    assert made.servers == []


def test_the_limit_of_requests_holds_for_servers_now_and_later(made: Made) -> None:
    made.host.set_requests_max(7)
    _aside(lambda: made.host.start_servables([LAUNCH]))
    [server] = made.servers
    assert server.requests_max == 7
    made.host.set_requests_max(9)
    assert server.requests_max == 9


def test_a_server_of_another_kind_is_made_only_where_none_runs(made: Made) -> None:
    other = Made()
    _aside(lambda: made.host.start_servables([LAUNCH], other.make))
    assert (len(made.servers), len(other.servers)) == (0, 1)
    made.host.stop()
    _aside(lambda: made.host.open_door(GRPC, "a:1", 100, None))
    _aside(lambda: made.host.start_servables([LAUNCH], other.make))
    assert (len(made.servers), len(other.servers)) == (1, 1)


def test_each_server_has_a_run_directory_of_its_own_unless_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MINDBUS_RUN_DIRECTORY", raising=False)
    assert run_directory(1) != run_directory(2)
    monkeypatch.setenv("MINDBUS_RUN_DIRECTORY", "/run/mine")
    assert run_directory(1) == run_directory(2) == Path("/run/mine")
