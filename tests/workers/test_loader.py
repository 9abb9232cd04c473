"""Which version directory runs, and how a servable is imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.servable.loader import import_servable, resolve_version, version_directory

ECHO = """
from workers.servable.registry import register_method

@register_method("y")
def echo(x):
    return x
"""


@pytest.fixture(autouse=True)
def _same_imports_afterwards() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


def make_versions(directory: Path, *names: str) -> None:
    for name in names:
        (directory / "add" / name).mkdir(parents=True)


def write_servable(directory: Path, name: str, config: str = ECHO, **files: str) -> None:
    servable = directory / name
    servable.mkdir(parents=True)
    (servable / "servable_config.py").write_text(config)
    for stem, content in files.items():
        (servable / f"{stem}.py").write_text(content)


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


# ---------------------------------------------------------------- versions


def test_version_zero_is_the_newest_directory_by_number(tmp_path: Path) -> None:
    make_versions(tmp_path, "1", "2", "10", "0", "v11", "12a", "-13")
    (tmp_path / "add" / "99").write_text("a file")
    assert resolve_version(tmp_path, "add", 0, has_models=True) == 10
    assert resolve_version(tmp_path, "add", 0, has_models=False) == 10


def test_a_zero_padded_directory_counts_and_is_found(tmp_path: Path) -> None:
    make_versions(tmp_path, "1", "007")
    assert resolve_version(tmp_path, "add", 0, has_models=True) == 7
    assert resolve_version(tmp_path, "add", 7, has_models=True) == 7
    assert version_directory(tmp_path, "add", 7) == tmp_path / "add" / "007"
    make_versions(tmp_path, "7")
    assert version_directory(tmp_path, "add", 7) == tmp_path / "add" / "7"


def test_a_servable_without_models_needs_no_directory(tmp_path: Path) -> None:
    assert resolve_version(tmp_path, "add", 0, has_models=False) == 1
    assert resolve_version(tmp_path, "add", 5, has_models=False) == 5
    assert version_directory(tmp_path, "add", 5) == tmp_path / "add" / "5"


def test_models_without_any_version_directory_do_not_start(tmp_path: Path) -> None:
    make_versions(tmp_path, "0")
    text = (
        "There is no valid version directory of models while there are models declared in "
        f"servable_config.py, servable directory: {tmp_path}, servable name: add"
    )
    with pytest.raises(RuntimeError, match=exactly(text)):
        resolve_version(tmp_path, "add", 0, has_models=True)


def test_a_missing_explicit_version_does_not_start(tmp_path: Path) -> None:
    make_versions(tmp_path, "1")
    text = (
        "Start servable failed: There is no specified version directory of models, specified "
        f"version number: 3, servable directory: '{tmp_path}', servable name: 'add'"
    )
    with pytest.raises(RuntimeError, match=exactly(text)):
        resolve_version(tmp_path, "add", 3, has_models=True)


# ---------------------------------------------------------------- import


def test_a_servable_is_imported_by_the_name_of_its_directory(tmp_path: Path) -> None:
    write_servable(tmp_path, "echo_servable")
    declaration = import_servable(tmp_path, "echo_servable")
    assert declaration.name == "echo_servable"
    assert list(declaration.methods) == ["echo"]


def test_spaces_in_paths_do_not_matter(tmp_path: Path) -> None:
    write_servable(tmp_path / "with space", "echo servable")
    assert import_servable(tmp_path / "with space", "echo servable").name == "echo servable"


def test_a_servable_imports_its_own_modules_and_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_servables.py").write_text("NAME = 'a'\n")
    config = (
        "from with_modules.own import OWN\nfrom .own import OWN as AGAIN\n"
        "from beside_servables import NAME\nassert (OWN, AGAIN, NAME) == ('b', 'b', 'a')\n" + ECHO
    )
    write_servable(tmp_path, "with_modules", config, own="OWN = 'b'\n")
    assert list(import_servable(tmp_path, "with_modules").methods) == ["echo"]


def test_a_servable_may_register_in_a_module_of_its_own(tmp_path: Path) -> None:
    write_servable(tmp_path, "in_parts", "from in_parts import methods\n", methods=ECHO)
    assert list(import_servable(tmp_path, "in_parts").methods) == ["echo"]


def test_a_linked_directory_is_served_under_the_name_of_the_link(tmp_path: Path) -> None:
    write_servable(tmp_path / "elsewhere", "real_name")
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere" / "real_name")
    declaration = import_servable(tmp_path, "linked")
    assert (declaration.name, list(declaration.methods)) == ("linked", ["echo"])


def test_an_installed_package_of_the_same_name_does_not_win(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages" / "shadowed"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    (installed / "servable_config.py").write_text("raise AssertionError('installed package')\n")
    sys.path.insert(0, str(tmp_path / "site-packages"))
    write_servable(tmp_path / "servables", "shadowed")
    assert list(import_servable(tmp_path / "servables", "shadowed").methods) == ["echo"]


@pytest.mark.parametrize("name", ["json", "ast"])
def test_a_module_that_is_loaded_already_stays_what_it_is(tmp_path: Path, name: str) -> None:
    loaded = __import__(name)
    search_path = getattr(loaded, "__path__", None)
    write_servable(tmp_path, name, f"from {name}.own import OWN\n" + ECHO, own="OWN = 1\n")
    try:
        assert list(import_servable(tmp_path, name).methods) == ["echo"]
        assert sys.modules[name] is loaded
    finally:
        if search_path is None:
            del loaded.__path__
        else:
            loaded.__path__ = search_path


def test_the_package_code_of_a_servable_runs(tmp_path: Path) -> None:
    config = "from has_init import READY\nassert READY\n" + ECHO
    write_servable(tmp_path, "has_init", config, __init__="READY = True\n")
    assert list(import_servable(tmp_path, "has_init").methods) == ["echo"]


def test_importing_a_name_again_runs_the_file_that_is_there_now(tmp_path: Path) -> None:
    write_servable(tmp_path / "old", "again", own="A = 1\n")
    write_servable(tmp_path / "new", "again", ECHO.replace("echo", "other"))
    assert list(import_servable(tmp_path / "old", "again").methods) == ["echo"]
    assert list(import_servable(tmp_path / "new", "again").methods) == ["other"]
    assert list(import_servable(tmp_path / "new", "again").methods) == ["other"]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("raise ValueError('broken')", "import bad.servable_config failed, broken"),
        ("raise SystemExit('bye')", "import bad.servable_config failed, bye"),
        (
            (
                "from workers.servable.registry import *\n"
                "register_method('y')(lambda x: add_stage(len, x, x, outputs_count=1))"
            ),
            (
                "import bad.servable_config failed, function len input args count 1 not match the "
                "count 2 registered in method"
            ),
        ),
        ("", "There is no method registered for servable"),
    ],
)
def test_a_failing_import_does_not_start(tmp_path: Path, config: str, text: str) -> None:
    write_servable(tmp_path, "bad", config)
    with pytest.raises(RuntimeError, match=exactly(text)):
        import_servable(tmp_path, "bad")


def test_a_long_start_error_is_told_in_full(tmp_path: Path) -> None:
    write_servable(tmp_path, "bad", "raise ValueError('ü' * 1000)\n")
    text = "import bad.servable_config failed, " + "ü" * 1000
    with pytest.raises(RuntimeError, match=exactly(text)):
        import_servable(tmp_path, "bad")


def test_a_servable_without_its_file_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "no_file").mkdir()
    text = "import no_file.servable_config failed, No module named 'no_file.servable_config'"
    with pytest.raises(RuntimeError, match=exactly(text)):
        import_servable(tmp_path, "no_file")
