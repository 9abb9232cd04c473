"""Start scripts with several versions and servables, limits, unix sockets and TLS, for real."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from mindbus.runtime_client import RuntimeClient
from mindspore_serving.client import Client, SSLConfig
from tests.gateway.fakes import KeyMaterial, make_key_material
from tests.mindspore_serving.start_script import StartScript, free_port, post
from tests.processes.waiting import DEADLINE_S, wait_until

pytestmark = pytest.mark.process

#: Method `compute` of servable `steps`: its model adds in version 1 and multiplies in version 2.
STEPS = """
from mindspore_serving.server import register

model = register.declare_model("steps.mindir", "MindIR", with_batch_dim=False)


@register.register_method(output_names=["y"])
def compute(a, b):
    return register.add_stage(model, a, b, outputs_count=1)
"""

#: Servable `text` has no model.
TEXT = """
from mindspore_serving.server import register


def shout(text):
    return text.upper()


def wait_for_writer(path):
    with open(path) as fifo:
        return fifo.read()


@register.register_method(output_names=["text"])
def loud(text):
    return register.add_stage(shout, text, outputs_count=1)


@register.register_method(output_names=["text"])
def slow(path):
    return register.add_stage(wait_for_writer, path, outputs_count=1)
"""

A, B = np.array([3, 4], np.float32), np.array([10, 20], np.float32)
ADDED, MULTIPLIED = [13.0, 24.0], [30.0, 80.0]


def write_servables(directory: Path) -> None:
    """`steps` with versions 1 and 2, and `text` with none."""
    for name, config in (("steps", STEPS), ("text", TEXT)):
        (directory / name).mkdir()
        (directory / name / "servable_config.py").write_text(config)
    for version, op in (("1", "add"), ("2", "multiply")):
        vector = {"dtype": "float32", "shape": [2]}
        model = {
            "inputs": [{"name": "a", **vector}, {"name": "b", **vector}],
            "outputs": [{"name": "y", **vector}],
            "op": op,
        }
        (directory / "steps" / version).mkdir()
        (directory / "steps" / version / "steps.mindir").write_text(json.dumps(model))


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory of the servables whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        write_servables(Path(path))
        yield Path(path)


def ask(address: str, servable: str, method: str, inputs: dict[str, Any], version: int = 0) -> Any:
    """One instance through gRPC; its one output as a plain value, or the error."""
    with Client(address, servable, method, version) as client:
        result = client.infer(inputs)
    if isinstance(result, dict):
        return result["error"]
    ((output,),) = (instance.values() for instance in result)
    return output if isinstance(output, str) else output.tolist()


def compute(address: str, version: int = 0) -> Any:
    """`steps` on A and B."""
    return ask(address, "steps", "compute", {"a": A, "b": B}, version)


def unavailable(servable: str, method: str, version: int) -> str:
    return (
        f"Request servable({servable}) method({method})  version({version}) , "
        "servable is not available"
    )


# ---------------------------------------------------------------- versions

SIDE_BY_SIDE = """
from mindspore_serving import server

server.start_servables([
    server.ServableStartConfig(".", "steps", device_ids=0, version_number=1),
    server.ServableStartConfig(".", "steps", device_ids=1),
    server.ServableStartConfig(".", "text", version_number=5),
])
server.start_grpc_server("{grpc}")
server.start_restful_server("127.0.0.1:{rest}")
print("served", flush=True)
"""


class Served(NamedTuple):
    """A running script: where its doors are, and the servables that it serves."""

    grpc: str
    rest_port: int
    directory: Path
    script: StartScript


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Versions 1 and 2 of `steps`, and version 5 of `text`, side by side."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        write_servables(Path(path))
        grpc, rest_port = f"127.0.0.1:{free_port()}", free_port()
        source = SIDE_BY_SIDE.format(grpc=grpc, rest=rest_port)
        with StartScript(Path(path), source) as script:
            script.wait_for("served")
            yield Served(grpc, rest_port, Path(path), script)


def test_versions_of_one_servable_run_side_by_side_each_with_its_own_model(served: Served) -> None:
    assert compute(served.grpc, 1) == ADDED
    assert compute(served.grpc, 2) == MULTIPLIED
    body = {"instances": [{"a": A.tolist(), "b": B.tolist()}]}
    for version, expected in ((1, ADDED), (2, MULTIPLIED)):
        answer = post(served.rest_port, f"/model/steps/version/{version}:compute", body)
        assert answer == {"instances": [{"y": expected}]}


def test_version_zero_is_the_highest_that_runs(served: Served) -> None:
    assert compute(served.grpc) == MULTIPLIED
    body = {"instances": [{"a": A.tolist(), "b": B.tolist()}]}
    for target in ("/model/steps:compute", "/model/steps/version/0:compute"):
        assert post(served.rest_port, target, body) == {"instances": [{"y": MULTIPLIED}]}


def test_a_version_that_does_not_run_is_not_available(served: Served) -> None:
    assert compute(served.grpc, 3) == unavailable("steps", "compute", 3)


def test_a_version_directory_made_after_the_start_is_not_served(served: Served) -> None:
    (served.directory / "steps" / "9").mkdir()
    assert compute(served.grpc, 9) == unavailable("steps", "compute", 9)
    assert compute(served.grpc) == MULTIPLIED


def test_a_servable_without_models_is_addressed_by_the_version_it_was_started_with(
    served: Served,
) -> None:
    for version in (0, 5):
        assert ask(served.grpc, "text", "loud", {"text": "hé"}, version) == "HÉ"
    assert ask(served.grpc, "text", "loud", {"text": "hé"}, 1) == unavailable("text", "loud", 1)


def test_workers_stay_in_the_directory_where_the_script_was_started(served: Served) -> None:
    own = Path(f"/proc/{served.script.process.pid}/cwd").readlink()
    places = {Path(f"/proc/{pid}/cwd").readlink() for pid in served.script.children()}
    assert places == {own}


def test_version_zero_falls_back_when_the_workers_of_the_highest_are_gone(directory: Path) -> None:
    grpc = f"unix:{directory}/grpc.sock"
    source = SIDE_BY_SIDE.format(grpc=grpc, rest=free_port())
    with StartScript(directory, source) as script:
        script.wait_for(f"Serving: Serving gRPC server start success, listening on {grpc}")
        script.wait_for("served")
        assert (compute(grpc), compute(grpc, 1)) == (MULTIPLIED, ADDED)
        (run_directory,) = script.run_directories()
        with RuntimeClient(directory / run_directory) as client:
            slots = client.status()["slots"]
        (pid,) = (slot["pid"] for slot in slots if slot["slot"] == "steps/2/device1")
        os.kill(pid, signal.SIGTERM)
        gone = unavailable("steps", "compute", 2)
        wait_until(lambda: compute(grpc, 2) == gone)
        assert (compute(grpc), compute(grpc, 1)) == (ADDED, ADDED)


# ---------------------------------------------------------------- old names, merged configurations

OLD = """
from mindspore_serving.worker import register

register.declare_servable("steps.mindir", "MindIR", with_batch_dim=False)


def as_floats(a, b):
    return a.astype("float32"), b.astype("float32")


def largest(y):
    return int(y.argmax())


@register.register_method(output_names=["y", "index"])
def compute(a, b):
    a, b = register.call_preprocess(as_floats, a, b)
    y = register.call_servable(a, b)
    index = register.call_postprocess(largest, y)
    return y, index
"""

MERGED = """
from mindspore_serving import server

server.start_servables([
    server.ServableStartConfig(".", "steps", device_ids=0),
    server.ServableStartConfig(".", "steps", device_ids=(0, 1), version_number=2),
])
server.start_grpc_server("127.0.0.1:{grpc}")
print("served", flush=True)
"""


def test_a_servable_from_before_1_5_is_served_by_merged_configurations(directory: Path) -> None:
    (directory / "steps" / "servable_config.py").write_text(OLD)
    grpc_port = free_port()
    with StartScript(directory, MERGED.format(grpc=grpc_port)) as script:
        script.wait_for("served")
        workers = ["log_steps_device0_version2.log", "log_steps_device1_version2.log"]
        assert sorted(script.logs()) == workers, "one for each device of both configurations"
        with Client(f"127.0.0.1:{grpc_port}", "steps", "compute") as client:
            result = client.infer({"a": A.astype(np.int64), "b": B.astype(np.int64)})
        assert isinstance(result, list)
        assert (result[0]["y"].tolist(), result[0]["index"].item()) == (MULTIPLIED, 1)


# ---------------------------------------------------------------- limits

LIMITED = """
from mindspore_serving import server

server.master.context.set_max_enqueued_requests(1)
server.start_grpc_server("unix:{grpc}", max_msg_mb_size=1)
server.start_restful_server("127.0.0.1:{rest}", max_msg_mb_size=1)
server.start_servables(server.ServableStartConfig(".", "text"))
print("served", flush=True)
"""


def test_limits_that_a_script_sets_hold_at_both_doors(directory: Path) -> None:
    rest_port, fifo = free_port(), directory / "fifo"
    os.mkfifo(fifo)
    grpc = f"unix:{directory}/grpc.sock"
    source = LIMITED.format(grpc=directory / "grpc.sock", rest=rest_port)
    too_long = "x" * (1 << 20)
    with (
        StartScript(directory, source) as script,
        Client(grpc, "text", "slow") as slow,
    ):
        script.wait_for("served")
        assert ask(grpc, "text", "loud", {"text": "a" * 1_000_000}) == "A" * 1_000_000
        refused = ask(grpc, "text", "loud", {"text": too_long})
        assert refused.startswith("Grpc Error, (8, 'resource exhausted'), ")
        assert "eceived message larger than max (" in refused
        body = {"instances": {"text": too_long}}
        assert post(rest_port, "/model/text:loud", body) == {
            "error_msg": "http message is bigger than 1048576"
        }
        running = slow.infer_async({"path": str(fifo)})
        with fifo.open("w") as writer:  # opens when the stage has opened it, too
            full = "Serving Error: enqueued requests count exceeds the limit 1"
            assert ask(grpc, "text", "loud", {"text": "a"}) == full
            small = {"instances": {"text": "a"}}
            assert post(rest_port, "/model/text:loud", small) == {"error_msg": full}
            writer.write("written")
        assert running.result() == [{"text": "written"}]
        assert ask(grpc, "text", "loud", {"text": "a"}) == "A"


# ---------------------------------------------------------------- TLS

SECURE = """
from mindspore_serving import server

ssl_config = server.SSLConfig(
    "{keys.server_certificate}", "{keys.server_key}", "{keys.ca}", verify_client={verify_client}
)
server.start_servables(server.ServableStartConfig(".", "text"))
server.start_grpc_server("127.0.0.1:{grpc}", ssl_config=ssl_config)
server.start_restful_server("127.0.0.1:{rest}", ssl_config=ssl_config)
print("served", flush=True)
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyMaterial:
    """An authority, and what it signed for server and client."""
    return make_key_material(tmp_path_factory.mktemp("keys"))


def ask_rest(port: int, context: ssl.SSLContext | None) -> Any:
    """What the RESTful door says to a client with this trust; None if there is no conversation."""
    kind: Any = http.client.HTTPConnection
    options: dict[str, Any] = {"timeout": DEADLINE_S}
    if context is not None:
        kind, options = http.client.HTTPSConnection, {**options, "context": context}
    connection = kind("localhost", port, **options)
    try:
        connection.request("POST", "/model/text:loud", '{"instances":{"text":"a"}}')
        return json.load(connection.getresponse())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@pytest.mark.parametrize("verify_client", [False, True])
def test_both_doors_speak_tls_one_way_and_mutual(
    directory: Path, keys: KeyMaterial, verify_client: bool
) -> None:
    grpc_port, rest_port = free_port(), free_port()
    source = SECURE.format(keys=keys, verify_client=verify_client, grpc=grpc_port, rest=rest_port)

    def ask_grpc(ssl_config: SSLConfig | None) -> Any:
        with Client(f"localhost:{grpc_port}", "text", "loud", 0, ssl_config) as client:
            return client.infer({"text": "a"})

    anonymous, known = ssl.create_default_context(), ssl.create_default_context()
    for context in (anonymous, known):
        context.load_verify_locations(keys.ca)
    known.load_cert_chain(keys.client_certificate, keys.client_key)
    unavailable_text = "Grpc Error, (14, 'unavailable'), "
    with StartScript(directory, source) as script:
        script.wait_for("served")
        proven = SSLConfig(keys.client_certificate, keys.client_key, keys.ca)
        assert ask_grpc(proven) == [{"text": "A"}]
        assert ask_rest(rest_port, known) == {"instances": [{"text": "A"}]}
        assert ask_grpc(None)["error"].startswith(unavailable_text)
        assert ask_rest(rest_port, None) is None
        if verify_client:
            refused = ask_grpc(SSLConfig(custom_ca=keys.ca))
            assert refused["error"].startswith(unavailable_text)
            assert ask_rest(rest_port, anonymous) is None
        else:
            assert ask_grpc(SSLConfig(custom_ca=keys.ca)) == [{"text": "A"}]
            assert ask_rest(rest_port, anonymous) == {"instances": [{"text": "A"}]}


# ---------------------------------------------------------------- encrypted models

ENCRYPTED = """
from mindspore_serving import server

for key in (b"w" * 16, b"k" * 16):
    config = server.ServableStartConfig(".", "steps", 0, dec_key=key, dec_mode="AES-CBC")
    try:
        server.start_servables(config)
    except RuntimeError as error:
        print("refused:", error, flush=True)
server.start_grpc_server("127.0.0.1:{grpc}")
print("served", flush=True)
"""


def test_a_model_is_loaded_with_the_key_of_its_servable_and_a_wrong_key_ends_the_start(
    directory: Path,
) -> None:
    path = directory / "steps" / "2" / "steps.mindir"
    model = json.loads(path.read_text())
    key = base64.b64encode(b"k" * 16).decode()
    path.write_text(json.dumps({**model, "dec_key": key, "dec_mode": "AES-CBC"}))
    grpc_port = free_port()
    with StartScript(directory, ENCRYPTED.format(grpc=grpc_port)) as script:
        script.wait_for("served")
        (refused,) = (line for line in script.lines if line.startswith("refused: "))
        assert refused.startswith(
            "refused: Fail to start workers: {servable name:steps, device id:0, <Raise failed: "
            f"Load model failed, servable directory: '{directory}', servable name: 'steps', "
            "model file: '[steps.mindir]', version number 2,model context: {}, "
            "load error details: "
        )
        assert compute(f"127.0.0.1:{grpc_port}") == MULTIPLIED
