"""The supervisor with real processes that are fakes: starts, deaths, restarts, going down."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from mindbus.runtime_client import NotRunningError, RefusedError, RuntimeClient
from mindbus.server import ServableLaunch, Server, ServerSettings, StartError
from protocol import control, head
from tests.processes.fakes.fake_serve import COMMANDS
from tests.processes.waiting import descendants, wait_gone, wait_until
from workers.supervisor.restart_policy import RestartLimits
from workers.supervisor.run_directory import RunDirectory, RunDirectoryError

pytestmark = pytest.mark.process

#: Backoffs of milliseconds, so that a crash loop ends within a test.
FAST = RestartLimits(backoff_base_ms=10, backoff_max_ms=20, drain_limit_ms=2_000)

CHECKOUT = Path(__file__).resolve().parents[2]


class World:
    """A run directory, a directory of fake servables, and the servers started in them."""

    def __init__(self, root: Path) -> None:
        self.run_directory = root / "run"
        self.servables = root / "servables"
        self.servables.mkdir()
        self.servers: list[Server] = []
        self._before = descendants(os.getpid())

    def children(self) -> set[int]:
        """Processes below this one that this world has started."""
        return descendants(os.getpid()) - self._before

    def servable(self, name: str = "add", boot: str = "ready", **script: Any) -> ServableLaunch:
        """Write the script of a fake servable."""
        directory = self.servables / name
        directory.mkdir(exist_ok=True)
        (directory / "servable_config.py").touch()
        (directory / "fake.json").write_text(json.dumps({"boot": boot, **script}))
        return ServableLaunch(str(self.servables), name)

    def server(
        self,
        restarts: RestartLimits = FAST,
        grace_ms: int = 3_000,
        producers_addresses: tuple[str, ...] = (),
    ) -> Server:
        """A server with fake children that is stopped at the end of the test."""
        server = Server(
            ServerSettings(
                run_directory=self.run_directory,
                restarts=restarts,
                grace_ms=grace_ms,
                producers_addresses=producers_addresses,
                commands=COMMANDS,
            )
        )
        self.servers.append(server)
        return server

    def events(self) -> list[str]:
        """What the fakes were told, in order; gateways first, then workers."""
        files = [self.run_directory / "events", *self.servables.glob("*/events")]
        return [line for file in files if file.exists() for line in file.read_text().splitlines()]

    def program(self) -> subprocess.Popen[str]:
        """The same as `server`, in a process of its own."""
        module = "tests.processes.fakes.fake_serve"
        return subprocess.Popen(
            [sys.executable, "-m", module, str(self.run_directory), str(self.servables)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mb-") as root:
        made = World(Path(root))
        yield made
        for server in made.servers:
            server.stop(grace_ms=0)
        left = {file.name for file in made.run_directory.glob("*")} - {"lock", "events"}
        assert left == set()
        assert made.children() == set()


def slot(server: Server, name: str) -> dict[str, Any]:
    return next(slot for slot in server.status()["slots"] if slot["slot"] == name)


def wait_for_state(server: Server, name: str, state: str, generation: int) -> dict[str, Any]:
    def probe() -> dict[str, Any] | None:
        found = slot(server, name)
        return found if (found["state"], found["generation"]) == (state, generation) else None

    found = wait_until(probe)
    assert found is not None
    return found


# ---------------------------------------------------------------- starting


def test_start_returns_when_every_worker_is_ready_and_the_status_is_true(world: World) -> None:
    server = world.server()
    launch = world.servable()
    server.start_servables([ServableLaunch(launch.servable_directory, "add", device_ids=(0, 1))])
    status = server.status()
    assert status["state"] == "serving"
    assert [(s["slot"], s["kind"], s["state"], s["generation"]) for s in status["slots"]] == [
        ("gateway/0", "gateway", "READY", 1),
        ("add/1/device0", "worker", "READY", 1),
        ("add/1/device1", "worker", "READY", 1),
    ]
    assert {s["pid"] for s in status["slots"]} == world.children()
    assert slot(server, "add/1/device1")["device"] == {"target": "CPU", "id": 1}


def test_a_worker_gets_the_launch_document_of_the_contract(world: World) -> None:
    server = world.server()
    world.servable()
    (world.servables / "add" / "3").mkdir()
    (world.servables / "add" / "12").mkdir()
    server.start_servables(
        [ServableLaunch(str(world.servables), "add", dec_key=b"k" * 16, backend="numpy")]
    )
    document = json.loads((world.servables / "add" / "document.1.json").read_text())
    assert document == {
        "servable_directory": str(world.servables),
        "slot": "add/12/device0",
        "servable_name": "add",
        "version": 12,
        "version_asked": 0,
        "device_target": None,
        "device_id": 0,
        "backend": "numpy",
        "workers_address": f"ipc://{world.run_directory}/workers.ipc",
        "link_path": f"{world.run_directory}/workers.ipc.link",
        "worker_id": "add/12/device0",
        "generation": 1,
        "dec_key": "a2tra2tra2tra2tra2traw==",
        "dec_mode": "AES-GCM",
        "parent_pid": os.getpid(),
        "batch_sizes": None,
    }


def test_a_worker_that_reports_a_failure_ends_the_start_with_its_text(world: World) -> None:
    server = world.server()
    launches = [world.servable("good"), world.servable("bad", boot="failed", error="no such file")]
    with pytest.raises(StartError) as raised:
        server.start_servables(launches)
    assert str(raised.value) == (
        "Fail to start workers: {servable name:bad, device id:0, <no such file>}"
    )
    assert world.children() == set()
    assert server.wait() == 1


def test_a_worker_that_dies_silently_ends_the_start(world: World) -> None:
    server = world.server()
    with pytest.raises(StartError) as raised:
        server.start_servables([world.servable("dead", boot="exit", exit_code=9)])
    assert str(raised.value) == (
        "Fail to start workers because of death of one worker (dead/1/device0: exit code 9)"
    )


def test_a_servable_that_is_not_there_is_refused_before_anything_runs(world: World) -> None:
    server = world.server()
    with pytest.raises(StartError) as raised:
        server.start_servables([ServableLaunch(str(world.servables), "none")])
    directory = world.servables
    assert str(raised.value) == (
        f"Check servable config failed, directory '{directory}/none' not exist, "
        f"servable directory '{directory}', servable name 'none'"
    )
    assert not world.run_directory.exists()


@pytest.mark.shows("F33", "F9")
def test_a_second_server_is_refused_with_the_pid_of_the_first(world: World) -> None:
    world.server().start_servables([world.servable()])
    with pytest.raises(StartError) as raised:
        world.server().start_servables([world.servable()])
    assert str(raised.value) == (
        f"a MindBus server with pid {os.getpid()} already runs with run directory "
        f"{world.run_directory}"
    )
    assert world.servers[0].status()["state"] == "serving"


# ---------------------------------------------------------------- doors


@pytest.mark.shows("F8")
def test_a_killed_gateway_comes_back_with_its_doors_at_the_same_addresses(world: World) -> None:
    server = world.server()
    server.start_servables([world.servable()])
    addresses = [server.open_grpc("127.0.0.1:0"), server.open_rest("127.0.0.1:0")]
    server.set_limits(7)
    assert wait_until(lambda: world.events()[-1:] == ["gateway limits"])
    os.kill(slot(server, "gateway/0")["pid"], signal.SIGKILL)
    wait_for_state(server, "gateway/0", "READY", 2)
    doors = server.status()["doors"]
    assert [door["address"] for door in doors] == addresses
    for address in addresses:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
    assert wait_until(lambda: world.events()[3:] and world.events()[-1] == "gateway limits")
    assert world.events() == [
        "gateway open_grpc",
        "gateway open_rest",
        "gateway limits",
        "gateway open_grpc",
        "gateway open_rest",
        "gateway limits",
    ]


def test_a_killed_gateway_binds_the_producers_port_that_port_0_became(world: World) -> None:
    server = world.server(producers_addresses=("tcp://127.0.0.1:0",))
    server.start_servables([world.servable()])
    pid = slot(server, "gateway/0")["pid"]
    producers = [f"ipc://{world.run_directory}/producers.ipc", f"tcp://127.0.0.1:{pid}"]
    assert server.status()["producers"] == producers
    os.kill(pid, signal.SIGKILL)
    wait_for_state(server, "gateway/0", "READY", 2)
    assert server.status()["producers"] == producers
    assert json.loads((world.run_directory / "server.json").read_text())["producers"] == producers


def test_a_taken_port_is_an_error_that_leaves_the_server_as_it_was(world: World) -> None:
    server = world.server()
    server.start_servables([world.servable()])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"^cannot bind {port}$"):
            server.open_grpc(f"127.0.0.1:{port}")
    assert server.status()["state"] == "serving"
    assert server.open_grpc(f"127.0.0.1:{port}") == f"127.0.0.1:{port}"
    with pytest.raises(StartError, match="gRPC server is already running"):
        server.open_grpc("127.0.0.1:0")


# ---------------------------------------------------------------- deaths


@pytest.mark.shows("F1")
def test_a_killed_worker_is_reported_to_the_broker_and_replaced_at_once(world: World) -> None:
    slow = RestartLimits(backoff_base_ms=60_000, backoff_max_ms=60_000)
    server = world.server(restarts=slow)
    server.start_servables([world.servable()])
    before = slot(server, "add/1/device0")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as broker:
        broker.linger = 0
        broker.bind(f"ipc://{world.run_directory}/workers.ipc")
        os.kill(before["pid"], signal.SIGKILL)
        assert broker.poll(10_000)
        _, packed, body = broker.recv_multipart()
    assert head.unpack(packed).command == head.LOST
    lost = control.Lost("add/1/device0", 1, "killed by SIGKILL", started=())
    assert control.unpack_lost([body]) == lost
    after = wait_for_state(server, "add/1/device0", "READY", 2)
    assert after["pid"] != before["pid"]
    assert (after["restarts"], after["last_exit"]) == (1, "killed by SIGKILL")


@pytest.mark.shows("R7")
def test_what_a_worker_started_dies_with_it(world: World) -> None:
    server = world.server()
    note = world.servables.parent / "grandchild"
    server.start_servables([world.servable(grandchild=str(note))])
    grandchild = int(note.read_text())
    os.kill(slot(server, "add/1/device0")["pid"], signal.SIGKILL)
    wait_gone(grandchild)


@pytest.mark.shows("F6")
def test_a_slot_that_cannot_boot_again_is_given_up_and_the_others_go_on(world: World) -> None:
    server = world.server()
    server.start_servables([world.servable("bad"), world.servable("good")])
    world.servable("bad", boot="failed", error="disk gone")
    os.kill(slot(server, "bad/1/device0")["pid"], signal.SIGKILL)
    failed = wait_for_state(server, "bad/1/device0", "FAILED", 6)
    assert (failed["pid"], failed["last_exit"], failed["error"]) == (
        None,
        "exit code 3",
        "disk gone",
    )
    assert slot(server, "good/1/device0")["generation"] == 1
    assert server.status()["state"] == "serving"


@pytest.mark.shows("F6")
def test_a_slot_that_was_given_up_is_filled_again_by_a_reset(world: World) -> None:
    server = world.server()
    server.start_servables([world.servable("bad"), world.servable("good")])
    world.servable("bad", boot="failed", error="disk gone")
    with RuntimeClient(world.run_directory) as client:
        client.slot_command("kill", "bad/1/device0")
        wait_for_state(server, "bad/1/device0", "FAILED", 6)
        world.servable("bad")
        client.slot_command("reset", "bad/1/device0")
        found = wait_for_state(server, "bad/1/device0", "READY", 7)
        assert found["error"] is None
        with pytest.raises(RefusedError, match=r"slot good/1/device0 is READY: only a slot that"):
            client.slot_command("reset", "good/1/device0")


def test_a_drained_slot_stays_empty_until_it_is_reset(world: World) -> None:
    server = world.server()
    server.start_servables([replace(world.servable(), device_ids=(0, 1))])
    with RuntimeClient(world.run_directory) as client:
        client.slot_command("drain", "add/1/device0")
        wait_for_state(server, "add/1/device0", "VACANT", 1)
        with pytest.raises(RefusedError, match="slot add/1/device0 has no process, it is VACANT"):
            client.slot_command("kill", "add/1/device0")
        with pytest.raises(RefusedError, match="slot add/1/device1 is the last worker of add/1"):
            client.slot_command("drain", "add/1/device1")
        client.slot_command("reset", "add/1/device0")
        wait_for_state(server, "add/1/device0", "READY", 2)
        with pytest.raises(RefusedError, match="slot gateway/0 is a gateway, not a worker"):
            client.slot_command("drain", "gateway/0")
        with pytest.raises(RefusedError, match="slot 'add/9' is not one of gateway/0, add/1/"):
            client.slot_command("kill", "add/9")


def test_extra_workers_start_once_the_device_workers_have_loaded(world: World) -> None:
    server = world.server()
    launch = replace(world.servable(), device_ids=(0, 1), extra_workers=2)
    server.start_servables([launch])
    assert [s["slot"] for s in server.status()["slots"] if s["kind"] == "worker"] == [
        "add/1/device0",
        "add/1/device1",
        "add/1/extra0",
        "add/1/extra1",
    ]
    document = json.loads((world.servables / "add" / "document.1.json").read_text())
    assert document["device_id"] is None
    assert document["models"] == {}
    assert document["producers_address"] == f"ipc://{world.run_directory}/producers.ipc"
    server.stop()
    workers = [event for event in world.events() if "gateway" not in event]
    assert {event[:5] for event in workers[:2]} == {"extra"}
    assert {event[:6] for event in workers[2:]} == {"device"}


def test_a_roll_leaves_a_slot_alone_that_was_drained_meanwhile(world: World) -> None:
    server = world.server()
    server.start_servables([replace(world.servable(), device_ids=(0, 1, 2))])
    with RuntimeClient(world.run_directory) as client:
        client.roll("restart", {"mode": "in-place", "settle_ms": 1_000})
        client.slot_command("drain", "add/1/device1")
        assert wait_until(lambda: client.status()["roll"]["is_over"])
        assert client.status()["roll"]["failure"] is None
    assert slot(server, "add/1/device0")["generation"] == 2
    assert slot(server, "add/1/device1")["state"] == "VACANT"
    assert slot(server, "add/1/device2")["generation"] == 2


def test_in_a_reload_extra_workers_drain_before_the_last_device_worker_they_need(
    world: World,
) -> None:
    server = world.server()
    server.start_servables([replace(world.servable(), extra_workers=1)])
    with RuntimeClient(world.run_directory) as client:
        client.roll("reload", {"servable": "add", "version": 2, "settle_ms": 0, "mode": "surge"})
        assert wait_until(lambda: client.status()["roll"]["is_over"])
        assert client.status()["roll"]["failure"] is None
    workers = [s["slot"] for s in server.status()["slots"] if s["kind"] == "worker"]
    assert workers == ["add/2/device0", "add/2/extra0"]
    assert [event for event in world.events() if "gateway" not in event] == [
        "extra0 draining",
        "device0 draining",
    ]


def test_extra_workers_go_with_the_last_device_worker_of_their_servable(world: World) -> None:
    server = world.server()
    launch = replace(world.servable("bad"), extra_workers=1)
    server.start_servables([launch, world.servable("good")])
    os.kill(slot(server, "bad/1/device0")["pid"], signal.SIGTERM)
    wait_for_state(server, "bad/1/device0", "VACANT", 1)
    wait_for_state(server, "bad/1/extra0", "VACANT", 1)
    assert server.status()["state"] == "serving"


def test_a_server_without_device_workers_ends_though_extra_workers_live(world: World) -> None:
    server = world.server()
    server.start_servables([replace(world.servable(), extra_workers=1)])
    os.kill(slot(server, "add/1/device0")["pid"], signal.SIGTERM)
    assert server.wait() == 0


FEW_DESCRIPTORS = """
import pathlib, resource, sys
from mindbus.server import ServableLaunch, Server, ServerSettings, StartError
from tests.processes.fakes.fake_serve import COMMANDS

resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
run_directory, servables = map(pathlib.Path, sys.argv[1:])
server = Server(ServerSettings(run_directory=run_directory, commands=COMMANDS))
try:
    server.start_servables([ServableLaunch(str(servables), "add", device_ids=tuple(range(64)))])
except StartError as error:
    print(error)
"""


@pytest.mark.shows("R27")
def test_a_start_that_runs_out_of_descriptors_names_the_parameter_and_leaves_nobody(
    world: World,
) -> None:
    world.servable()
    program = subprocess.run(
        [sys.executable, "-c", FEW_DESCRIPTORS, str(world.run_directory), str(world.servables)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert program.stdout.startswith(
        "Maybe the parameter 'num_parallel_workers' is too large, cannot spawn add/1/device"
    ), program.stderr
    assert "Too many open files" in program.stdout
    assert wait_until(lambda: world.children() == set())


@pytest.mark.shows("R6")
def test_a_server_whose_last_slot_failed_ends_with_an_error(world: World) -> None:
    server = world.server()
    server.start_servables([world.servable()])
    world.servable(boot="exit", exit_code=3)
    os.kill(slot(server, "add/1/device0")["pid"], signal.SIGKILL)
    assert server.wait() == 1
    assert str(server.failure) == "every worker is gone (add/1/device0: exit code 3)"


def test_a_worker_that_was_told_to_go_is_not_replaced(world: World) -> None:
    server = world.server()
    server.start_servables([world.servable("one"), world.servable("two")])
    os.kill(slot(server, "one/1/device0")["pid"], signal.SIGTERM)
    assert wait_for_state(server, "one/1/device0", "VACANT", 1)["last_exit"] == "exit code 0"
    os.kill(slot(server, "two/1/device0")["pid"], signal.SIGTERM)
    assert server.wait() == 0


def test_a_drain_that_takes_too_long_is_ended_by_force(world: World) -> None:
    server = world.server(restarts=RestartLimits(drain_limit_ms=100))
    server.start_servables([world.servable("stuck", drain="hang"), world.servable("good")])
    os.kill(slot(server, "stuck/1/device0")["pid"], signal.SIGTERM)
    vacant = wait_for_state(server, "stuck/1/device0", "VACANT", 1)
    assert vacant["last_exit"] == "killed by SIGKILL (it took too long, DRAINING)"


# ---------------------------------------------------------------- going down


@pytest.mark.shows("F31")
def test_stop_closes_the_doors_then_drains_the_workers_then_ends_the_gateway(
    world: World,
) -> None:
    server = world.server()
    server.start_servables([world.servable()])
    # Both fakes write into one file, so that their order can be seen.
    events = world.run_directory / "events"
    (world.servables / "add" / "events").symlink_to(events)
    server.stop()
    assert events.read_text().splitlines() == ["gateway drain", "device0 draining", "gateway end"]
    assert server.wait() == 0


def test_who_does_not_drain_is_killed_at_the_end_of_the_grace(world: World) -> None:
    server = world.server()
    server.start_servables([world.servable(drain="hang")])
    pid = slot(server, "add/1/device0")["pid"]
    server.stop(grace_ms=200)
    wait_gone(pid, deadline_s=0)
    assert server.wait() == 0


def test_the_control_socket_tells_the_status_and_stops_the_server(world: World) -> None:
    server = world.server()
    server.start_servables([world.servable()])
    with RuntimeClient(world.run_directory) as client:
        assert [found["state"] for found in client.status()["slots"]] == ["READY", "READY"]
        assert client.stop(grace_ms=2_000) == 0
    assert server.wait() == 0
    with pytest.raises(NotRunningError, match=f"run directory {world.run_directory}"):
        RuntimeClient(world.run_directory)


def test_the_control_socket_survives_nonsense(world: World) -> None:
    server = world.server()
    server.start_servables([world.servable()])
    for nonsense in (b"\x00\xff\n", b"[1]\n", b'{"command": "dance"}\n', b'{"command":"stop"}\n'):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(world.run_directory / "control.sock"))
            client.sendall(nonsense)
            assert json.loads(client.recv(65_536))["ok"] is False
    assert server.status()["state"] == "serving"


# ---------------------------------------------------------------- the supervisor's own process


def wait_up(program: subprocess.Popen[str]) -> list[int]:
    assert program.stdout is not None
    for line in program.stdout:
        if line.startswith("up "):
            return [int(pid) for pid in line.split()[1:]]
    raise AssertionError("the program ended before it was up")


@pytest.mark.shows("F9", "R7")
def test_kill_9_of_the_supervisor_leaves_nobody_and_the_next_start_succeeds(world: World) -> None:
    world.servable()
    with world.program() as program:
        children = wait_up(program)
        program.kill()
        for pid in children:
            wait_gone(pid, deadline_s=5)
    assert (world.run_directory / "control.sock").exists()
    server = world.server()
    server.start_servables([world.servable()])
    assert server.status()["state"] == "serving"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_one_signal_drains_and_exits_0(world: World, number: int) -> None:
    world.servable()
    with world.program() as program:
        children = wait_up(program)
        program.send_signal(number)
        assert program.wait(10) == 0
        for pid in children:
            wait_gone(pid, deadline_s=0)


@pytest.mark.shows("F32")
def test_two_signals_during_a_start_that_hangs_end_everything_at_once(world: World) -> None:
    world.servable(boot="hang")
    with world.program() as program:
        note = world.servables / "add" / "document.1.json"
        wait_until(note.exists)
        children = descendants(program.pid)
        assert len(children) == 2
        program.send_signal(signal.SIGINT)
        wait_until(lambda: RuntimeClient(world.run_directory).status()["state"] == "stopping")
        program.send_signal(signal.SIGTERM)
        assert program.wait(2) == 1
        assert program.stderr is not None
        assert program.stderr.read().splitlines()[-1] == (
            "Fail to start workers because of signal SIGINT or SIGTERM"
        )
        for pid in children:
            wait_gone(pid, deadline_s=0)


# ---------------------------------------------------------------- run directory


def test_a_run_directory_whose_sockets_would_be_too_long_is_refused(world: World) -> None:
    path = world.run_directory / ("x" * 100)
    with pytest.raises(RunDirectoryError, match="exceeds ipc_path_bytes_max 107"):
        RunDirectory.open(path)


def test_a_run_directory_that_others_may_enter_is_refused(world: World) -> None:
    world.run_directory.mkdir(mode=0o755)
    with pytest.raises(RunDirectoryError, match="mode 0755"):
        RunDirectory.open(world.run_directory)


@pytest.mark.shows("F33")
def test_stale_sockets_go_only_after_the_lock_is_held(world: World) -> None:
    held = RunDirectory.open(world.run_directory)
    (world.run_directory / "workers.ipc").touch()
    with pytest.raises(RunDirectoryError, match=f"pid {os.getpid()} already runs"):
        RunDirectory.open(world.run_directory)
    assert (world.run_directory / "workers.ipc").exists()
    held.close()
    (world.run_directory / "producers.ipc").touch()
    RunDirectory.open(world.run_directory).close()
    assert [file.name for file in world.run_directory.iterdir()] == ["lock"]
