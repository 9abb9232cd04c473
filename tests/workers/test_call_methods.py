"""Hidden methods: a subgraph of a model as a method of its own."""

from tests.workers.models import FakeModel, floats, run_method, runner, tensor
from workers.servable.call_methods import call_method
from workers.servable.declarations import ModelDeclaration, ServableDeclaration
from workers.stages.executor import Executor


def test_a_hidden_method_has_numbered_inputs_and_outputs() -> None:
    method = call_method("a.mindir;b.mindir", 1, 2, 3)
    assert method is not None
    assert method.name == "@call_a.mindir;b.mindir_1"
    assert method.inputs == ("x0", "x1")
    assert method.outputs == ("y0", "y1", "y2")
    assert not method.has_python


def test_a_name_that_no_head_can_carry_makes_no_method() -> None:
    assert call_method("m" * 247, 0, 1, 1) is not None
    assert call_method("m" * 248, 0, 1, 1) is None


def test_a_hidden_method_runs_its_own_subgraph() -> None:
    model = FakeModel(
        [[tensor(-1, 1)], [tensor(-1, 2), tensor(-1, 2)]], [[tensor(-1, 1)], [tensor(-1, 2)]]
    )
    declaration = ServableDeclaration("s")
    declaration.models["m.mindir"] = ModelDeclaration("m.mindir", ("m.mindir",), "mindir")
    for subgraph, inputs_count in enumerate((1, 2)):
        method = call_method("m.mindir", subgraph, inputs_count, 1)
        assert method is not None
        declaration.methods[method.name] = method
    executor = Executor(declaration, {"m.mindir": runner(model, [1, 4])})
    results = run_method(
        executor, "@call_m.mindir_1", [(floats(1, 2), floats(10, 20)), (floats(3, 4), floats(0, 0))]
    )
    assert [result[0].tolist() for result in results] == [[11, 22], [3, 4]]  # type: ignore[union-attr]
    assert [subgraph for subgraph, _ in model.runs] == [1]
