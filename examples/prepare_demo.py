"""Makes the servables of the demo: `build/servables/{add,digits}` and sample pictures.

    python -m examples.prepare_demo [--directory build]

A model that is there is kept, so only the first run trains (about 20 s on two cores). Everything
is written aside and renamed into place: a server, or a second run at the same time, sees a whole
servable or none.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.backends.mindspore_discovery import MindSporeMissingError, require_package

#: The `servable_config.py` files, one directory per servable.
CONFIGS = Path(__file__).resolve().parent / "servables"

#: The one version of each model.
VERSION = "1"


def prepare_demo(
    directory: Path, makers: dict[str, tuple[str, Callable[[Path], object]]] | None = None
) -> list[str]:
    """Make what is missing below `directory`.

    makers: for each servable its model file and the function that writes it; None = the demo's.
    Returns: the names of the servables whose model was made now.
    Raises: MindSporeMissingError, if a model must be made; ImportError without scikit-learn.
    """
    servables = directory / "servables"
    made = []
    for name, (model_file, make_model) in (makers or MAKERS).items():
        servable = servables / name
        servable.mkdir(parents=True, exist_ok=True)
        if not (servable / VERSION / model_file).is_file():
            _make_version(servable, directory, model_file, make_model)
            made.append(name)
        # The config comes last: a directory without one is not yet a servable.
        _replace_if_other(CONFIGS / name / "servable_config.py", servable / "servable_config.py")
    return made


def prepare_samples(directory: Path) -> Path:
    """Make the directory of sample pictures, `digit_0.png` to `digit_9.png`; returns its path."""
    from examples.digits_dataset import write_samples

    samples = directory / "digits_samples"
    if not samples.is_dir():
        with _aside(directory) as partial:
            write_samples(partial / samples.name)
            _rename_unless_there(partial / samples.name, samples)
    return samples


# ---------------------------------------------------------------- models


def _make_add(path: Path) -> None:
    require_package()
    from examples.export_add import export_add

    export_add(path)


def _make_digits(path: Path) -> None:
    require_package()
    from examples.train_digits import train_digits

    print("training the model of the servable digits (once, about 20 s) …", flush=True)
    accuracy = train_digits(path)
    print(f"accuracy on pictures that were not used for training: {accuracy:.2%}", flush=True)


MAKERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "add": ("tensor_add.mindir", _make_add),
    "digits": ("digits.mindir", _make_digits),
}


# ---------------------------------------------------------------- files


def _make_version(
    servable: Path, directory: Path, model_file: str, make_model: Callable[[Path], object]
) -> None:
    with _aside(directory) as partial:
        version = partial / VERSION
        version.mkdir()
        make_model(version / model_file)
        if not _rename_unless_there(version, servable / VERSION):
            # Somebody else's version directory: another run's, whole, or a user's without ours.
            _replace_if_other(version / model_file, servable / VERSION / model_file)


@contextmanager
def _aside(directory: Path) -> Iterator[Path]:
    """A temporary directory on the file system of `directory`, gone afterwards."""
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename_unless_there(source: Path, target: Path) -> bool:
    """Rename a directory; False if a directory with content is at `target` already."""
    try:
        source.rename(target)
    except OSError:
        if target.is_dir():
            return False
        raise
    return True


def _replace_if_other(source: Path, target: Path) -> None:
    content = source.read_bytes()
    if target.is_file() and target.read_bytes() == content:
        return
    handle, partial = tempfile.mkstemp(prefix=".partial-", dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(partial).chmod(0o644)
    Path(partial).replace(target)


def main() -> int:
    """Prepare the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the servables of the demo.")
    parser.add_argument("--directory", type=Path, default=Path("build"), help="default: build")
    directory = parser.parse_args().directory
    try:
        prepare_demo(directory)
        prepare_samples(directory)
    except MindSporeMissingError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
