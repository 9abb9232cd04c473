"""Where MindSpore is found, what its version says, and what the library path becomes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from workers.backends.base import BackendError
from workers.backends.mindspore_discovery import (
    NOT_FOUND_TEXT,
    LibraryPath,
    MindSporeMissingError,
    find_ascend_library,
    find_package,
    library_path,
    read_version,
    require_package,
    version_warning,
)
from workers.backends.mindspore_graph import check_device_options, ignored_device_options
from workers.servable.declarations import ModelDeclaration
from workers.servable.model_context import AscendDeviceInfo, Context, CPUDeviceInfo

ROOT = Path(__file__).resolve().parents[2]


def not_installed(_: str) -> None:
    return None


def broken(_: str) -> None:
    raise ValueError("mindspore.__spec__ is None")


def installed_at(path: Path) -> ModuleSpec:
    spec = ModuleSpec("mindspore", None, is_package=True)
    spec.submodule_search_locations = [str(path)]
    return spec


# ---------------------------------------------------------------- package


def test_the_package_is_where_the_import_system_would_look(tmp_path: Path) -> None:
    assert find_package(lambda _: installed_at(tmp_path)) == tmp_path
    assert require_package(lambda _: installed_at(tmp_path)) == tmp_path


def test_a_single_file_called_mindspore_is_not_the_package() -> None:
    assert find_package(lambda name: ModuleSpec(name, None)) is None


@pytest.mark.parametrize("find_spec", [not_installed, broken])
def test_a_missing_package_is_said_in_one_line_with_the_command_that_cures_it(
    find_spec: object,
) -> None:
    assert find_package(find_spec) is None  # type: ignore[arg-type]
    with pytest.raises(MindSporeMissingError) as missing:
        require_package(find_spec)  # type: ignore[arg-type]
    text = str(missing.value)
    assert text.startswith(f"MindSpore is not installed for {sys.executable}: ")
    assert f"`{sys.executable} -m pip install mindspore`" in text
    assert "\n" not in text


def test_looking_for_mindspore_does_not_import_it(tmp_path: Path) -> None:
    package = tmp_path / "mindspore"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    script = (
        "import sys; from workers.backends.mindspore_discovery import find_package; "
        "from workers.backends.mindspore_graph import MindSporeBackend; "
        "print(find_package(), 'mindspore' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{package} False\n"


# ---------------------------------------------------------------- version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("__version__ = '2.10.0'\n", "2.10.0"),
        ('__version__="2.0.0rc1"', "2.0.0rc1"),
        ("# a comment\n__version__ = '2.10.0'\n", None),
        ("", None),
    ],
)
def test_the_version_is_in_the_first_line(tmp_path: Path, text: str, version: str | None) -> None:
    (tmp_path / "version.py").write_text(text)
    assert read_version(tmp_path) == version


def test_an_unreadable_version_is_none(tmp_path: Path) -> None:
    assert read_version(tmp_path) is None
    (tmp_path / "version.py").write_bytes(b"\xff\xfe\xff")
    assert read_version(tmp_path) is None


@pytest.mark.parametrize(
    ("mindspore", "serving", "warning"),
    [
        ("2.0.0", "2.0.2", None),
        ("2.0.0rc1", "2.0.2", None),
        (
            "2.10.0",
            "2.0.2",
            (
                "MindSpore version 2.10.0 and MindSpore Serving version 2.0.2 are expected to be "
                "consistent. If not, there may be compatibility problems."
            ),
        ),
        (
            "1.2.0",
            "1.20.0",
            (
                "MindSpore version 1.2.0 and MindSpore Serving version 1.20.0 are expected to be "
                "consistent. If not, there may be compatibility problems."
            ),
        ),
        (None, "2.0.2", "Get MindSpore version failed"),
        ("2.0.0", None, "Get MindSpore Serving version failed"),
    ],
)
def test_versions_fit_when_their_first_two_components_are_equal(
    mindspore: str | None, serving: str | None, warning: str | None
) -> None:
    assert version_warning(mindspore, serving) == warning


# ---------------------------------------------------------------- library path


def test_mindspore_is_appended_and_ascend_prepended_to_the_library_path() -> None:
    assert library_path("/a:/b", Path("/ms"), Path("/cann/lib64")) == LibraryPath(
        "/cann/lib64:/a:/b:/ms/lib",
        "Update env LD_LIBRARY_PATH from '/a:/b' to '/cann/lib64:/a:/b:/ms/lib'",
    )


def test_an_unset_library_path_gets_no_empty_entry() -> None:
    # An empty entry would mean the current directory.
    assert library_path("", Path("/ms"), None).value == "/ms/lib"


def test_what_is_listed_stays_where_it_is() -> None:
    current = "/ms/lib:/a:/cann/lib64"
    unchanged = LibraryPath(current, None)
    assert library_path(current, Path("/ms"), Path("/cann/lib64")) == unchanged


def test_without_mindspore_the_library_path_stays_and_says_so() -> None:
    assert library_path("/a", None, None) == LibraryPath("/a", NOT_FOUND_TEXT)


def test_the_first_installed_ascend_package_wins(tmp_path: Path) -> None:
    assert find_ascend_library(tmp_path) is None
    (tmp_path / "latest" / "lib64").mkdir(parents=True)
    assert find_ascend_library(tmp_path) == tmp_path / "latest" / "lib64"
    (tmp_path / "ascend-toolkit" / "latest" / "lib64").mkdir(parents=True)
    assert find_ascend_library(tmp_path) == tmp_path / "ascend-toolkit" / "latest" / "lib64"
    (tmp_path / "nnae" / "latest").mkdir(parents=True)  # no lib64: not installed
    assert find_ascend_library(tmp_path) == tmp_path / "ascend-toolkit" / "latest" / "lib64"


# ---------------------------------------------------------------- options of a model


def model(*infos: AscendDeviceInfo | CPUDeviceInfo) -> ModelDeclaration:
    context = Context()
    for info in infos:
        context.append_device_info(info)
    return ModelDeclaration("m.mindir", ("m.mindir",), "mindir", context=context)


def test_the_options_of_the_target_in_use_apply() -> None:
    declared = model(AscendDeviceInfo(precision_mode="force_fp16"), CPUDeviceInfo())
    assert check_device_options(declared, "Ascend") == {"precision_mode": "force_fp16"}
    assert check_device_options(declared, "CPU") == {}


@pytest.mark.parametrize(
    ("target", "options", "ignored"),
    [
        ("Ascend", {"precision_mode": "force_fp16", "input_format": "NCHW"}, ["input_format"]),
        ("Ascend", {"op_select_impl_mode": "high_precision"}, ["op_select_impl_mode"]),
        ("CPU", {"precision_mode": "fp16"}, ["precision_mode"]),
        ("GPU", {"precision_mode": "fp16"}, ["precision_mode"]),
        ("CPU", {"precision_mode": "origin"}, []),
        ("CPU", {}, []),
    ],
)
def test_options_without_effect_are_found(
    target: str, options: dict[str, str], ignored: list[str]
) -> None:
    assert list(ignored_device_options(options, target)) == ignored


def test_options_that_would_change_what_a_model_takes_are_refused_on_ascend_only() -> None:
    declared = model(AscendDeviceInfo(output_type="FP16", insert_op_cfg_path="aipp.cfg"))
    assert check_device_options(declared, "CPU") == {}
    with pytest.raises(BackendError) as refused:
        check_device_options(declared, "Ascend")
    assert str(refused.value) == (
        "AscendDeviceInfo insert_op_cfg_path, output_type of model m.mindir cannot be applied: "
        "MindIR graphs are not converted to OM"
    )
