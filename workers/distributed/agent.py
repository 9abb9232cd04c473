"""An agent: joins its group, loads the model of one rank, and computes its share of each batch."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protocol.group import Graph, Outcome, Predict, TensorForm
from telemetry.log import get_logger
from workers.backends.base import Array, BackendError, LoadedModel, TensorSpec
from workers.distributed.agent_link import AgentLink
from workers.distributed.agent_session import AgentSession
from workers.launch import BACKENDS, decode_key
from workers.servable.declarations import ModelDeclaration
from workers.stages.user_code import Raised, error_text, run_user_code

log = get_logger("WORKER")

EXIT_BOOT_FAILED = 3

Report = Callable[[dict[str, Any]], None]


def run_agent(document: Mapping[str, Any], report: Report, end: Callable[[int], None]) -> int:
    """Serve one rank until its group is over; then `end` is called. Returns only if it cannot.

    document: rank, device_id, device_target, backend, files, dec_key, dec_mode, epoch, address.
    report: takes `{"state": "ready"}`, once the worker knows the rank, or `"failed"`.
    """
    rank = document["rank"]
    try:
        model = _load(document)
    except BackendError as error:
        log.error("agent failed", rank=rank, error=str(error))
        report({"state": "failed", "error": str(error)})
        return EXIT_BOOT_FAILED
    address = document["address"]
    session = AgentSession(document["epoch"], rank, _signature(model), address, time.monotonic_ns())

    def on_end(reason: str) -> None:
        log.warning(reason, rank=rank, address=address)
        end(0)

    link = AgentLink(session, address, lambda: report({"state": "ready"}), on_end)
    while True:
        link.answer(_compute(model, link.batches.get()))


def run_scheduler() -> int:
    """Let the ranks of MindSpore find each other; returns when the last has left."""
    from workers.backends import mindspore_group

    try:
        mindspore_group.run_scheduler()
    except BackendError as error:
        log.error("scheduler failed", error=str(error))
        return EXIT_BOOT_FAILED
    return 0


def _load(document: Mapping[str, Any]) -> LoadedModel:
    module_name, class_name = BACKENDS[document["backend"]]
    backend = getattr(importlib.import_module(module_name), class_name)()
    device = backend.open_device(document["device_target"], document["device_id"])
    if document["backend"] == "mindspore":
        from workers.backends.mindspore_group import join_group

        join_group(device.target)
    files = tuple(document["files"])
    declaration = ModelDeclaration(";".join(files), files, "mindir", with_batch_dim=False)
    key = decode_key(document)
    loaded: LoadedModel = backend.load(declaration, Path("/"), key, document["dec_mode"])
    return loaded


def _signature(model: LoadedModel) -> tuple[Graph, ...]:
    return tuple(
        Graph(_forms(inputs), _forms(outputs))
        for inputs, outputs in zip(model.inputs, model.outputs, strict=True)
    )


def _forms(specs: tuple[TensorSpec, ...]) -> tuple[TensorForm, ...]:
    return tuple(TensorForm(*spec) for spec in specs)


def _compute(model: LoadedModel, batch: Predict) -> Outcome:
    arrays = [_aligned(array) for array in batch.arrays]
    outputs = run_user_code(lambda: model.predict(batch.subgraph, arrays))
    if isinstance(outputs, Raised):
        log.error("model failed", exc_info=outputs.error)
        return Outcome(batch.epoch, batch.number, error_text(outputs.error), ())
    results = tuple(np.asarray(output) for output in outputs) if batch.has_result else ()
    return Outcome(batch.epoch, batch.number, "", results)


def _aligned(array: Array) -> Array:
    """The same array where vector loads may read it; inside of a message it begins anywhere."""
    return array if array.flags.aligned and array.flags.writeable else array.copy()
