"""The boot of a worker: from its launch document to a servable that is loaded and warm.

    open device ─► import servable ─► load models ─► warm up

An extra worker has no device: it is told what the device workers have loaded, and imports the
servable only.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from telemetry.log import get_logger
from workers.backends.base import Backend, BackendError, DeviceReport
from workers.bus import Signals
from workers.device_errors import BUSY, FAULT, is_busy
from workers.distributed.group_backend import GroupBackend
from workers.launch import BACKENDS, Launch
from workers.model_calls import ModelCalls
from workers.servable.call_methods import call_method
from workers.servable.declarations import ModelDeclaration, ServableDeclaration
from workers.servable.loader import import_servable, resolve_version, version_directory
from workers.stages.checked_model import CheckedModel, ModelDescription, read_model_description
from workers.stages.executor import Executor
from workers.stages.model_runner import ModelRunner
from workers.stages.remote_model import RemoteModel

log = get_logger("WORKER")


class ProcessSignals(Signals, Protocol):
    """Signals that can be taken back from a library which installed its own handlers."""

    def install(self) -> None:
        """Handle SIGTERM and SIGINT, from the main thread."""

    def serve(self) -> None:
        """From now on the bus reads them; before, a signal ends the process."""

    def end(self, code: int) -> None:
        """End the process at once, from any thread."""


class BootError(Exception):
    """The servable cannot be served; the text is for the person who started it.

    device: BUSY or FAULT (`workers.device_errors`) where the device is the cause, else None.
    """

    def __init__(self, text: str, device: str | None = None) -> None:
        super().__init__(text)
        self.device = device


class Servable(NamedTuple):
    """What a boot has made: a servable version, loaded and warm, on its device.

    model_calls: of an extra worker, where its models are. backend: what has loaded the models.
    """

    declaration: ServableDeclaration
    models: Mapping[str, CheckedModel]
    executor: Executor
    device: DeviceReport
    model_calls: ModelCalls | None = None
    backend: Backend | None = None


def boot(launch: Launch, signals: ProcessSignals | None = None) -> Servable:
    """Open the device, import the servable, load and warm its models. Raises BootError."""
    if launch.models is not None:
        return _boot_without_models(launch, launch.models)
    if launch.device_id is None and launch.device_target not in (None, "CPU"):
        return _boot_without_device(launch)
    backend = _make_backend(launch)
    device_id = launch.device_id or 0
    if launch.device_id is not None:
        os.environ["SERVING_DEVICE_ID"] = str(launch.device_id)
    try:
        device = backend.open_device(launch.device_target, device_id)
        declaration = None
    except BackendError as error:
        text = f"open device failed, device id: {device_id}, {error}"
        declaration = _declare_without_models(launch, text)
        device = DeviceReport("CPU", device_id)
    if signals is not None:
        signals.install()  # again: the library behind the device may have handlers of its own
    declaration = declaration or _declare(launch)
    _check_kind(declaration, backend)
    runners = {
        key: _load_model(launch, model, backend) for key, model in declaration.models.items()
    }
    _add_call_methods(declaration, runners)
    executor = _make_executor(declaration, runners)
    log.info("servable loaded", service=launch.service, device=f"{device.target}:{device.id}")
    return Servable(declaration, runners, executor, device, backend=backend)


def _boot_without_models(launch: Launch, described: Mapping[str, Any]) -> Servable:
    """Import the servable of an extra worker, whose models are elsewhere."""
    declaration = _declare(launch)
    calls = ModelCalls(launch.producers_address, launch.service.encode())
    try:
        models = {
            key: RemoteModel(model, _description(key, described), calls.send)
            for key, model in declaration.models.items()
        }
        executor = _make_executor(declaration, models)
    except RuntimeError as error:
        raise BootError(str(error)) from None
    log.info("servable imported", service=launch.service, models=len(models))
    return Servable(declaration, models, executor, DeviceReport("CPU", 0), calls)


def _description(key: str, described: Mapping[str, Any]) -> ModelDescription:
    if key not in described:
        raise BootError(f"model '{key}' is declared, but device workers have not loaded it")
    try:
        return read_model_description(described[key])
    except (KeyError, TypeError, ValueError) as error:
        raise BootError(f"what device workers say of model '{key}' is unclear: {error}") from None


def _boot_without_device(launch: Launch) -> Servable:
    """Import the servable of a worker that has no device, although models would need one."""
    declaration = _declare(launch)
    if declaration.models:
        raise BootError(
            f"Servable '{launch.servable_name}' has models declared by declare_model, but "
            "parameter 'device_ids' of ServableStartConfig is not set in Serving startup script "
            "when the device target is not CPU"
        )
    return Servable(declaration, {}, _make_executor(declaration, {}), DeviceReport("CPU", 0))


def _make_executor(
    declaration: ServableDeclaration, models: Mapping[str, CheckedModel]
) -> Executor:
    try:
        return Executor(declaration, models)
    except RuntimeError as error:
        raise BootError(str(error)) from None


def _add_call_methods(declaration: ServableDeclaration, models: Mapping[str, CheckedModel]) -> None:
    for key, model in models.items():
        for subgraph in range(model.subgraphs_count):
            method = call_method(key, subgraph, *model.counts(subgraph))
            if method is not None:
                declaration.methods.setdefault(method.name, method)


def _make_backend(launch: Launch) -> Backend:
    if launch.group is not None:
        return GroupBackend(launch.group, is_first=launch.generation == 1)
    module_name, class_name = BACKENDS[launch.backend]
    try:
        made: Backend = getattr(importlib.import_module(module_name), class_name)()
    except ImportError as error:
        raise BootError(f"backend {launch.backend} is not installed, {error}") from None
    return made


def _check_kind(declaration: ServableDeclaration, backend: Backend) -> None:
    """Raises BootError unless a distributed servable is started as one, and no other is."""
    if isinstance(backend, GroupBackend):
        try:
            backend.check(declaration)
        except BackendError as error:
            raise BootError(str(error)) from None
    elif any(model.group is not None for model in declaration.models.values()):
        raise BootError(
            f"Servable '{declaration.name}' is declared as distributed servable, it is started by "
            "distributed.start_servable"
        )


def _declare(launch: Launch) -> ServableDeclaration:
    directory, name = launch.servable_directory, launch.servable_name
    try:
        declaration = import_servable(directory, name)
        resolve_version(directory, name, launch.version_asked, declaration.has_model_files)
    except RuntimeError as error:
        if error.__cause__ is not None:  # where in the user's code: for the log only
            log.error("import of the servable failed", exc_info=error.__cause__)
        raise BootError(str(error)) from None
    return declaration


def _declare_without_models(launch: Launch, device_error: str) -> ServableDeclaration:
    """Import a servable that is all Python: it needs neither MindSpore nor a device but the CPU.

    Raises: BootError with `device_error` if it needs more.
    """
    if launch.device_target in (None, "CPU"):
        # An import that fails says nothing: perhaps for want of the same package.
        with contextlib.suppress(RuntimeError):
            declaration = import_servable(launch.servable_directory, launch.servable_name)
            if not declaration.models:
                return declaration
    raise BootError(device_error, BUSY if is_busy(device_error) else FAULT)


def _load_model(launch: Launch, model: ModelDeclaration, backend: Backend) -> ModelRunner:
    directory = version_directory(launch.servable_directory, launch.servable_name, launch.version)
    if model.config_file is not None:
        log.warning(
            "config_file is ignored, only MindSpore Lite would read it",
            model=model.key,
            config_file=model.config_file,
        )
    try:
        loaded = backend.load(model, directory, launch.dec_key, launch.dec_mode)
        runner = ModelRunner(model, loaded, launch.batch_sizes)
        runner.warm_up()
    except (BackendError, RuntimeError) as error:
        if model.group is not None:
            raise BootError(str(error)) from None
        # The first kernel opens an Ascend device: `set_device` only writes its number down.
        raise BootError(
            f"Raise failed: Load model failed, servable directory: '{launch.servable_directory}', "
            f"servable name: '{launch.servable_name}', model file: '[{', '.join(model.files)}]', "
            f"version number {launch.version},model context: {model.context or '{}'}, "
            f"load error details: {error}",
            BUSY if is_busy(str(error)) else None,
        ) from None
    return runner
