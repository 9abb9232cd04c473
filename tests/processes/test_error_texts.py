"""Request-time texts of MindSpore Serving (its behaviour map, section 4.3), over both doors.

Elsewhere over both doors: model calls of extra workers (test_extra_workers.py), ranks of a
distributed servable (test_distributed.py). No client can reach two of them: a wrong number of
model inputs, which is refused at the start, and a failure without a text (their tests are in
tests/workers/test_model_runner.py and tests/protocol). Both modes run the same tests: broker inside
the gateway, and broker as a process of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from protocol import ms_service_pb2 as pb
from protocol import status
from tests.processes.doors import GrpcDoor, RestDoor, tensor, text_tensor
from tests.processes.server_process import ServerProcess

pytestmark = pytest.mark.process

FLOATS = np.array([1, 2, 3, 4], np.float32)
SQUARE = np.ones((2, 2), np.float32)


def stage_text(method: str, tag: str, message: str) -> str:
    return (
        f"Call {tag} Failed, method: '{method}', stage index(begin with 1): 1, error msg: {message}"
    )


#: (method, inputs of one instance for gRPC, the same for REST or None, code, text)
ONE_INSTANCE: list[tuple[str, dict[str, Any], Any, int, str]] = [
    (
        "add",
        {"x1": SQUARE},
        {"x1": [[1.0, 1.0], [1.0, 1.0]]},
        status.MS_INVALID_INPUTS,
        "Cannot find input x2 in instance input , servable probe, method add",
    ),
    (
        "nothing",
        {"x": FLOATS},
        {"x": [1.0]},
        status.MS_INVALID_INPUTS,
        "Request servable(probe) method(nothing) , method is not available",
    ),
    (
        "checked",
        {"x": np.float32(-1)},
        {"x": -1.0},
        status.MS_SYSTEM_ERROR,
        stage_text("checked", "Function 'probe.positive'", "x is -1.0, not positive"),
    ),
    (
        "tagged",
        {"x": np.float32(-1)},
        {"x": -1.0},
        status.MS_SYSTEM_ERROR,
        stage_text("tagged", "Check of x", "x is -1.0, not positive"),
    ),
    (
        "wrong_count",
        {"x": np.float32(1)},
        {"x": 1.0},
        status.MS_SYSTEM_ERROR,
        stage_text(
            "wrong_count",
            "Function 'probe.two'",
            "The outputs number 2 of one instance returned by function 'probe.two' is not equal to "
            "the outputs number 1  registered in method wrong_count",
        ),
    ),
    (
        "wrong_type",
        {"x": np.float32(1)},
        {"x": 1.0},
        status.MS_SYSTEM_ERROR,
        stage_text(
            "wrong_type",
            "Function 'probe.unsendable'",
            "Push py task result cause exception: Get illegal result data with type "
            "<class 'numpy.ndarray'>",
        ),
    ),
    (
        "too_few",
        {"x": np.float32(1)},
        {"x": 1.0},
        status.MS_SYSTEM_ERROR,
        stage_text(
            "too_few",
            "Function 'probe.short'",
            "The number 0 of instances returned by function 'probe.short' is not equal to the "
            "number 1 of instances provided to this function.",
        ),
    ),
    (
        "exits",
        {"x": np.float32(1)},
        {"x": 1.0},
        status.MS_SYSTEM_ERROR,
        stage_text("exits", "Function 'probe.leave'", "3"),
    ),
    (
        "double",
        {"x": FLOATS[:3]},
        {"x": [1.0, 2.0, 3.0]},
        status.MS_INVALID_INPUTS,
        "Given model input 0 size 12 not match the size 16 defined in model",
    ),
    (
        "double",
        {"x": FLOATS.astype(np.int32)},
        {"x": [1, 2, 3, 4]},
        status.MS_INVALID_INPUTS,
        (
            "Given model input 0 data type kMSI_Int32 not match the data type kMSI_Float32 defined "
            "in model"
        ),
    ),
    (
        "broken",
        {"x": FLOATS * 13},
        {"x": [13.0, 1.0, 1.0, 1.0]},
        status.MS_FAILED,
        "Predict Failed",
    ),
    *(
        (
            "broken",
            {"x": FLOATS * first},
            {"x": [float(first), 1.0, 1.0, 1.0]},
            status.MS_SYSTEM_ERROR,
            f"Serving Error: {text}",
        )
        for first, text in (
            (14, "runtime error occurred: scripted fault"),
            (15, "exception occurred: scripted fault"),
            (16, "malloc memory failed"),
        )
    ),
    (
        "largest",
        {"x": np.array([True, False])},
        {"x": [True, False]},
        status.MS_FAILED,
        "Argmax not support data type kMSI_Bool",
    ),
]


@pytest.mark.parametrize(("method", "items", "json_items", "code", "text"), ONE_INSTANCE)
def test_an_instance_that_fails_is_answered_with_its_code_and_text(
    grpc_door: GrpcDoor,
    rest_door: RestDoor,
    method: str,
    items: dict[str, Any],
    json_items: Any,
    code: int,
    text: str,
) -> None:
    tensors = {name: tensor(np.asarray(value)) for name, value in items.items()}
    reply = grpc_door.predict(grpc_door.request(method, [tensors]))
    assert grpc_door.errors(reply) == [(code, text)]
    assert len(reply.instances) == 0
    assert reply.servable_spec.name == "probe"
    assert reply.servable_spec.method_name == method
    assert rest_door.infer(method, [json_items]) == {"error_msg": text}


def test_a_stage_that_breaks_its_contract_keeps_its_worker(
    server: ServerProcess, grpc_door: GrpcDoor
) -> None:
    before = [(slot["slot"], slot["pid"]) for slot in server.status()["slots"]]
    for method in ("wrong_count", "wrong_type", "too_few", "exits"):
        inputs = [{"x": tensor(np.asarray(np.float32(1)))}] * 2
        ((code, _),) = grpc_door.errors(grpc_door.predict(grpc_door.request(method, inputs)))
        assert code == status.MS_SYSTEM_ERROR
    assert [(slot["slot"], slot["pid"]) for slot in server.status()["slots"]] == before


@pytest.mark.parametrize(
    ("servable", "version", "shown"),
    [("other", 0, "servable(other)"), ("probe", 7, "servable(probe)")],
)
def test_an_unknown_servable_or_version_is_not_available(
    grpc_door: GrpcDoor, rest_door: RestDoor, servable: str, version: int, shown: str
) -> None:
    suffix = f"  version({version}) " if version else " "
    text = f"Request {shown} method(add){suffix}, servable is not available"
    request = grpc_door.request("add", [{"x": tensor(FLOATS)}], version, servable)
    reply = grpc_door.predict(request)
    assert grpc_door.errors(reply) == [(status.MS_INVALID_INPUTS, text)]
    middle = f"/version/{version}" if version else ""
    answer = rest_door.send('{"instances":[{"x":1}]}', f"/model/{servable}{middle}:add")
    assert answer == {"error_msg": text}


def test_a_request_is_checked_for_its_servable_then_its_method_then_its_inputs(
    grpc_door: GrpcDoor,
) -> None:
    wrong = [{"x": bad((4,), b"")}]
    replies = [
        grpc_door.predict(request)
        for request in (
            grpc_door.request("nothing", wrong, 7, "probe"),
            grpc_door.request("nothing", wrong, 1, "probe"),
            grpc_door.request("double", wrong, 1, "probe"),
        )
    ]
    assert [grpc_door.errors(reply)[0][1] for reply in replies] == [
        "Request servable(probe) method(nothing)  version(7) , servable is not available",
        "Request servable(probe) method(nothing)  version(1) , method is not available",
        "Instances input x check failed, detail: Tensor check failed: input data size 0 invalid",
    ]


@pytest.mark.parametrize("hidden", ["@call_nobody.json_0", "@call_double.json_1", "@call_"])
def test_a_hidden_method_of_a_model_that_is_not_there_is_no_method(
    grpc_door: GrpcDoor, hidden: str
) -> None:
    reply = grpc_door.predict(grpc_door.request(hidden, [{"x0": tensor(FLOATS)}]))
    text = f"Request servable(probe) method({hidden}) , method is not available"
    assert grpc_door.errors(reply) == [(status.MS_INVALID_INPUTS, text)]


def bad(dims: tuple[int, ...], data: bytes, dtype: int = 11) -> pb.Tensor:
    message = pb.Tensor(dtype=dtype, data=data)
    message.shape.dims.extend(dims)
    return message


def shared_memory() -> pb.Tensor:
    message = pb.Tensor(dtype=11)
    message.shape.dims.append(4)
    message.shm_data.memory_key = "key"
    message.shm_data.data_size = 16
    return message


@pytest.mark.parametrize(
    ("wrong", "detail"),
    [
        (bad((0, 3), b""), "Tensor check failed: input  shape [0, 3] invalid"),
        (bad((-1,), b""), "Tensor check failed: input  shape [-1] invalid"),
        (
            bad((4,), bytes(16), dtype=0),
            "Tensor check failed: input data type proto::MS_UNKNOWN invalid",
        ),
        (bad((4,), bytes(15)), "Tensor check failed: input data size 15 invalid"),
        (
            text_tensor(b"a", dims=(1, 1)),
            (
                "Instance tensor check failed: bytes or string type input  shape can only be (1,) "
                "or empty, but given shape is [1, 1]"
            ),
        ),
        (
            pb.Tensor(dtype=13, bytes_val=[b"a", b"b"]),
            "Instance tensor check failed: bytes or string type shape batch size can only be 1",
        ),
    ],
)
def test_a_bad_tensor_rejects_the_whole_request(
    grpc_door: GrpcDoor, wrong: pb.Tensor, detail: str
) -> None:
    request = grpc_door.request("double", [{"x": tensor(FLOATS)}, {"x": wrong}])
    reply = grpc_door.predict(request)
    text = f"Instances input x check failed, detail: {detail}"
    assert grpc_door.errors(reply) == [(status.MS_INVALID_INPUTS, text)]


def test_shared_memory_from_the_network_is_refused(grpc_door: GrpcDoor) -> None:
    reply = grpc_door.predict(grpc_door.request("double", [{"x": shared_memory()}]))
    ((code, text),) = grpc_door.errors(reply)
    assert code == status.MS_INVALID_INPUTS
    assert "shared memory" in text


def test_a_bad_tensor_over_rest_is_refused_like_over_grpc(rest_door: RestDoor) -> None:
    assert rest_door.infer("double", [{"x": [["a"]]}]) == {
        "error_msg": "Instances input x check failed, detail: Instance tensor check failed: bytes "
        "or string type input  shape can only be (1,) or empty, but given shape is [1, 1]"
    }


def test_zero_instances_are_answered_at_once(grpc_door: GrpcDoor, rest_door: RestDoor) -> None:
    text = "Instances count of request cannot be 0, servable: probe, method: double"
    reply = grpc_door.predict(grpc_door.request("double"))
    assert grpc_door.errors(reply) == [(status.MS_INVALID_INPUTS, text)]
    assert rest_door.infer("double", []) == {
        "error_msg": "Parser request failed, instances value is array type, but no value"
    }


def test_one_bad_instance_fails_alone_and_the_order_is_kept(
    grpc_door: GrpcDoor, rest_door: RestDoor
) -> None:
    values = [FLOATS, FLOATS * 13, FLOATS * 2]
    reply = grpc_door.predict(
        grpc_door.request("broken", [{"x": tensor(value)} for value in values])
    )
    assert grpc_door.errors(reply) == [(0, ""), (status.MS_FAILED, "Predict Failed"), (0, "")]
    assert [len(instance.items) for instance in reply.instances] == [1, 0, 1]
    answers = rest_door.infer("broken", [{"x": value.tolist()} for value in values])
    assert answers == {
        "instances": [
            {"y": [2.0, 4.0, 6.0, 8.0]},
            {"error_msg": "Predict Failed"},
            {"y": [4.0, 8.0, 12.0, 16.0]},
        ]
    }


def test_invalid_utf8_is_an_answer_and_harms_no_worker(
    grpc_door: GrpcDoor, rest_door: RestDoor
) -> None:
    reply = grpc_door.predict(grpc_door.request("copy", [{"x": text_tensor(b"\xff\xfe")}]))
    ((code, text),) = grpc_door.errors(reply)
    assert code == status.MS_INVALID_INPUTS
    assert "UTF-8" in text
    answer = rest_door.send(b'{"instances":[{"x":"\xff"}]}', "/model/probe:copy")
    assert answer["error_msg"].startswith("Illegal JSON format.")
    assert grpc_door.client("double").infer([{"x": FLOATS}])[0]["y"].tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("instance", "text"),
    [
        ({"x": {"b64": "AAA"}}, "'AAA' is illegal b64 encode string"),
        ({"x": {"b64": "====", "type": "int8", "shape": [3]}}, None),
        (
            {"x": {"b64": "AAAA", "type": "int32", "shape": [2]}},
            (
                "size is not matched, decode base64 size:3; Given info: type:int32; type size:4; "
                "element nums:2"
            ),
        ),
        ({"x": {"b64": "AAAA", "type": "nope"}}, "json object, specified type:'nope' is illegal"),
        ({"x": [[1, 2], [3]]}, "invalid json array: json size is 1, the dim 1 expected to be 2"),
        ({"x": [1, 2.5]}, "json array, elements type is not equal"),
        ({"x": None}, "json value is null, it is not supported"),
        ({"x": []}, "json array, shape is empty"),
    ],
)
def test_bad_json_values_are_answered_with_the_parsers_text(
    rest_door: RestDoor, instance: Any, text: str | None
) -> None:
    answer = rest_door.infer("copy", [instance])
    assert answer["error_msg"].startswith("Parser request failed, ")
    if text is not None:
        assert answer == {"error_msg": f"Parser request failed, {text}"}


def test_the_checks_of_rest_come_in_their_order(rest_door: RestDoor) -> None:
    url, wrong_url = "/model/probe:double", "/nothing"
    assert rest_door.send("{", url, verb="PUT") == {
        "error_msg": "http message only support POST right now"
    }
    assert rest_door.send("", wrong_url) == {"error_msg": "http message invalid"}
    assert rest_door.send("{", wrong_url)["error_msg"].startswith("Illegal JSON format.")
    assert rest_door.send("{}", wrong_url) == {
        "error_msg": "please check url, the keyword:[model] must contain."
    }
    assert rest_door.send("{}", "/model/other:m") == {
        "error_msg": "Parser request failed, key 'instances' expects to exist once, but actually 0 "
        "times"
    }
    assert rest_door.send('{"instances":{"x":1}}', "/model/other:m") == {
        "error_msg": "Request servable(other) method(m) , servable is not available"
    }
