"""From Python to C by mypyc, from C to extensions by the C compiler of this machine."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from compiled.constants import with_final_constants
from compiled.manifest import LIBRARY, SUFFIX
from compiled.sources import closure, is_room, path_of

#: -O2 takes twice as long and gains 4 % (docs/decisions/0018-compiled-hot-path.md).
FLAGS = ("-c", "-O1", "-fPIC", "-fwrapv", "-DNDEBUG", "-w")

GROUP = LIBRARY.removesuffix("__mypyc")


class NotCompiledError(Exception):
    """Why there are no extensions, in one line."""


def c_compiler() -> list[str]:
    """The command of the C compiler: CC, what made this Python, or any other.

    Raises: NotCompiledError if there is none, or not what it needs, with the packages' names.
    """
    wishes = (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang")
    commands = [shlex.split(wish) for wish in wishes if wish]
    command = next((command for command in commands if shutil.which(command[0])), None)
    has_headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    if command is not None and has_headers:
        return command
    version = "{}.{}".format(*sys.version_info)
    packages = ["gcc", "libc6-dev"] if command is None else []
    packages += [] if has_headers else [f"python{version}-dev"]
    missing = "C compiler" if command is None else "Python.h"
    raise NotCompiledError(f"no {missing} here; Debian: sudo apt-get install {' '.join(packages)}")


def compile_modules(
    command: list[str], root: Path, modules: Sequence[str], directory: Path
) -> None:
    """Make the extensions of the modules in an empty directory. command: of the C compiler.

    Raises: NotCompiledError.
    """
    work = directory / "work"
    copies = _copy(root, closure(root, modules), work / "sources")
    extensions = _to_c(copies, [path_of(module) for module in modules], work)
    jobs = [(extension, file) for extension in extensions for file in extension.sources]
    # The longest first, so that no core is left with one at the end.
    jobs.sort(key=lambda job: -Path(job[1]).stat().st_size)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(lambda job: _to_object(command, work, *job), jobs))
    for extension in extensions:
        file = directory / (extension.name.replace(".", "/") + SUFFIX)
        file.parent.mkdir(parents=True, exist_ok=True)
        parts = [str(made) for made, job in zip(objects, jobs, strict=True) if job[0] is extension]
        _run([*command, "-shared", "-s", *parts, "-o", str(file)])
    shutil.rmtree(work)


def _copy(root: Path, paths: Iterable[str], copies: Path) -> Path:
    """The files as they are compiled, and the settings of mypy."""
    for path in paths:
        (copies / path).parent.mkdir(parents=True, exist_ok=True)
        source = "" if is_room(path) else (root / path).read_text()
        (copies / path).write_text(with_final_constants(source))
    shutil.copy(root / "pyproject.toml", copies)
    return copies


def _to_c(copies: Path, paths: Sequence[str], work: Path) -> list[Any]:
    """setuptools' extensions, with sources in C."""
    try:
        from mypyc.build import mypycify
    except ImportError:
        raise NotCompiledError("no mypy here; pip install mypy setuptools") from None
    said = io.StringIO()
    with (
        contextlib.chdir(copies),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            return list(
                mypycify(
                    [f"--cache-dir={work / 'mypy'}", *paths],
                    group_name=GROUP,
                    multi_file=True,
                    target_dir=str(work / "c"),
                )
            )
        except SystemExit:
            errors = [line for line in said.getvalue().splitlines() if "error:" in line]
    raise NotCompiledError(errors[0] if errors else "mypyc failed")


def _to_object(command: list[str], work: Path, extension: Any, file: str) -> Path:
    made = work / f"{extension.name}.{Path(file).stem}.o"
    places = [sysconfig.get_path("include"), *extension.include_dirs]
    includes = [f"-I{place}" for place in places]
    _run([*command, *FLAGS, *includes, file, "-o", str(made)])
    return made


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        raise NotCompiledError(f"{command[0]}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line]
        raise NotCompiledError(f"{command[0]} failed: {(lines or ['?'])[0]}") from error
