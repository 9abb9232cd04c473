"""MindSpore computes: MindIR files as compiled graphs, on Ascend, GPU or CPU by the same code.

MindSpore is imported on first use, because it takes seconds and only workers may need it. What
was measured with MindSpore 2.10 on CPU, and is relied on here:

- A graph is compiled at the first call with each new shape (about 100 ms for a small net), and
  kept; the caller warms the batch sizes that it allows.
- `Tensor.from_numpy` shares the memory of an array (1 µs; `Tensor(array)` copies, 330 µs for
  4 MB). MindSpore holds the array until the next call of the same graph, but does not read it.
- An output has its own memory for as long as its array lives, also when the graph returns an
  input or a parameter; only a value that is returned twice is one array twice.
- A graph that was loaded and warmed on one thread may be run by others, one at a time: the values
  were the same over 2,000 runs on two threads in turn.
- Threads are left at MindSpore's choice, which follows the CPUs that the process may use. On two
  cores no setting was faster; two dispatch threads were 30 times slower.
- Each run of a graph puts MindSpore's own handler for SIGINT, which does nothing, into the place
  of the process's, and leaves it there. `predict` puts it back, from whatever thread it runs on.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from telemetry.log import get_logger
from workers.backends.base import Array, BackendError, DeviceReport, TensorSpec
from workers.backends.mindir import GraphSignature, MindirError, read_signature
from workers.backends.mindspore_discovery import MindSporeMissingError, require_package
from workers.device_errors import brief_text
from workers.servable.declarations import ModelDeclaration

log = get_logger("SERVING")

#: Device targets in the order in which they are tried when none is asked for.
PROBE_ORDER = ("Ascend", "GPU", "CPU")

#: What MindSpore raises for its own and for the model's failures.
MINDSPORE_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NameError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    OSError,
    ImportError,
)

#: Options of AscendDeviceInfo that change what a model takes or gives. They belong to the
#: conversion into an OM model, which this backend does not do, so they cannot be ignored.
_ASCEND_CONVERSION_OPTIONS = ("insert_op_cfg_path", "input_shape", "output_type")

#: Formats that may be declared and that MindSpore itself cannot run: what they are called in
#: `declare_model`, and what they would need.
_FOREIGN_FORMATS = {
    "mindir_lite": ("MindIR_Lite", "It needs MindSpore Lite, for which there is no backend"),
    "om": ("OM", "It needs the offline model runtime of CANN, for which there is no backend"),
}

#: oneDNN 3.10, inside MindSpore 2.10, computes 3x3 and 7x7 convolutions by its slow reference code
#: where the CPU has AVX-512. Unless the user has set the variable, it is told to use AVX2.
#: Figures: docs/decisions/0004-onednn-avx2.md.
ONEDNN_ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"
ONEDNN_ISA = "AVX2"

#: The C handler of a signal, below Python's; `signal.signal` works on the main thread only.
_read_handler = ctypes.pythonapi.PyOS_getsig
_read_handler.argtypes = (ctypes.c_int,)
_read_handler.restype = ctypes.c_void_p
_set_handler = ctypes.pythonapi.PyOS_setsig
_set_handler.argtypes = (ctypes.c_int, ctypes.c_void_p)
_set_handler.restype = ctypes.c_void_p


class MindSporeBackend:
    """MindSpore in this process, bound to one device for life."""

    def __init__(self) -> None:
        self._device: DeviceReport | None = None

    def open_device(self, target: str | None, device_id: int) -> DeviceReport:
        """Bind the process to a device; target None = the first available of `PROBE_ORDER`.

        Raises: BackendError if MindSpore is missing, does not support the target here, has no
            such device, or reports another one than was asked for.
        """
        assert self._device is None, f"this process is bound to {self._device}"
        mindspore = _import_mindspore()
        try:
            target = target or _first_available(mindspore)
            _check_supported(target, device_id)
            if target == "CPU":
                os.environ.setdefault(ONEDNN_ISA_VARIABLE, ONEDNN_ISA)
            mindspore.set_context(mode=mindspore.GRAPH_MODE)
            mindspore.set_device(target, device_id)
            _check_device_count(mindspore, target, device_id)
            current = mindspore.get_current_device()
        except MINDSPORE_ERRORS as error:
            raise BackendError(
                f"device {target} {device_id} cannot be opened: {_brief(error)}"
            ) from error
        report = DeviceReport(current.device_target, current.device_id)
        if report != (target, device_id):
            raise BackendError(
                f"device {target} {device_id} was asked for, "
                f"but MindSpore is on {report.target} {report.id}"
            )
        self._device = report
        return report

    def load(
        self, model: ModelDeclaration, version_directory: Path, dec_key: bytes | None, dec_mode: str
    ) -> LoadedGraphs:
        """Load every file of `model` as one subgraph; nothing is compiled before the first call.

        `model.config_file` and the thread options of `model.context` concern MindSpore Lite only.
        Raises: BackendError.
        """
        assert self._device is not None, "open_device comes first"
        if model.format in _FOREIGN_FORMATS:
            model_type, needed = _FOREIGN_FORMATS[model.format]
            raise BackendError(
                f"Not support device type {self._device.target} and model type {model_type}. "
                f"Current inference backend: MindSpore. {needed}: export the model as MindIR."
            )
        _apply_device_options(model, self._device.target)
        paths = [version_directory / file for file in model.files]
        try:
            signatures = [read_signature(path, dec_key, dec_mode) for path in paths]
        except MindirError as error:
            raise BackendError(str(error)) from None
        return LoadedGraphs(signatures, [_load_graph(path, dec_key, dec_mode) for path in paths])


class LoadedGraphs:
    """One graph per model file, ready to compute. Used by one thread at a time."""

    def __init__(self, signatures: Sequence[GraphSignature], graphs: Sequence[Any]) -> None:
        from mindspore import Tensor

        self._signatures = tuple(signatures)
        self._graphs = tuple(graphs)
        self._copy_in = Tensor
        self._share = Tensor.from_numpy

    @property
    def inputs(self) -> Sequence[tuple[TensorSpec, ...]]:
        """The inputs of each subgraph, in the order of the model files."""
        return [signature.inputs for signature in self._signatures]

    @property
    def outputs(self) -> Sequence[tuple[TensorSpec, ...]]:
        """The outputs of each subgraph, in the order of the model files."""
        return [signature.outputs for signature in self._signatures]

    def predict(self, subgraph: int, arrays: Sequence[Array]) -> Sequence[Array]:
        """Compute one batch on one subgraph; see `LoadedModel.predict`.

        A shape that was not seen before is compiled first, whatever the signature says of it:
        MindSpore does not compare shapes, the caller does.
        Raises: BackendError with MindSpore's own text.
        """
        graph = self._graphs[subgraph]
        handler = _read_handler(signal.SIGINT)
        try:
            result = graph(*[self._tensor(array) for array in arrays])
            outputs = [_array(leaf) for leaf in _flatten(result)]
        except MINDSPORE_ERRORS as error:
            raise BackendError(_brief(error)) from error
        finally:
            _set_handler(signal.SIGINT, handler)
        expected = len(self._signatures[subgraph].outputs)
        if len(outputs) != expected:
            raise BackendError(f"the model gave {len(outputs)} outputs, its file says {expected}")
        return outputs if expected == 1 else _unshared(outputs)

    def _tensor(self, array: Array) -> Any:
        # Kernels use vector loads; an array cut out of a message may start at any byte.
        return self._share(array) if array.flags.aligned else self._copy_in(array)


# ---------------------------------------------------------------- device


def _import_mindspore() -> Any:
    try:
        require_package()
        import mindspore
    except MindSporeMissingError as error:
        raise BackendError(str(error)) from None
    except MINDSPORE_ERRORS as error:
        raise BackendError(f"MindSpore cannot be imported: {_brief(error)}") from error
    return mindspore


def _device_module(mindspore: Any, target: str) -> Any:
    return getattr(mindspore.device_context, target.lower())


def _first_available(mindspore: Any) -> str:
    # The public `is_available` asks this too, and logs a page for each target that is missing.
    from mindspore._c_expression import MSContext

    context = MSContext.get_instance()
    for target in PROBE_ORDER:
        if context.is_pkg_support_device(target) and _has_device(mindspore, target):
            return target
    raise BackendError(f"MindSpore supports none of {', '.join(PROBE_ORDER)} on this machine")


def _check_supported(target: str, device_id: int) -> None:
    # `set_device` would find out, too, after a page of warnings, and tell why in a place where
    # nobody looks: behind its list of C++ frames.
    from mindspore._c_expression import MSContext

    context = MSContext.get_instance()
    supported = [name for name in PROBE_ORDER if context.is_pkg_support_device(name)]
    if target not in supported:
        lines = context.load_plugin_error().splitlines()
        causes = [line.strip() for line in lines if target.lower() in line.lower()]
        text = f"this MindSpore supports {', '.join(supported)} here, not {target}"
        raise BackendError(
            f"device {target} {device_id} cannot be opened: {'; '.join([text, *causes])}"
        )


def _has_device(mindspore: Any, target: str) -> bool:
    # The libraries of a device may be installed where there is none.
    try:
        count: int = _device_module(mindspore, target).device_count()
    except MINDSPORE_ERRORS:
        return False
    return count > 0


def _check_device_count(mindspore: Any, target: str, device_id: int) -> None:
    # `set_device` only writes the id down; the first kernel would fail much later. CPU ids are
    # names of slots, any number of them share the one CPU.
    if target == "CPU":
        return
    count = _device_module(mindspore, target).device_count()
    if device_id >= count:
        raise BackendError(f"device {target} {device_id} was asked for, there are {count}")


def check_device_options(model: ModelDeclaration, target: str) -> dict[str, str]:
    """What `Context` of a model says for this target, by option.

    Raises: BackendError for options that would change what the model takes or gives.
    """
    options = model.context.device_options(target) if model.context is not None else {}
    refused = [name for name in _ASCEND_CONVERSION_OPTIONS if name in options]
    if refused:
        raise BackendError(
            f"AscendDeviceInfo {', '.join(refused)} of model {model.key} cannot be applied: "
            "MindIR graphs are not converted to OM"
        )
    return options


def ignored_device_options(options: Mapping[str, str], target: str) -> dict[str, str]:
    """Those of the options that have no effect: only `precision_mode` of Ascend has one.

    `origin` of CPU and GPU is what happens anyway. `fp16` there, and the Ascend options that only
    tune the speed of an OM conversion, have no counterpart for compiled graphs.
    """
    effective = ("precision_mode",) if target == "Ascend" else ()
    return {
        name: value
        for name, value in options.items()
        if name not in effective and value != "origin"
    }


def _apply_device_options(model: ModelDeclaration, target: str) -> None:
    options = check_device_options(model, target)
    ignored = ignored_device_options(options, target)
    if ignored:
        log.warning(
            "device options have no effect on MindIR graphs",
            model=model.key,
            device=target,
            options=ignored,
        )
    if target != "Ascend" or "precision_mode" not in options:
        return
    from mindspore.device_context.ascend import op_precision

    try:
        op_precision.precision_mode(options["precision_mode"])
    except MINDSPORE_ERRORS as error:
        raise BackendError(f"precision_mode of {model.key}: {_brief(error)}") from error


# ---------------------------------------------------------------- graphs


def _load_graph(path: Path, dec_key: bytes | None, dec_mode: str) -> Any:
    import mindspore

    key = {} if dec_key is None else {"dec_key": dec_key, "dec_mode": dec_mode}
    try:
        return mindspore.nn.GraphCell(mindspore.load(str(path), **key))
    except MINDSPORE_ERRORS as error:
        raise BackendError(f"model file '{path}' cannot be loaded: {_brief(error)}") from error


def _flatten(result: Any) -> Iterator[Any]:
    """The leaves of a graph's result, in the order of `mindir.read_signature`."""
    if isinstance(result, tuple | list):
        for item in result:
            yield from _flatten(item)
    else:
        yield result


def _array(leaf: Any) -> Array:
    # A graph may return a Python number that was constant when it was exported.
    array: Array = leaf.asnumpy() if hasattr(leaf, "asnumpy") else np.asarray(leaf)
    return array


def _unshared(outputs: list[Array]) -> list[Array]:
    """Give each output its own memory, because the caller may write to it."""
    for index, output in enumerate(outputs):
        if any(np.may_share_memory(output, earlier) for earlier in outputs[:index]):
            outputs[index] = output.copy()
    return outputs


def _brief(error: BaseException) -> str:
    """An error's text without MindSpore's list of C++ frames, which the log has with the cause."""
    return brief_text(str(error)) or type(error).__name__
