"""`declare_servable` of `mindspore_serving.server.distributed`, for a `servable_config.py`."""

from __future__ import annotations

from protocol.parameter_checks import check_bool, check_int, check_ints
from workers.servable.collector import current_collector
from workers.servable.declarations import GroupDeclaration, ModelDeclaration
from workers.servable.model_call import Model


def declare_servable(
    rank_size: int,
    stage_size: int,
    with_batch_dim: bool = True,
    without_batch_dim_inputs: int | list[int] | tuple[int, ...] | None = None,
    enable_pipeline_infer: bool = False,
) -> Model:
    """Declare the servable's one model, which is split over ranks; returns its handle.

    rank_size: processes that compute it together. stage_size: parts of the pipeline in which it is
        cut, of rank_size / stage_size ranks each.
    with_batch_dim, without_batch_dim_inputs: as of `register.declare_model`.
    enable_pipeline_infer: as many batches as there are stages may be under way at once.
    Raises: RuntimeError.
    """
    collector = current_collector("declare_servable")
    check_bool("with_batch_dim", with_batch_dim)
    check_bool("enable_pipeline_infer", enable_pipeline_infer)
    without = (
        check_ints("without_batch_dim_inputs", without_batch_dim_inputs, 0)
        if without_batch_dim_inputs is not None
        else ()
    )
    check_int("rank_size", rank_size, 1)
    check_int("stage_size", stage_size, 1)
    declared = collector.declaration.models
    if any(model.group is not None for model in declared.values()):
        raise RuntimeError(
            "Declare distributed model failed, servable is repeatedly been declared as "
            "distributed servable"
        )
    if declared:
        raise RuntimeError(
            "Declare distributed model failed, servable has already been declared as local servable"
        )
    key = collector.declaration.name
    declared[key] = ModelDeclaration(
        key=key,
        files=(),
        format="mindir",
        with_batch_dim=with_batch_dim,
        without_batch_dim_inputs=tuple(sorted(without)),
        group=GroupDeclaration(rank_size, stage_size, enable_pipeline_infer),
    )
    handle = Model(key)
    collector.handles.append(handle)
    return handle
