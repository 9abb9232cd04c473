"""Settings of `mindbus serve`: flags over variables over defaults."""

import argparse
from pathlib import Path

import pytest

from mindbus import config, dec_key
from mindbus.config import ConfigError, ServeConfig, read_config
from mindbus.config_values import ServableChoice
from workers.servable.version_policy import VersionPolicy


def parse(*arguments: str, user_id: int = 7, **environment: str) -> ServeConfig:
    parser = argparse.ArgumentParser(exit_on_error=False)
    config.add_flags(parser)
    return read_config(vars(parser.parse_args(arguments)), environment, user_id)


def test_without_flags_and_variables_the_defaults_of_mindspore_serving_hold() -> None:
    read = parse("--servable-directory", "/s")
    assert read == ServeConfig(Path("/s"), Path("/tmp/mindbus-7"))
    assert read.grpc_address == "127.0.0.1:5500"
    assert read.rest_address == "127.0.0.1:1500"
    assert (read.max_msg_mb_size, read.requests_max) == (100, 10_000)


def test_every_setting_has_a_flag_and_a_variable_that_mean_the_same() -> None:
    samples = {
        "servable_directory": "/s",
        "servables": "add:3",
        "device_ids": "0,2",
        "extra_workers": "3",
        "device_target": "ascend",
        "host": "0.0.0.0",
        "grpc_port": "1",
        "rest_port": "0",
        "grpc_unix_address": "unix:/tmp/g",
        "max_msg_mb_size": "512",
        "requests_max": "5",
        "mode": "standalone",
        "gateways": "1",
        "backend": "numpy",
        "run_directory": "/r",
        "producers_addresses": "tcp://127.0.0.1:6000",
        "grace_ms": "1",
        "hang_ms": "1",
        "ready_ms": "1",
        "model_control": "explicit",
        "settings_control": "explicit",
        "rest_compression": "on",
        "device_limit_ms": "1",
        "worker_log_directory": "/l",
        "access_log": "on",
        "npu_smi": "npu-smi",
        "tls_certificate": "/c",
        "tls_private_key": "/p",
        "tls_client_ca": "/a",
        "dec_key_file": "/k",
        "dec_mode": "AES-CBC",
    }
    assert set(samples) == {setting.field for setting in config.SETTINGS}
    partners = {
        "tls_certificate": ["--tls-private-key", "/P"],
        "tls_private_key": ["--tls-certificate", "/C"],
        "tls_client_ca": ["--tls-certificate", "/C", "--tls-private-key", "/P"],
    }
    base = parse("--servable-directory", "/d", "--run-directory", "/e")
    for setting in config.SETTINGS:
        said = samples[setting.field]
        common = [] if setting.field == "servable_directory" else ["--servable-directory", "/d"]
        common += [] if setting.field == "run_directory" else ["--run-directory", "/e"]
        common += partners.get(setting.field, [])
        by_flag = parse(*common, setting.option, said)
        by_variable = parse(*common, **{setting.variable: said})
        assert by_flag == by_variable
        if setting.field != "gateways":
            assert getattr(by_flag, setting.field) != getattr(base, setting.field)


def test_the_flag_wins_over_the_variable() -> None:
    read = parse("--grpc-port", "7000", MINDBUS_GRPC_PORT="8000", MINDBUS_REST_PORT="9000")
    assert (read.grpc_port, read.rest_port) == (7000, 9000)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert parse(MINDBUS_GRPC_PORT="", MINDBUS_SERVABLE="").grpc_port == 5500


def test_lists_come_by_repeated_flags_or_by_commas() -> None:
    choices = (ServableChoice("add"), ServableChoice("resnet", VersionPolicy((2,))))
    assert parse("--servable", "add", "--servable", "resnet:2").servables == choices
    assert parse(MINDBUS_SERVABLE="add,resnet:2").servables == choices
    assert parse("--device-ids", "3, 1").device_ids == (3, 1)


def test_names_of_devices_and_modes_ignore_case() -> None:
    read = parse("--device-target", "cpu", "--dec-mode", "aes-gcm")
    assert (read.device_target, read.dec_mode) == ("CPU", "AES-GCM")


def test_a_unix_address_takes_the_place_of_host_and_port() -> None:
    read = parse("--grpc-address", "unix:/tmp/door", "--grpc-port", "1")
    assert read.grpc_address == "unix:/tmp/door"


def test_the_run_directory_follows_the_runtime_directory_of_the_user() -> None:
    assert parse(XDG_RUNTIME_DIR="/run/user/7").run_directory == Path("/run/user/7/mindbus")
    assert parse(user_id=42).run_directory == Path("/tmp/mindbus-42")


def test_relative_paths_count_from_where_the_command_was_given() -> None:
    assert parse("--servable-directory", "s").servable_directory == Path.cwd() / "s"
    assert parse().servable_directory == Path.cwd()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--grpc-port", "65536"], "--grpc-port: 65536 is not in 0..65535"),
        (["--grpc-port", "x"], "--grpc-port: 'x' is not a whole number"),
        (["--max-msg-mb-size", "513"], "--max-msg-mb-size: 513 is not in 1..512"),
        (["--max-enqueued-requests", "0"], "--max-enqueued-requests: 0 is not in 1..10000000"),
        (["--device-ids", "0,0"], "--device-ids: '0,0' names a device twice"),
        (["--device-ids", "-1"], "--device-ids: -1 is not in 0..65535"),
        (["--device-target", "TPU"], "--device-target: 'TPU' is not one of CPU, GPU, Ascend"),
        (["--servable", "a/b"], "--servable: 'a/b' is not NAME or NAME:VERSIONS"),
        (
            ["--servable", "a:new"],
            "--servable: 'new' is not a whole number, latest, latest=COUNT or all",
        ),
        (["--host", ""], "--host: is empty"),
        (
            ["--grpc-address", "127.0.0.1:1"],
            "--grpc-address: '127.0.0.1:1' is not unix:PATH (a port is set by --grpc-port)",
        ),
        (
            ["--producers-address", "udp://x"],
            "--producers-address: 'udp://x' is not tcp://HOST:PORT or ipc://PATH",
        ),
        (
            ["--gateways", "2"],
            (
                "--gateways 2 needs --mode standalone: "
                "in mode embedded the broker is inside the one gateway"
            ),
        ),
    ],
)
def test_a_bad_value_is_named_with_its_limit(arguments: list[str], text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(*(f"{flag}" for flag in _joined(arguments)))
    assert str(raised.value) == text


def _joined(arguments: list[str]) -> list[str]:
    """`--flag=value`, so that a value may begin with a dash."""
    return [f"{arguments[0]}={arguments[1]}"]


def test_files_of_tls_that_need_each_other_are_named() -> None:
    with pytest.raises(ConfigError, match=r"^--tls-certificate and --tls-private-key go together"):
        parse("--tls-certificate", "/c")
    with pytest.raises(ConfigError, match=r"^--tls-client-ca needs --tls-certificate and"):
        parse("--tls-client-ca", "/a")


def test_a_bad_variable_is_named_as_variable() -> None:
    with pytest.raises(ConfigError, match=r"^MINDBUS_REST_PORT: 'x' is not a whole number$"):
        parse(MINDBUS_REST_PORT="x")


def test_a_key_file_is_read_without_the_line_end_of_an_editor(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for size in (16, 24, 32):
        file.write_bytes(b"k" * size)
        assert dec_key.read_dec_key(file) == b"k" * size
        file.write_bytes(b"k" * size + b"\n")
        assert dec_key.read_dec_key(file) == b"k" * size


def test_a_key_of_another_size_is_refused_without_showing_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"secret")
    with pytest.raises(ConfigError) as raised:
        dec_key.read_dec_key(file)
    assert str(raised.value) == (f"--dec-key-file {file}: a key of 6 B is not one of 16, 24, 32 B")
    with pytest.raises(ConfigError, match="No such file or directory"):
        dec_key.read_dec_key(tmp_path / "none")
