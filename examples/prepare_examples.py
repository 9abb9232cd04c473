"""Makes the servables of examples/README.md: `build/examples/{add,add_sub,matmul,lenet,resnet50}`.

    python -m examples.prepare_examples [NAME …] [--directory build/examples]

Models that are there are kept. All are made from fixed seeds and need no network; together they
take some seconds. As with the demo, a servable appears whole or not at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from examples.servable_files import make_servable
from workers.backends.mindspore_discovery import MindSporeMissingError, require_package


class Example(NamedTuple):
    """How the files of one servable are made.

    model_files: what is in its version directory. make_models: writes them into one.
    texts: gives the files beside `servable_config.py`, by name.
    """

    model_files: tuple[str, ...]
    make_models: Callable[[Path], object]
    texts: Callable[[], Mapping[str, str]] = dict


def prepare_examples(directory: Path, names: Sequence[str] | None = None) -> list[str]:
    """Make what is missing below `directory`.

    names: of EXAMPLES; None = all. Returns: the names of those whose models were made now.
    Raises: MindSporeMissingError, if models must be made.
    """
    return [
        name
        for name in (EXAMPLES if names is None else names)
        if make_servable(
            directory / name,
            EXAMPLES[name].model_files,
            EXAMPLES[name].make_models,
            EXAMPLES[name].texts(),
        )
    ]


# ---------------------------------------------------------------- models


def _make_add(version: Path) -> None:
    require_package()
    from examples.export_add import export_add

    export_add(version / "tensor_add.mindir")


def _make_add_sub(version: Path) -> None:
    require_package()
    from examples.export_add_sub import export_add_sub

    export_add_sub(version)


def _make_matmul(version: Path) -> None:
    require_package()
    from examples.export_matmul import export_matmul

    export_matmul(version)


def _make_lenet(version: Path) -> None:
    require_package()
    from examples.export_lenet import export_lenet

    export_lenet(version / "lenet.mindir")


def _make_resnet50(version: Path) -> None:
    require_package()
    from examples.export_resnet50 import export_resnet50

    export_resnet50(version / "resnet50.mindir")


def _resnet50_texts() -> dict[str, str]:
    # The net is untrained: its classes have numbers for names.
    return {"labels.txt": "".join(f"class {number}\n" for number in range(1000))}


EXAMPLES: dict[str, Example] = {
    "add": Example(("tensor_add.mindir",), _make_add),
    "add_sub": Example(("tensor_add.mindir", "tensor_sub.mindir"), _make_add_sub),
    "matmul": Example(("matmul_0.mindir", "matmul_1.mindir"), _make_matmul),
    "lenet": Example(("lenet.mindir",), _make_lenet),
    "resnet50": Example(("resnet50.mindir",), _make_resnet50, _resnet50_texts),
}


def main() -> int:
    """Prepare the examples; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the servables of examples/README.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EXAMPLES)}")
    parser.add_argument(
        "--directory", type=Path, default=Path("build/examples"), help="default: build/examples"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in EXAMPLES]
    if unknown:
        parser.error(f"there is no example {', '.join(unknown)}")
    try:
        made = prepare_examples(arguments.directory, arguments.names or None)
    except MindSporeMissingError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"made: {', '.join(made) or 'nothing, all is there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
