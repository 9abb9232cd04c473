"""What is compiled is used if it is of today's sources, and never otherwise. Compiles nothing."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compiled import ALWAYS, NEVER, ROOT, SWITCH
from compiled.__main__ import main
from compiled.compiler import NotCompiledError, c_compiler
from compiled.constants import with_final_constants
from compiled.finder import Finder
from compiled.manifest import (
    INTERPRETER,
    LIBRARY,
    Manifest,
    extension,
    hashes,
    home,
    read,
    why_not_usable,
    write,
)
from compiled.modules import MODULES
from compiled.sources import closure, path_of

ROOMS = ("protocol", "telemetry", "broker", "workers", "gateway", "mindbus", "mindspore_serving")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout with one room, whose module `twin` was "compiled" into a file of nonsense."""
    shutil.copytree(ROOT / "compiled", tmp_path / "compiled")
    room = tmp_path / "room"
    room.mkdir()
    (room / "__init__.py").write_text("import compiled\n\ncompiled.use()\n")
    (room / "twin.py").write_text("ANSWER = 42\n")
    manifest = Manifest(
        INTERPRETER, "made-1", ("room.twin",), hashes(tmp_path, closure(tmp_path, ("room.twin",)))
    )
    for module in (LIBRARY, "room.twin"):
        file = extension(tmp_path, manifest, module)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"this is no extension")
    write(tmp_path, manifest)
    return tmp_path


def known(place: Path) -> Manifest:
    manifest = read(place)
    assert manifest is not None
    return manifest


def imported(place: Path, wish: str | None = None) -> str:
    """What a process says that imports the module; "42" if it has got the pure one."""
    environment = {name: text for name, text in os.environ.items() if name != SWITCH}
    if wish is not None:
        environment[SWITCH] = wish
    process = subprocess.run(
        [sys.executable, "-c", "from room.twin import ANSWER; print(ANSWER)"],
        cwd=place,
        env=environment | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return (process.stdout or process.stderr.splitlines()[-1]).strip()


# ---------------------------------------------------------------- never a stale one


def test_what_is_of_todays_sources_is_used(place: Path) -> None:
    assert why_not_usable(place, known(place)) is None
    file = extension(place, known(place), "room.twin")
    assert imported(place).startswith(f"ImportError: {file}: ")  # nonsense, but it was asked


def test_an_edited_source_runs_itself(place: Path) -> None:
    file = place / "room" / "twin.py"
    times = file.stat()
    file.write_text("ANSWER = 24\n")  # as long as before, and as old
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert why_not_usable(place, known(place)) == "room/twin.py has changed since it was compiled"
    assert imported(place) == "24"
    file.write_text("ANSWER = 42\n")
    assert why_not_usable(place, known(place)) is None


def test_a_source_that_is_gone_makes_it_stale(place: Path) -> None:
    (place / "room" / "twin.py").unlink()
    assert why_not_usable(place, known(place)) == "room/twin.py is gone since it was compiled"


def test_another_interpreter_does_not_load_it(place: Path) -> None:
    write(place, known(place)._replace(interpreter="4.0"))
    assert imported(place) == "42"


def test_it_is_used_as_a_whole_or_not_at_all(place: Path) -> None:
    extension(place, known(place), LIBRARY).unlink()
    assert why_not_usable(place, known(place)) == f"the extension {LIBRARY} is gone"
    assert imported(place) == "42"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"interpreter": 1'])
def test_a_manifest_that_cannot_be_read_is_none(place: Path, text: str) -> None:
    (home(place) / "manifest.json").write_text(text)
    assert read(place) is None
    assert imported(place) == "42"


def test_who_asks_for_the_pure_modules_gets_them(place: Path) -> None:
    assert imported(place, NEVER) == "42"


def test_who_demands_the_compiled_ones_gets_no_others(place: Path) -> None:
    (place / "room" / "twin.py").write_text("ANSWER = 24\n")
    said = imported(place, ALWAYS)
    assert said == (
        "ImportError: MINDBUS_COMPILED=1, but room/twin.py has changed since it was compiled; "
        "run: python -m compiled"
    )


def test_only_modules_of_our_own_rooms_are_found(place: Path, tmp_path: Path) -> None:
    finder = Finder(place, known(place))
    found = finder.find_spec("room.twin", [str(place / "room")])
    assert found is not None
    assert found.origin == str(extension(place, known(place), "room.twin"))
    assert finder.find_spec("room.twin", [str(tmp_path / "elsewhere" / "room")]) is None
    assert finder.find_spec("room.other", [str(place / "room")]) is None
    assert finder.find_spec(LIBRARY) is not None


# ---------------------------------------------------------------- where nothing can be compiled


def test_without_a_compiler_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "gcc-of-nobody")
    with pytest.raises(NotCompiledError, match="no C compiler here; Debian: sudo apt-get install"):
        c_compiler()
    monkeypatch.delenv(SWITCH, raising=False)
    assert main(tmp_path) == 0
    said = capsys.readouterr().err
    assert said.startswith("the hot path stays pure Python, about half as fast: no C compiler")
    assert said.count("\n") == 1
    assert read(tmp_path) is None
    monkeypatch.setenv(SWITCH, ALWAYS)
    assert main(tmp_path) == 1
    monkeypatch.setenv(SWITCH, NEVER)
    assert main(tmp_path) == 0


# ---------------------------------------------------------------- what is compiled


def test_a_compilation_depends_on_all_that_its_modules_import(tmp_path: Path) -> None:
    for name, text in {
        "room/__init__.py": "",
        "room/a.py": "import os\nfrom room import b\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from room.c import C\n",
        "room/b.py": "def f():\n    import room.d\n",
        "room/c.py": "",
        "room/d.py": "",
        "room/e.py": "import room.a\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert closure(tmp_path, ("room.a",)) == [
        f"room/{name}.py" for name in ("__init__", "a", "b", "c", "d")
    ]


def test_constants_are_final_in_what_is_compiled_and_lines_stay_where_they_are() -> None:
    source = (
        '"""Ä."""\n\nfrom __future__ import annotations\n\nLIMIT = 5\n_É, OTHER = 1, 2\n'
        'NAMES: dict[str, int] = {"ä": 1}; LAST_ONE = 3\nT = int\nname = 4\nLATER: int\n'
        "class A:\n    INNER = 1\n"
    )
    assert with_final_constants(source) == (
        '"""Ä."""\n\nfrom __future__ import annotations; from typing import Final\n\n'
        "LIMIT: Final = 5\n_É, OTHER = 1, 2\n"
        'NAMES: Final[dict[str, int]] = {"ä": 1}; LAST_ONE: Final = 3\nT = int\nname = 4\n'
        "LATER: int\n"
        "class A:\n    INNER = 1\n"
    )


def test_what_is_to_be_compiled_is_there() -> None:
    assert [module for module in MODULES if not (ROOT / path_of(module)).is_file()] == []
    assert len(set(MODULES)) == len(MODULES)


def pure_sources() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            name = str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
            if name not in MODULES:
                yield name, ast.parse(path.read_bytes())


def test_no_pure_class_inherits_from_a_compiled_one() -> None:
    found = []
    for name, tree in pure_sources():
        origins = {
            alias.asname or alias.name: node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                found += [
                    f"{name}.{node.name}({base})"
                    for base in sorted(bases)
                    if origins.get(base.partition(".")[0]) in MODULES
                ]
    assert not found, f"compile these, too: {found}"


@pytest.mark.parametrize("module", MODULES)
def test_fields_of_a_named_tuple_name_classes_that_stand_above_it(module: str) -> None:
    tree = ast.parse((ROOT / path_of(module)).read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for at, node in enumerate(classes):
        if "NamedTuple" in {ast.unparse(base) for base in node.bases}:
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            named = {
                each.id
                for field in fields
                for each in ast.walk(field.annotation)
                if isinstance(each, ast.Name)
            }
            assert not named & {below.name for below in classes[at:]}, (module, node.name)


@pytest.mark.process
def test_what_make_setup_has_compiled_is_what_a_process_uses() -> None:
    try:
        c_compiler()
    except NotCompiledError as error:
        pytest.skip(str(error))
    environment = {name: value for name, value in os.environ.items() if name != SWITCH}
    code = "import broker, compiled; print(compiled.kind())"
    asked = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    kind = asked.stdout.strip()
    if "has changed since" in kind:  # who edits and tests by hand
        pytest.skip(kind)
    assert kind == "compiled", f"{kind}; run: make compiled"
