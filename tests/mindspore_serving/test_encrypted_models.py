"""Encrypted models: served with their key, which shows up nowhere."""

from __future__ import annotations

import base64
import contextlib
import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindspore_serving.client import Client
from mindspore_serving.server import ServableStartConfig
from mindspore_serving.server.merging import merge_configs
from mindspore_serving.server.servables import to_launches
from tests.mindspore_process import MindSporeProcess
from tests.mindspore_serving.start_script import StartScript, free_port
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import descendants, wait_until

pytestmark = [pytest.mark.process, pytest.mark.mindspore]

START_S = 120.0

#: One key of each length; the shortest has a zero byte and one that is no text.
KEYS = {
    size: bytes([9, 0, 200]) + b"key-of-a-model-that-is-secret"[: size - 3] for size in (16, 24)
}
KEYS[32] = bytes(range(64, 96))

DOOR = "Serving: Serving gRPC server start success, listening on "

#: `is_private` says whether the kernel would write a core file of the worker (PR_GET_DUMPABLE = 3).
CONFIG = """
import ctypes

from mindspore_serving.server import register

model = register.declare_model(
    model_file="{file}", model_format="MindIR", with_batch_dim=False
)


def dumpable(x):
    return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)


@register.register_method(output_names=["y"])
def scale(x):
    return register.add_stage(model, x, outputs_count=1)


@register.register_method(output_names=["dumpable"])
def is_private(x):
    return register.add_stage(dumpable, x, outputs_count=1)
"""

#: The key comes from a file: neither the script nor its environment contains it.
SCRIPT = """
import os
import resource
from pathlib import Path
from mindspore_serving import server

hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
configs = [
    server.ServableStartConfig(".", name, 0, dec_key=key and bytes.fromhex(key), dec_mode="{mode}")
    for name, key in {servables}
]
try:
    server.start_servables(configs)
    server.start_grpc_server("127.0.0.1:{port}")
except RuntimeError as error:
    print("refused:", error, flush=True)
"""


def export_models(directory: Path) -> None:
    """One encrypted file per mode and length of key, and a plain one."""
    from tests.workers import mindspore_models as models

    models.export(models.Scale(), models.zeros(2), path=directory / "plain.mindir")
    for mode in ("AES-GCM", "AES-CBC"):
        for size, key in KEYS.items():
            path = directory / f"{mode}{size}.mindir"
            models.export(models.Scale(), models.zeros(2), path=path, enc_key=key, enc_mode=mode)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported files."""
    directory = tmp_path_factory.mktemp("models")
    with MindSporeProcess() as process:
        process.run(export_models, directory)
    return directory


@pytest.fixture
def directory(models: Path) -> Iterator[Path]:
    """A servable per model file, in a directory whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        for file in models.glob("*.mindir"):
            servable = Path(path, file.stem)
            (servable / "1").mkdir(parents=True)
            (servable / "servable_config.py").write_text(CONFIG.format(file=file.name))
            (servable / "1" / file.name).write_bytes(file.read_bytes())
        yield Path(path)


def start_script(directory: Path, mode: str, port: int, **keys: bytes | None) -> StartScript:
    """A script that starts a servable per keyword; names have a dash for each underscore."""
    path = directory / "keys.txt"
    servables = [(name.replace("_", "-"), key.hex() if key else None) for name, key in keys.items()]
    path.write_text(repr(servables))
    read = f"__import__('ast').literal_eval(Path({str(path)!r}).read_text())"
    source = SCRIPT.format(mode=mode, port=port, servables=read)
    return StartScript(directory, source, "mindspore", GLOG_v="0")


def infer(port: int, servable: str, method: str) -> Any:
    with Client(f"127.0.0.1:{port}", servable, method) as client:
        return client.infer([{"x": np.array([1, 2], np.float32)}])


def forms(key: bytes) -> list[bytes]:
    """A key as somebody might write it."""
    text = key.hex().encode()
    return [key, text, text.upper(), base64.b64encode(key), repr(key)[2:-1].encode()]


def traces(key: bytes, script: StartScript) -> list[str]:
    """Where the key can be read: arguments and environments of all processes, output, files."""
    said = "\n".join([*script.lines, *script.error_lines]).encode()
    places = {"output": said}
    for pid in {script.process.pid, *descendants(script.process.pid)}:
        places[f"{pid} cmdline"] = Path(f"/proc/{pid}/cmdline").read_bytes()
        with contextlib.suppress(PermissionError):  # private, and this is not root: nobody can
            places[f"{pid} environ"] = Path(f"/proc/{pid}/environ").read_bytes()
    for path in script.cwd.rglob("*"):
        if path.is_file():
            places[str(path)] = path.read_bytes()
    return [place for place, content in places.items() if any(f in content for f in forms(key))]


@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC"])
def test_models_of_each_mode_and_key_length_are_served_and_no_key_shows_up(
    directory: Path, mode: str
) -> None:
    port = free_port()
    keys: dict[str, bytes | None] = {f"{mode}{size}": key for size, key in KEYS.items()}
    with start_script(directory, mode, port, **keys) as script:
        script.wait_for(DOOR, START_S)
        for name in keys:
            assert infer(port, name, "scale")[0]["y"].tolist() == [10.0, 20.0]
            assert infer(port, name, "is_private")[0]["dumpable"] == 0
        for key in KEYS.values():
            assert traces(key, script) == []
        script.end(signal.SIGTERM)


def worker_of(script: StartScript) -> int:
    """The one worker."""
    [pid] = [
        pid
        for pid in descendants(script.process.pid)
        if b"workers" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]
    return pid


def starts(script: StartScript) -> int:
    [lines] = script.logs().values()
    return sum(line.startswith("Serving: Start servable success") for line in lines)


def test_a_worker_that_takes_anothers_place_has_the_key_and_no_key_is_in_a_core(
    directory: Path,
) -> None:
    port, name = free_port(), "AES-GCM16"
    with start_script(directory, "AES-GCM", port, **{name: KEYS[16]}) as script:
        script.wait_for(DOOR, START_S)
        os.kill(worker_of(script), signal.SIGABRT)
        wait_until(lambda: starts(script) == 2, START_S)
        assert infer(port, name, "scale")[0]["y"].tolist() == [10.0, 20.0]
        assert infer(port, name, "is_private")[0]["dumpable"] == 0
        script.process.send_signal(signal.SIGABRT)  # it holds the key, too
        assert script.process.wait(START_S) == -signal.SIGABRT
        assert [path.name for path in script.cwd.glob("core*")] == []
        assert traces_in_files(KEYS[16], script) == []


def traces_in_files(key: bytes, script: StartScript) -> list[str]:
    files = [path for path in script.cwd.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(form in path.read_bytes() for form in forms(key))]


def test_a_worker_without_a_key_leaves_the_core_file_that_is_asked_for(directory: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    if pattern.startswith(("|", "/")) or not resource.getrlimit(resource.RLIMIT_CORE)[1]:
        pytest.skip(f"this machine puts no core files here: {pattern!r}")
    port = free_port()
    with start_script(directory, "AES-GCM", port, plain=None) as script:
        script.wait_for(DOOR, START_S)
        assert infer(port, "plain", "is_private")[0]["dumpable"] == 1
        os.kill(worker_of(script), signal.SIGABRT)
        wait_until(lambda: starts(script) == 2, START_S)
        assert len(list(script.cwd.glob("core*"))) == 1


@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC"])
def test_a_wrong_key_ends_the_start_with_a_text_that_says_so(directory: Path, mode: str) -> None:
    wrong = KEYS[16][::-1]
    with start_script(directory, mode, free_port(), **{f"{mode}16": wrong}) as script:
        script.wait_for("refused:", START_S)
        file = f"{directory}/{mode}16/1/{mode}16.mindir"
        text = (
            f"Fail to start workers: {{servable name:{mode}16, device id:0, <Raise failed: Load "
            f"model failed, servable directory: '{directory}', servable name: '{mode}16', "
            f"model file: '[{mode}16.mindir]', version number 1,model context: {{}}, load error "
            f"details: model file '{file}' cannot be decrypted with this dec_key and dec_mode "
            f"'{mode}'>}}"
        )
        assert script.lines == [f"refused: {text}"]
        assert traces_in_files(wrong, script) == []
        assert not any(form in "".join(script.error_lines).encode() for form in forms(wrong))


def test_serve_reads_the_key_from_a_file_and_keeps_it_private(directory: Path) -> None:
    (directory / "key").write_bytes(KEYS[32])
    with ServerProcess(
        directory,
        *("--servable", "AES-CBC32", "--dec-mode", "AES-CBC"),
        *("--dec-key-file", str(directory / "key")),
        deadline_s=START_S,
    ) as server:
        port = int(server.grpc_address.rpartition(":")[2])
        assert infer(port, "AES-CBC32", "scale")[0]["y"].tolist() == [10.0, 20.0]
        assert infer(port, "AES-CBC32", "is_private")[0]["dumpable"] == 0


def test_no_value_that_holds_a_key_shows_it(directory: Path) -> None:
    key = b"sixteen bytes ok"
    config = ServableStartConfig(str(directory), "plain", dec_key=key)
    [deployment] = merge_configs([config])
    [launch] = to_launches([deployment])
    for value in (config, deployment, launch):
        assert not any(form.decode() in repr(value) for form in forms(key))
