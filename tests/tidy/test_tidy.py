"""Rules of style and safety that are executed rather than remembered."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "protocol",
    "telemetry",
    "broker",
    "workers",
    "gateway",
    "mindbus",
    "mindspore_serving",
    "compiled",
    "examples",
    "bench",
)
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

#: Never on bytes that come from outside: they build objects or run code.
UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml"}
UNSAFE_CALLS = {"eval", "exec"}
#: A clock that somebody may set, and who may read it: nothing of theirs decides anything.
WALL_CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
}
WALL_CLOCK_READERS = {"telemetry/log.py", "telemetry/tracing.py", "telemetry/wall_clock.py"}
FORKING = {("os", "fork"), ("os", "forkpty")}


def sources() -> Iterator[tuple[str, ast.Module, str]]:
    """Name, tree and text of each of our Python files, generated ones left out."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")):
                text = path.read_text()
                yield str(path.relative_to(ROOT)), ast.parse(text, str(path)), text


SOURCES = list(sources())


def test_files_and_functions_keep_to_their_size() -> None:
    long = [name for name, _, text in SOURCES if text.count("\n") > FILE_LINES_MAX]
    assert not long, f"over {FILE_LINES_MAX} lines: {long}"
    functions = [
        f"{name}:{node.name}"
        for name, tree, _ in SOURCES
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert not functions, f"over {FUNCTION_LINES_MAX} lines: {functions}"


def test_every_public_name_has_a_docstring() -> None:
    bare = []
    for name, tree, _ in SOURCES:
        if ast.get_docstring(tree) is None and tree.body:
            bare.append(name)
        scopes: list[ast.Module | ast.ClassDef] = [tree]
        scopes += [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for scope in scopes:
            for node in scope.body:
                if (
                    isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                    and not node.name.startswith("_")
                    and ast.get_docstring(node) is None
                ):
                    bare.append(f"{name}:{node.name}")
    assert not bare, bare


@pytest.mark.shows("R25", "R26")
def test_nothing_unpickles_evaluates_or_forks() -> None:
    found = []
    for name, tree, _ in SOURCES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found += [name for alias in node.names if alias.name in UNSAFE_MODULES]
            elif isinstance(node, ast.ImportFrom) and node.module in UNSAFE_MODULES:
                found.append(name)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found += [f"{name}: {node.func.id}"] if node.func.id in UNSAFE_CALLS else []
            elif isinstance(node, ast.Attribute):
                if node.attr in {"recv_pyobj", "send_pyobj"}:
                    found.append(f"{name}: {node.attr}")
                if isinstance(node.value, ast.Name) and (node.value.id, node.attr) in FORKING:
                    found.append(f"{name}: {node.attr}")
    assert not found, found


@pytest.mark.shows("F29")
def test_only_log_lines_read_a_clock_that_somebody_may_set() -> None:
    found = {
        name
        for name, tree, _ in SOURCES
        for node in ast.walk(tree)
        if name.split("/")[0]
        in ("protocol", "broker", "workers", "gateway", "mindbus", "telemetry")
        and (
            (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and (node.value.id, node.attr) in WALL_CLOCKS
            )
            or (isinstance(node, ast.ImportFrom) and node.module == "time")
        )
    }
    assert found <= WALL_CLOCK_READERS, found


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX", "NotImplementedError"])
def test_nothing_is_left_for_later_in_the_code(word: str) -> None:
    found = [name for name, _, text in SOURCES if word in text]
    assert not found, found
