"""A backend that computes with numpy what a JSON model file says, and fails when it says so.

For tests, demonstrations and measurements without an inference library. Each model file is one
subgraph:

    {"inputs":  [{"name": "x1", "dtype": "float32", "shape": [2, 2]}, …],
     "outputs": [{"name": "y", "dtype": "float32", "shape": [2, 2]}],
     "op": "add",                       add, multiply, identity, scale, matmul
     "factor": 2.0,                     of scale, default 1
     "dec_key": "base64", "dec_mode": "AES-GCM",      loads with this key and mode only
     "delay_ms": 5, "delay_per_item_ms": 1,
     "faults": [{"when_first_value": 13, "do": "raise"}]}
                                       raise, runtime_error, value_error, memory_error, exit,
                                       segfault, hang

A fault strikes when the first input of any instance of the batch begins with its value. -1 in a
shape is a dimension known only at run time. The device is a name, or a script (`scripted_device`).
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from workers.backends.base import BackendError, DeviceReport, TensorSpec
from workers.backends.scripted_device import open_device
from workers.servable.declarations import ModelDeclaration

Array = npt.NDArray[Any]

#: The status with which a process ends at the fault "exit".
FAULT_EXIT_CODE = 86


class _Graph(NamedTuple):
    """One model file, read."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    op: Op
    factor: float
    delay_ms: float
    delay_per_item_ms: float
    faults: dict[float, Callable[[], None]]


class NumpyBackend:
    """Loads scripted models. sleep: waits the scripted delays, in seconds."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep

    def open_device(self, target: str | None, device_id: int) -> DeviceReport:
        """Open the device that was asked for, CPU if any will do; see `scripted_device`.

        Raises: BackendError if its script says so.
        """
        return open_device(target or "CPU", device_id)

    def load(
        self, model: ModelDeclaration, version_directory: Path, dec_key: bytes | None, dec_mode: str
    ) -> NumpyModel:
        """Read the model files. Raises BackendError if one cannot be read or has another key."""
        graphs = [_read_graph(version_directory / file, dec_key, dec_mode) for file in model.files]
        return NumpyModel(graphs, model, self._sleep)


class NumpyModel:
    """A scripted model; the `LoadedModel` of this backend."""

    def __init__(
        self, graphs: Sequence[_Graph], model: ModelDeclaration, sleep: Callable[[float], None]
    ) -> None:
        self._graphs = graphs
        self._model = model
        self._sleep = sleep
        self.inputs = tuple(graph.inputs for graph in graphs)
        self.outputs = tuple(graph.outputs for graph in graphs)

    def predict(self, subgraph: int, arrays: Sequence[Array]) -> list[Array]:
        """Wait the scripted delay, strike if a fault says so, and compute. Raises BackendError."""
        graph = self._graphs[subgraph]
        items = self._items(arrays)
        delay_ms = graph.delay_ms + graph.delay_per_item_ms * len(items)
        if delay_ms > 0:
            self._sleep(delay_ms / 1000)
        if graph.faults and items.size:
            for first_value in items[:, 0].tolist():
                if first_value in graph.faults:
                    graph.faults[first_value]()
        try:
            results = graph.op(arrays, graph.factor)
        except ValueError as error:
            raise BackendError(f"scripted model cannot compute: {error}") from error
        if len(results) != len(graph.outputs):
            raise BackendError(f"op gives {len(results)} outputs, not {len(graph.outputs)}")
        # np.array copies: an output never shares memory with an input.
        return [
            np.array(result, dtype=spec.dtype, order="C")
            for result, spec in zip(results, graph.outputs, strict=True)
        ]

    def _items(self, arrays: Sequence[Array]) -> Array:
        """The first input that counts instances, one row for each; else one row."""
        if self._model.with_batch_dim:
            for number, array in enumerate(arrays):
                if number not in self._model.without_batch_dim_inputs:
                    return array.reshape(len(array), -1)
        return arrays[0].reshape(1, -1)


# ---------------------------------------------------------------- model files


def _read_graph(path: Path, dec_key: bytes | None, dec_mode: str) -> _Graph:
    try:
        script = json.loads(path.read_bytes())
        if "dec_key" in script:
            wanted = (base64.b64decode(script["dec_key"]), script.get("dec_mode", "AES-GCM"))
            if (dec_key, dec_mode) != wanted:
                raise BackendError(f"model file '{path}' cannot be decrypted with this dec_key")
        return _Graph(
            inputs=tuple(_read_spec(spec) for spec in script["inputs"]),
            outputs=tuple(_read_spec(spec) for spec in script["outputs"]),
            op=_OPS[script["op"]],
            factor=float(script.get("factor", 1)),
            delay_ms=float(script.get("delay_ms", 0)),
            delay_per_item_ms=float(script.get("delay_per_item_ms", 0)),
            faults={
                fault["when_first_value"]: _FAULTS[fault["do"]]
                for fault in script.get("faults", ())
            },
        )
    except OSError as error:
        raise BackendError(f"model file '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackendError(f"model file '{path}' is not a scripted model: {error!r}") from error


def _read_spec(spec: dict[str, Any]) -> TensorSpec:
    return TensorSpec(spec["name"], np.dtype(spec["dtype"]), tuple(map(int, spec["shape"])))


# ---------------------------------------------------------------- ops

Op = Callable[[Sequence[Array], float], list[Any]]


def _add(arrays: Sequence[Array], _factor: float) -> list[Any]:
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return [total]


def _multiply(arrays: Sequence[Array], _factor: float) -> list[Any]:
    product = arrays[0]
    for array in arrays[1:]:
        product = product * array
    return [product]


def _identity(arrays: Sequence[Array], _factor: float) -> list[Any]:
    return list(arrays)


def _scale(arrays: Sequence[Array], factor: float) -> list[Any]:
    return [array * factor for array in arrays]


def _matmul(arrays: Sequence[Array], _factor: float) -> list[Any]:
    return [np.matmul(arrays[0], arrays[1])]


_OPS: dict[str, Op] = {
    "add": _add,
    "multiply": _multiply,
    "identity": _identity,
    "scale": _scale,
    "matmul": _matmul,
}


# ---------------------------------------------------------------- faults


def _raise() -> None:
    raise BackendError("scripted fault")


def _exit() -> None:
    os._exit(FAULT_EXIT_CODE)


def _segfault() -> None:
    ctypes.string_at(0)


def _hang() -> None:
    while True:  # as a device that never answers, with the GIL released
        time.sleep(3600)


def _raise_other(error: type[Exception]) -> None:
    """What no backend should let out; a model's own code may."""
    raise error("scripted fault")


_FAULTS: dict[str, Callable[[], None]] = {
    "raise": _raise,
    "runtime_error": partial(_raise_other, RuntimeError),
    "value_error": partial(_raise_other, ValueError),
    "memory_error": partial(_raise_other, MemoryError),
    "exit": _exit,
    "segfault": _segfault,
    "hang": _hang,
}
