"""Makes the servables of the demo: `build/servables/{add,digits}` and sample pictures.

    python -m examples.prepare_demo [--directory build]

A model that is there is kept, so only the first run trains (about 20 s on two cores). Everything
is written aside and renamed into place: a server, or a second run at the same time, sees a whole
servable or none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from examples.servable_files import aside, make_servable, rename_unless_there
from workers.backends.mindspore_discovery import MindSporeMissingError, require_package


def prepare_demo(
    directory: Path, makers: dict[str, tuple[str, Callable[[Path], object]]] | None = None
) -> list[str]:
    """Make what is missing below `directory`.

    makers: for each servable its model file and the function that writes it; None = the demo's.
    Returns: the names of the servables whose model was made now.
    Raises: MindSporeMissingError, if a model must be made; ImportError without scikit-learn.
    """
    return [
        name
        for name, (model_file, make_model) in (makers or MAKERS).items()
        if make_servable(
            directory / "servables" / name,
            [model_file],
            lambda version, file=model_file, make=make_model: make(version / file),
        )
    ]


def prepare_samples(directory: Path) -> Path:
    """Make the directory of sample pictures, `digit_0.png` to `digit_9.png`; returns its path."""
    from examples.digits_dataset import write_samples

    samples = directory / "digits_samples"
    if not samples.is_dir():
        with aside(directory) as partial:
            write_samples(partial / samples.name)
            rename_unless_there(partial / samples.name, samples)
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
