"""Writes a MindIR file wherever the user wants it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import mindspore
from mindspore import nn


def export_mindir(net: nn.Cell, inputs: tuple[mindspore.Tensor, ...], path: Path) -> None:
    """Export `net` to `path`, replacing what is there at once.

    inputs: example tensors; a dimension None of `mindspore.Tensor(shape=…)` stays dynamic.
    MindSpore refuses to export into a path with blanks or non-ASCII letters and makes its files
    unwritable, so the export goes to a temporary directory and is copied.
    """
    with tempfile.TemporaryDirectory(prefix="mindir-") as directory:
        exported = Path(directory) / "model.mindir"
        mindspore.export(net, *inputs, file_name=str(exported), file_format="MINDIR")
        partial = path.with_name(f".{path.name}.partial")
        shutil.copyfile(exported, partial)
        partial.replace(path)
