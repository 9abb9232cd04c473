"""`distributed.declare_servable`: what it declares, and what it refuses in which words."""

from __future__ import annotations

from typing import Any

import pytest

from mindspore_serving.server import distributed
from mindspore_serving.worker import distributed as old_distributed
from workers.servable.declarations import GroupDeclaration, ModelDeclaration, ServableDeclaration
from workers.servable.registry import add_stage, collecting, declare_model, register_method

INT, STR = "<class 'int'>", "<class 'str'>"


def declared(**arguments: Any) -> ServableDeclaration:
    """A servable with one distributed model."""
    with collecting("bert") as declaration:
        distributed.declare_servable(**({"rank_size": 8, "stage_size": 1} | arguments))
    return declaration


def test_a_distributed_model_is_known_by_the_name_of_its_servable() -> None:
    assert declared(without_batch_dim_inputs=[2, 1]).models == {
        "bert": ModelDeclaration(
            key="bert",
            files=(),
            format="mindir",
            with_batch_dim=True,
            without_batch_dim_inputs=(1, 2),
            group=GroupDeclaration(8, 1, False),
        )
    }


def test_it_is_a_stage_and_needs_no_version_directory() -> None:
    with collecting("bert") as declaration:
        model = distributed.declare_servable(2, 1)

        @register_method(output_names=["y"])
        def predict(x: Any) -> Any:
            return add_stage(model, x, outputs_count=1)

    (stage,) = declaration.methods["predict"].stages
    assert stage.tag == "Model 'bert'"
    assert not declaration.has_model_files


@pytest.mark.parametrize(("is_pipelined", "width"), [(False, 1), (True, 4)])
def test_stages_overlap_if_that_is_asked_for(is_pipelined: bool, width: int) -> None:
    declaration = declared(rank_size=32, stage_size=4, enable_pipeline_infer=is_pipelined)
    assert declaration.device_width == width


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"with_batch_dim": 1}, f"Parameter 'with_batch_dim' should be bool, but actually {INT}"),
        (
            {"enable_pipeline_infer": "yes"},
            f"Parameter 'enable_pipeline_infer' should be bool, but actually {STR}",
        ),
        (
            {"without_batch_dim_inputs": -1},
            "The item value '-1' in parameter 'without_batch_dim_inputs' should be >= 0",
        ),
        ({"rank_size": "8"}, f"Parameter 'rank_size' should be int, but actually {STR}"),
        ({"rank_size": 0}, "Parameter 'rank_size' should be >= 1"),
        ({"stage_size": 0}, "Parameter 'stage_size' should be >= 1"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        declared(**arguments)
    assert str(caught.value) == text


def test_a_servable_is_distributed_or_local_and_distributed_once() -> None:
    def distribute() -> object:
        return distributed.declare_servable(2, 1)

    def declare() -> object:
        return declare_model("a.mindir", "MindIR")

    for first, second, text in (
        (
            distribute,
            declare,
            "Declare model failed, servable has already been declared as distributed servable",
        ),
        (
            declare,
            distribute,
            (
                "Declare distributed model failed, servable has already been declared as local "
                "servable"
            ),
        ),
        (
            distribute,
            distribute,
            (
                "Declare distributed model failed, servable is repeatedly been declared as "
                "distributed servable"
            ),
        ),
    ):
        with collecting("bert"):
            first()
            with pytest.raises(RuntimeError) as caught:
                second()
            assert str(caught.value) == text


def test_the_name_of_release_1_2_declares_the_same_and_warns() -> None:
    with collecting("bert") as declaration, pytest.warns(FutureWarning) as warned:
        old_distributed.declare_distributed_servable(8, 1, False)
    assert declaration.models == declared(with_batch_dim=False).models
    assert str(warned[0].message) == (
        "'mindspore_serving.worker.distributed.declare_distributed_servable' is deprecated from "
        "version 1.3.0 and will be removed in a future version, use "
        "'mindspore_serving.server.distributed.declare_servable' instead."
    )
