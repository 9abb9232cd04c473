"""Imports go down only, and only shells do I/O: the floors of docs/ARCHITECTURE.md, executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ROOF = ("mindbus", "mindspore_serving", "bench", "examples", "docs")
FLOOR_2 = ("gateway", "broker", "workers")
FLOOR_1 = ("protocol", "telemetry")
#: Makes extensions of the other rooms, and finds them; knows nothing of what is in them.
GROUND = ("compiled",)
OURS = (*ROOF, *FLOOR_2, *FLOOR_1, *GROUND, "tests")

#: What a room may import of ours, besides itself.
ALLOWED = {
    **{room: {*ROOF, *FLOOR_2, *FLOOR_1, *GROUND} for room in ROOF},
    **{room: {*FLOOR_1, *GROUND} for room in FLOOR_2},
    **{room: set(GROUND) for room in FLOOR_1},
    **{room: set() for room in GROUND},
}

#: Modules that do I/O, or bring a library that does. Only shell files may import them.
IMPURE = {
    "asyncio",
    "ctypes",
    "grpc",
    "importlib",
    "logging",
    "mindspore",
    "os",
    "queue",
    "select",
    "selectors",
    "signal",
    "socket",
    "structlog",
    "subprocess",
    "telemetry",
    "threading",
    "time",
    "uvloop",
    "zmq",
}

#: The shells (○). Every other file of floors 1 and 2 is pure (●).
SHELLS = {
    "broker/__main__.py",
    "broker/departures.py",
    "broker/links.py",
    "broker/switch.py",
    "gateway/accepting.py",
    "gateway/bus.py",
    "gateway/grpc_calls.py",
    "gateway/grpc_connection.py",
    "gateway/grpc_door.py",
    "gateway/grpc_rpcs.py",
    "gateway/health.py",
    "gateway/http_connection.py",
    "gateway/http_replies.py",
    "gateway/journal.py",
    "gateway/listening.py",
    "gateway/model_directory.py",
    "gateway/off_loop.py",
    "gateway/oip_handler.py",
    "gateway/openapi.py",
    "gateway/rare_warning.py",
    "gateway/remote_bus.py",
    "gateway/rest_door.py",
    "gateway/stall_watch.py",
    "protocol/dealer.py",
    "protocol/link_socket.py",
    "protocol/sockets.py",
    "telemetry/allocator.py",
    "telemetry/log.py",
    "telemetry/orders.py",
    "telemetry/rotating_file.py",
    "telemetry/tracing.py",
    "telemetry/wall_clock.py",
    "workers/__main__.py",
    "workers/backends/mindir.py",
    "workers/backends/mindspore_group.py",
    "workers/backends/mindspore_discovery.py",
    "workers/backends/mindspore_graph.py",
    "workers/backends/numpy_scripted.py",
    "workers/backends/scripted_device.py",
    "workers/boot.py",
    "workers/bus.py",
    "workers/connections.py",
    "workers/device_thread.py",
    "workers/device_worker.py",
    "workers/distributed/__main__.py",
    "workers/distributed/agent.py",
    "workers/distributed/agent_link.py",
    "workers/distributed/group_backend.py",
    "workers/distributed/group_link.py",
    "workers/distributed/launcher.py",
    "workers/model_calls.py",
    "workers/orphan.py",
    "workers/pipeline.py",
    "workers/prctl.py",
    "workers/progress_page.py",
    "workers/request_tracer.py",
    "workers/servable/loader.py",
    "workers/supervisor/child.py",
    "workers/supervisor/control_listener.py",
    "workers/supervisor/crew.py",
    "workers/supervisor/listeners.py",
    "workers/supervisor/loss_reporter.py",
    "workers/supervisor/roll_runner.py",
    "workers/supervisor/run_directory.py",
    "workers/supervisor/settings_command.py",
    "workers/supervisor/slot_commands.py",
    "workers/supervisor/start_error.py",
    "workers/supervisor/supervisor.py",
    "workers/supervisor/worker_log.py",
}


def sources(room: str) -> Iterator[Path]:
    """The Python files of a room."""
    return (path for path in (ROOT / room).rglob("*.py") if not path.name.endswith("_pb2.py"))


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Top names of everything that a file imports at run time (TYPE_CHECKING blocks left out)."""
    tree = ast.parse(path.read_text(), str(path))
    names: set[str] = set()
    for node in tree.body if top_level_only else walk_run_time(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").partition(".")[0])
    return names


def walk_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Like ast.walk, without what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from walk_run_time(node)


@pytest.mark.parametrize("room", [*ROOF, *FLOOR_2, *FLOOR_1, *GROUND])
def test_a_room_imports_only_what_is_below_it(room: str) -> None:
    for path in sources(room):
        foreign = (imports(path) & set(OURS)) - {room} - ALLOWED[room]
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


@pytest.mark.parametrize("room", [*FLOOR_2, *FLOOR_1])
def test_only_shells_import_what_does_io(room: str) -> None:
    for path in sources(room):
        name = str(path.relative_to(ROOT))
        impure = (imports(path) & IMPURE) - {room}
        if name not in SHELLS:
            assert not impure, f"{name} is pure and imports {sorted(impure)}"


def test_every_shell_of_the_list_exists_and_is_one() -> None:
    for name in SHELLS:
        assert imports(ROOT / name) & IMPURE, f"{name} does no I/O: take it off the list"


def test_mindspore_is_imported_by_its_backend_and_by_scripts_only() -> None:
    importers = {
        str(path.relative_to(ROOT))
        for room in (*ROOF, *FLOOR_2, *FLOOR_1)
        for path in sources(room)
        if "mindspore" in imports(path)
    }
    allowed = {
        "workers/backends/mindspore_graph.py",
        "workers/backends/mindspore_group.py",
        "workers/backends/mindir.py",
    }
    assert {name for name in importers if not name.startswith("examples/")} <= allowed
