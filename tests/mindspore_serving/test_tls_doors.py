"""TLS on both doors of a start script: one-way, mutual, and clients that do not fit the door."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindspore_serving.client import Client, SSLConfig
from tests.gateway.fakes import KeyMaterial, make_key_material
from tests.mindspore_serving.start_script import StartScript, free_port, write_servable
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import DEADLINE_S, wait_until

pytestmark = pytest.mark.process

SCRIPT = """
from mindspore_serving import server


def attempt(function, *arguments, **settings):
    try:
        function(*arguments, **settings)
    except (RuntimeError, OSError) as error:
        print("refused:", type(error).__name__, error, flush=True)


tls = server.SSLConfig({arguments}) if {tls} else None
server.start_servables(server.ServableStartConfig(".", "add"))
attempt(server.start_grpc_server, "127.0.0.1:{grpc}", ssl_config=tls)
attempt(server.start_restful_server, "127.0.0.1:{rest}", ssl_config=tls)
print("served", flush=True)
"""

UNAVAILABLE = "Grpc Error, (14, 'unavailable'), "
ONES = np.ones((2, 2), np.float32)
BODY = json.dumps({"instances": [{"x1": ONES.tolist(), "x2": ONES.tolist()}]})
SUM = [[2.0, 2.0], [2.0, 2.0]]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyMaterial:
    """Keys and certificates for `localhost` and 127.0.0.1."""
    return make_key_material(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with the servable `add`, whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        write_servable(Path(path))
        yield Path(path)


class Doors:
    """A start script that serves, and clients for its two doors."""

    def __init__(self, directory: Path, *arguments: Any) -> None:
        """arguments: of the server's `SSLConfig`; none = no TLS."""
        self._grpc, self._rest = str(free_port()), str(free_port())
        source = SCRIPT.format(
            arguments=", ".join(map(repr, arguments)),
            tls=bool(arguments),
            grpc=self._grpc,
            rest=self._rest,
        )
        self.script = StartScript(directory, source)

    def __enter__(self) -> Doors:
        self.script.__enter__()
        self.script.wait_for("served")
        return self

    def __exit__(self, *_: object) -> None:
        self.script.__exit__()

    @property
    def refused(self) -> list[str]:
        """What the script's `start_…` raised."""
        marks = [line.partition("refused: ") for line in self.script.lines]
        return [text for _, mark, text in marks if mark]

    def grpc(self, tls: SSLConfig | None) -> Any:
        """The sum over gRPC, or the error's text."""
        return ask_grpc(self._grpc, tls)

    def curl(self, scheme: str, *arguments: str) -> Any:
        """The sum over REST, or what curl complains of."""
        return ask_rest(self._rest, scheme, *arguments)


def ask_grpc(port: str, tls: SSLConfig | None) -> Any:
    with Client(f"localhost:{port}", "add", "add_cast", ssl_config=tls) as client:
        result = client.infer({"x1": ONES, "x2": ONES})
    return result["error"] if isinstance(result, dict) else result[0]["y"].tolist()


def ask_rest(port: str, scheme: str, *arguments: str) -> Any:
    done = subprocess.run(
        [
            *("curl", "--silent", "--show-error", "--noproxy", "*", "--data", BODY),
            *("--max-time", str(DEADLINE_S), *arguments),
            f"{scheme}://localhost:{port}/model/add:add_cast",
        ],
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)["instances"][0]["y"] if not done.returncode else done.stderr


def test_one_way_tls_serves_those_who_trust_the_server(directory: Path, keys: KeyMaterial) -> None:
    with Doors(directory, keys.server_certificate, keys.server_key) as doors:
        assert doors.refused == []
        assert doors.grpc(SSLConfig(custom_ca=keys.ca)) == SUM
        assert doors.curl("https", "--cacert", keys.ca) == SUM
        assert doors.curl("https", "--cacert", keys.ca, "--tls-max", "1.2") == SUM
        assert doors.grpc(SSLConfig(custom_ca=keys.other_ca)).startswith(UNAVAILABLE)
        assert "certificate" in doors.curl("https", "--cacert", keys.other_ca)


def test_mutual_tls_serves_those_whom_the_custom_ca_has_signed(
    directory: Path, keys: KeyMaterial
) -> None:
    ours = SSLConfig(keys.client_certificate, keys.client_key, keys.ca)
    foreign = SSLConfig(keys.foreign_certificate, keys.foreign_key, keys.ca)
    with Doors(directory, keys.server_certificate, keys.server_key, keys.ca, True) as doors:
        assert doors.refused == []
        assert doors.grpc(ours) == SUM
        assert doors.curl("https", *_curl_keys(keys.ca, ours)) == SUM
        assert doors.grpc(foreign).startswith(UNAVAILABLE)
        assert "curl: " in doors.curl("https", *_curl_keys(keys.ca, foreign))
        assert doors.grpc(SSLConfig(custom_ca=keys.ca)).startswith(UNAVAILABLE)
        assert "curl: " in doors.curl("https", "--cacert", keys.ca)


def _curl_keys(ca: str, tls: SSLConfig) -> list[str]:
    return ["--cacert", ca, "--cert", str(tls.certificate), "--key", str(tls.private_key)]


def test_a_plain_client_fails_at_a_door_with_tls_and_the_log_says_why(
    directory: Path, keys: KeyMaterial
) -> None:
    with Doors(directory, keys.server_certificate, keys.server_key) as doors:
        assert doors.grpc(None).startswith(UNAVAILABLE)
        assert "curl: " in doors.curl("http")
        log = doors.script.error_lines
        wait_until(lambda: any("WRONG_VERSION_NUMBER" in line for line in log))
        wait_until(lambda: any("TLS handshake failed" in line for line in log))
        assert doors.grpc(SSLConfig(custom_ca=keys.ca)) == SUM


def test_a_client_with_tls_fails_at_a_plain_door(directory: Path, keys: KeyMaterial) -> None:
    with Doors(directory) as doors:
        assert doors.grpc(SSLConfig(custom_ca=keys.ca)).startswith(UNAVAILABLE)
        assert "wrong version number" in doors.curl("https", "--cacert", keys.ca)
        assert doors.grpc(None) == SUM
        assert doors.curl("http") == SUM


CREATE_FAILED = (
    "RuntimeError Raise failed: Serving Error: Serving gRPC server start failed, create server "
    "failed, address 127.0.0.1:"
)
REST_FAILED = "RuntimeError Raise failed: Serving Error: "


def test_files_that_do_not_fit_are_named_in_the_words_of_each_door(
    directory: Path, keys: KeyMaterial
) -> None:
    certificate = keys.server_certificate
    cases = {
        (certificate, keys.client_key): f"load private_key from {keys.client_key} failed",
        (
            certificate,
            keys.rsa_key,
        ): f"private_key is not consistent with certificate {certificate}",
        (keys.server_key, keys.server_key): f"load certificate_chain from {keys.server_key} failed",
        (certificate, keys.server_key, keys.server_key, True): (
            f"load root certificate from {keys.server_key} failed"
        ),
    }
    for arguments, text in cases.items():
        with Doors(directory, *arguments) as doors:
            grpc, rest = doors.refused
            assert grpc.startswith(CREATE_FAILED)
            assert rest == REST_FAILED + text


def test_a_missing_file_is_the_error_that_each_door_has_for_it(
    directory: Path, keys: KeyMaterial
) -> None:
    with Doors(directory, "/nonexistent.pem", keys.server_key) as doors:
        assert doors.refused == [
            "FileNotFoundError [Errno 2] No such file or directory: '/nonexistent.pem'",
            f"{REST_FAILED}load certificate_chain from /nonexistent.pem failed",
        ]


def test_serve_opens_both_doors_with_mutual_tls(directory: Path, keys: KeyMaterial) -> None:
    ours = SSLConfig(keys.client_certificate, keys.client_key, keys.ca)
    with ServerProcess(
        directory,
        *("--backend", "numpy", "--tls-client-ca", keys.ca),
        *("--tls-certificate", keys.server_certificate, "--tls-private-key", keys.server_key),
    ) as server:
        grpc = server.grpc_address.rpartition(":")[2]
        rest = server.rest_address.rpartition(":")[2]
        assert ask_grpc(grpc, ours) == SUM
        assert ask_rest(rest, "https", *_curl_keys(keys.ca, ours)) == SUM
        assert ask_grpc(grpc, SSLConfig(custom_ca=keys.ca)).startswith(UNAVAILABLE)
        assert "curl: " in ask_rest(rest, "https", "--cacert", keys.ca)
