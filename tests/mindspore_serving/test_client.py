"""The client against a scripted gRPC server: results, failures of the call, parameters, TLS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mindspore_serving.client import Client, SSLConfig
from mindspore_serving.client.messages import fill_tensor
from protocol import ms_service_pb2 as ms_service
from protocol.limits import CLIENT_MESSAGE_BYTES_MAX
from tests.mindspore_serving.scripted_server import ScriptedServer


def _double(request: ms_service.PredictRequest, _: grpc.ServicerContext) -> ms_service.PredictReply:
    """y = 2·x for every instance; an instance without x fails alone."""
    reply = ms_service.PredictReply(servable_spec=request.servable_spec)
    errors = []
    for instance in request.instances:
        items = reply.instances.add().items
        if "x" in instance.items:
            x = np.frombuffer(instance.items["x"].data, np.int32)
            fill_tensor(items["y"], 2 * x.reshape(tuple(instance.items["x"].shape.dims)))
            errors.append(ms_service.ErrorMsg())
        else:
            errors.append(ms_service.ErrorMsg(error_code=2, error_msg=b"Cannot find input x"))
    if any(error.error_code for error in errors):
        reply.error_msg.extend(errors)
    return reply


def _aborting(code: grpc.StatusCode, details: str) -> Any:
    def script(_: ms_service.PredictRequest, context: grpc.ServicerContext) -> Any:
        context.abort(code, details)

    return script


def test_infer_gives_one_dict_per_instance_and_sends_what_it_was_made_with() -> None:
    x = np.array([[1, 2]], np.int32)
    with ScriptedServer(_double) as server, Client(server.address, "add", "m", 3) as client:
        result = client.infer([{"x": x}, {"x": np.array(5, np.int32)}])
        spec = server.requests[0].servable_spec
    assert (spec.name, spec.method_name, spec.version_number) == ("add", "m", 3)
    assert isinstance(result, list)
    assert [list(instance) for instance in result] == [["y"], ["y"]]
    np.testing.assert_array_equal(result[0]["y"], 2 * x)
    assert (result[1]["y"].shape, result[1]["y"].item()) == ((), 10)


def test_a_failed_instance_is_an_error_dict_in_its_place() -> None:
    x = np.zeros(1, np.int32)
    with ScriptedServer(_double) as server, Client(server.address, "add", "m") as client:
        result = client.infer([{"x": x}, {}, {"x": x}])
    assert isinstance(result, list)
    assert result[1] == {"error": "Cannot find input x"}
    assert [list(instance) for instance in result] == [["y"], ["error"], ["y"]]


def test_a_failed_request_is_one_error_dict() -> None:
    text = "Request servable(add) method(m) , servable is not available"

    def refuse(_: Any, __: Any) -> ms_service.PredictReply:
        reply = ms_service.PredictReply()
        reply.error_msg.add(error_code=2, error_msg=text.encode())
        return reply

    with ScriptedServer(refuse) as server, Client(server.address, "add", "m") as client:
        assert client.infer({"x": 1}) == {"error": text}
        assert client.infer_async({"x": 1}).result() == {"error": text}


def test_infer_async_gives_what_infer_gives() -> None:
    with ScriptedServer(_double) as server, Client(server.address, "add", "m") as client:
        replies = [client.infer_async({"x": np.int32(number)}) for number in range(4)]
        results = [reply.result() for reply in replies]
    assert [result[0]["y"].item() for result in results if isinstance(result, list)] == [0, 2, 4, 6]


def test_a_failed_call_is_printed_in_three_lines_and_returned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = _aborting(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
    with ScriptedServer(script) as server, Client(server.address, "add", "m") as client:
        result = client.infer({"x": 1})
    assert result == {"error": "Grpc Error, (8, 'resource exhausted'), too much"}
    assert capsys.readouterr().out == "too much\nRESOURCE_EXHAUSTED\n(8, 'resource exhausted')\n"


def test_a_message_over_the_servers_limit_is_resource_exhausted() -> None:
    with ScriptedServer(_double) as server, Client(server.address, "add", "m") as client:
        result = client.infer({"x": np.zeros(2 << 20, np.int8)})
    assert isinstance(result, dict)
    assert result["error"].startswith("Grpc Error, (8, 'resource exhausted'), ")
    assert "eceived message larger than max (" in result["error"]
    assert " vs. 1048576)" in result["error"]


def test_nobody_listening_is_unavailable() -> None:
    with ScriptedServer(_double) as server:
        address = server.address
    with Client(address, "add", "m") as client:
        result = client.infer({"x": 1})
        assert isinstance(result, dict)
        assert result["error"].startswith("Grpc Error, (14, 'unavailable'), ")


def test_a_failed_call_of_infer_async_raises_from_result() -> None:
    script = _aborting(grpc.StatusCode.UNAVAILABLE, "gone")
    with ScriptedServer(script) as server, Client(server.address, "add", "m") as client:
        reply = client.infer_async({"x": 1})
        with pytest.raises(grpc.RpcError) as raised:
            reply.result()
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


def test_instances_that_cannot_be_sent_raise_and_nothing_is_sent() -> None:
    with ScriptedServer(_double) as server, Client(server.address, "add", "m") as client:
        with pytest.raises(RuntimeError, match=r"^Not support value type <class 'list'>$"):
            client.infer({"x": [1]})
        with pytest.raises(RuntimeError, match=r"^instance should be a map$"):
            client.infer_async([[1]])
        assert server.requests == []


def test_a_call_has_no_deadline_and_a_failed_one_is_not_repeated() -> None:
    left_s: list[float | None] = []

    def fail(_: ms_service.PredictRequest, context: grpc.ServicerContext) -> Any:
        left_s.append(context.time_remaining())
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    with ScriptedServer(fail) as server, Client(server.address, "add", "m") as client:
        result = client.infer({"x": 1})
    assert result == {"error": "Grpc Error, (14, 'unavailable'), gone"}
    (left,) = left_s
    assert left is None or left > 86_400


def test_messages_up_to_512_mib_pass_the_client() -> None:
    assert CLIENT_MESSAGE_BYTES_MAX == 512 << 20

    def answer(request: ms_service.PredictRequest, _: grpc.ServicerContext) -> Any:
        reply = ms_service.PredictReply()
        fill_tensor(reply.instances.add().items["y"], np.ones(5 << 20, np.int8))
        return reply

    # grpcio alone refuses a reply of more than 4 MiB.
    with ScriptedServer(answer) as server, Client(server.address, "add", "m") as client:
        result = client.infer({"x": 1})
    assert isinstance(result, list)
    assert result[0]["y"].nbytes == 5 << 20


STR = "<class 'str'>"
INT = "<class 'int'>"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, "s", "m"), f"Parameter 'address' should be str, but actually {INT}"),
        (("", "s", "m"), "Parameter 'address' should not be empty str"),
        (("a:1", None, "m"), "Parameter 'servable_name' should be str, but actually "),
        (("a:1", "", "m"), "Parameter 'servable_name' should not be empty str"),
        (("a:1", "s", 1), f"Parameter 'method_name' should be str, but actually {INT}"),
        (("a:1", "s", ""), "Parameter 'method_name' should not be empty str"),
        (("a:1", "s", "m", "1"), f"Parameter 'version_number' should be int, but actually {STR}"),
        (("a:1", "s", "m", -1), "Parameter 'version_number' should be >= 0"),
        (("a:1", "s", "m", 0, "tls"), "The type of ssl_config should be type of SSLConfig"),
    ],
)
def test_a_wrong_parameter_is_refused(arguments: Any, text: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        Client(*arguments)
    assert str(raised.value).startswith(text)


def test_a_bool_passes_for_a_version() -> None:
    with ScriptedServer(_double) as server, Client(server.address, "add", "m", True) as client:
        client.infer({"x": np.int32(1)})
        assert server.requests[0].servable_spec.version_number == 1


@pytest.mark.parametrize("arguments", [{"certificate": "c"}, {"private_key": "k"}])
def test_certificate_and_key_come_together(arguments: dict[str, str]) -> None:
    with pytest.raises(RuntimeError) as raised:
        SSLConfig(**arguments)
    assert str(raised.value) == "The certificate and private_key should be passed at the same time"


def test_a_file_of_tls_that_is_missing_is_said_when_the_client_is_made() -> None:
    with pytest.raises(FileNotFoundError):
        Client("localhost:1", "add", "m", ssl_config=SSLConfig(custom_ca="/nonexistent/ca.pem"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subprocess.run(
        [
            *command.split(),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


def test_tls_with_a_client_certificate_reaches_a_server_that_demands_one(
    certificate: tuple[Path, Path],
) -> None:
    key, chain = certificate
    pair = (key.read_bytes(), chain.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], chain.read_bytes(), True)
    ssl_config = SSLConfig(str(chain), str(key), str(chain))
    with ScriptedServer(_double, credentials) as server:
        address = f"localhost:{server.port}"
        with Client(address, "add", "m", ssl_config=ssl_config) as client:
            result = client.infer({"x": np.int32(4)})
        with Client(address, "add", "m") as client:
            plain = client.infer({"x": np.int32(4)})
    assert isinstance(result, list)
    assert result[0]["y"].item() == 8
    assert isinstance(plain, dict)
    assert plain["error"].startswith("Grpc Error, (14, 'unavailable'), ")


def test_the_client_needs_nothing_but_grpcio_protobuf_and_numpy() -> None:
    program = (
        "import sys\n"
        "import mindspore_serving.client\n"
        "tops = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(tops & {'structlog', 'zmq', 'msgpack', 'orjson', 'httptools', 'mindspore',"
        " 'telemetry', 'broker', 'workers', 'gateway', 'mindbus'}))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
