"""What the command line says before it does anything: help, usage, version."""

from __future__ import annotations

import pytest

from mindbus import infer_command
from mindbus.cli import main, version
from mindbus.config import SETTINGS


def exit_code(*arguments: str) -> int:
    """Of a command that argparse ends."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_help_of_serve_names_every_variable_and_every_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code("serve", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for setting in SETTINGS:
        assert f"[{setting.variable}]" in shown, setting.option
    #: What has no default is either repeated or a file or address that one names.
    named = {"servables", "grpc_unix_address", "producers_addresses", "dec_key_file"}
    for setting in SETTINGS:
        if setting.field not in named and not setting.field.startswith("tls_"):
            assert "default: " in setting.help, setting.option


def test_a_flag_that_is_none_is_answered_with_the_usage_of_its_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code("stop", "--bogus") == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: mindbus stop ")
    assert said.endswith("mindbus stop: error: unrecognized arguments: --bogus\n")


def test_version_is_a_command_and_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"mindbus {version()}\n" * 2


def test_a_ctrl_c_while_a_command_is_still_being_loaded_ends_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_subparsers: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(infer_command, "add_parser", interrupted)
    assert main(["stop"]) == 130
