"""What of logs and traces can be changed while a server runs."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest

from telemetry import log as logs
from telemetry.live_settings import LiveSettingError, LiveSettings
from telemetry.orders import follow_orders
from tests.processes.waiting import wait_until


def test_some_settings_change_and_the_others_stay() -> None:
    settings = LiveSettings().changed({"log_level": 0, "trace_rate": 7})
    assert settings == LiveSettings(0, True, 7)
    assert settings.changed({"is_tracing": False}) == LiveSettings(0, False, 7)
    assert settings.changed({"log_level": None}) == LiveSettings(None, True, 7)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("log_level", 5, "log_level 5 is not a number from 0 to 4, or null"),
        ("log_level", True, "log_level True is not a number"),
        ("is_tracing", 1, "is_tracing 1 is not true or false"),
        ("trace_rate", 0, "trace_rate 0 is not a number from 1 to 2147483647"),
        ("trace_rate", "7", "trace_rate '7' is not a number"),
        ("volume", 1, "'volume' is not one of log_level, is_tracing, trace_rate"),
    ],
)
def test_what_is_no_setting_is_refused(name: str, value: object, text: str) -> None:
    with pytest.raises(LiveSettingError) as error:
        LiveSettings().changed({name: value})
    assert text in str(error.value)


@pytest.fixture(autouse=True)
def _the_log_as_it_was() -> Iterator[None]:
    yield
    logs.set_level(None)


def test_a_level_holds_for_all_submodules_until_it_is_taken_back() -> None:
    logs.configure("test", {"GLOG_v": "3", "MS_SUBMODULE_LOG_v": "{BROKER:1}"})
    broker, gateway = logs.get_logger("BROKER"), logs.get_logger("GATEWAY")
    assert (broker.level, gateway.level, logs.environment_level()) == (1, 3, 3)
    logs.set_level(2)
    assert (broker.level, gateway.level, logs.environment_level()) == (2, 2, 3)
    assert logs.get_logger("PROTOCOL").level == 2
    logs.set_level(None)
    assert (broker.level, gateway.level) == (1, 3)
    logs.configure("test", {"GLOG_v": "3"}, level=0)
    assert (broker.level, logs.environment_level()) == (0, 3)
    logs.configure("test", {"GLOG_v": "3"})
    assert broker.level == 3


def test_orders_are_followed_and_nonsense_is_not() -> None:
    logs.configure("test", {})
    log = logs.get_logger("WORKER")
    ours, theirs = socket.socketpair()
    with ours:
        follow_orders(theirs.fileno())
        for line in (b"nonsense", b"[1]", b'{"log_level": 77}', b'{"command": "other"}'):
            ours.sendall(line + b"\n")
        order = {"command": "settings", "log_level": 0, "is_tracing": True, "trace_rate": 1}
        ours.sendall(json.dumps(order).encode() + b"\n")
        wait_until(lambda: log.level == 0)
        ours.sendall(b'{"command": "settings", "log_level": null, "is_tracing": false}\n')
        wait_until(lambda: log.level == logs.environment_level())
    os.fstat(theirs.fileno())  # its caller's, still open
    theirs.close()
