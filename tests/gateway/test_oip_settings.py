"""Log and trace settings of the Open Inference Protocol, by REST and by gRPC, on fakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.http_messages import HttpRequest
from gateway.oip_handler import OipHandler
from gateway.oip_rest_handler import OipRestHandler
from protocol import limits
from protocol import oip_messages as messages
from protocol.errors import RequestError
from tests.gateway.oip_fakes import FakeSettings, WorkerBus, server

LOGGING = b"/v2/logging"
TRACE = b"/v2/trace/setting"

AT_WARNING = {
    "log_file": "",
    "log_info": False,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
ALL_TRACED = {
    "trace_level": ["TIMESTAMPS"],
    "trace_rate": "1",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "opentelemetry",
}


class Doors:
    """Both handlers around one fake server."""

    def __init__(self, settings: FakeSettings) -> None:
        bus = WorkerBus()
        oip = server(bus, settings=settings)
        self._rest = OipRestHandler(bus, oip, limits.MIB)
        self.grpc = OipHandler(bus, oip)

    async def get(self, target: bytes) -> tuple[int, Any]:
        return await self._ask(HttpRequest("GET", target, (), b"not looked at"))

    async def post(self, target: bytes, document: Any) -> tuple[int, Any]:
        return await self._ask(HttpRequest("POST", target, (), json.dumps(document).encode()))

    async def _ask(self, request: HttpRequest) -> tuple[int, Any]:
        answer = await self._rest.handle(request)
        document = json.loads(answer.body)
        return answer.status, document.get("error", document)


def play(
    scene: Callable[[Doors], Awaitable[None]], settings: FakeSettings | None = None
) -> FakeSettings:
    settings = settings or FakeSettings()

    async def run() -> None:
        await scene(Doors(settings))

    asyncio.run(run())
    return settings


def test_settings_are_told_also_where_nobody_may_change_them() -> None:
    async def scene(doors: Doors) -> None:
        assert await doors.get(LOGGING) == (200, AT_WARNING)
        assert await doors.post(LOGGING, {}) == (200, AT_WARNING)
        assert await doors.get(TRACE) == (200, {**ALL_TRACED, "trace_level": ["OFF"]})
        status, metadata = await doors.get(b"/v2")
        assert not {"logging", "trace"} & set(metadata["extensions"])
        for target in (LOGGING, TRACE):
            status, why = await doors.post(target, {"log_info": True})
            assert (status, why) == (
                403,
                (
                    "changing settings by clients is not allowed: start the server with "
                    "`mindbus serve --settings-control explicit`"
                ),
            )

    play(scene, FakeSettings(is_allowed=False, has_tracer=False))


@pytest.mark.parametrize(
    ("before", "wishes", "after"),
    [
        (2, {"log_info": True}, 1),
        (2, {"log_verbose_level": 1}, 0),
        (2, {"log_verbose_level": 7}, 0),
        (0, {"log_verbose_level": 0}, 1),
        (3, {"log_verbose_level": 0}, 3),
        (0, {"log_info": False}, 2),
        (0, {"log_warning": False}, 3),
        (1, {"log_error": False}, 4),
        (4, {"log_warning": True, "log_info": False}, 2),
        (2, {"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0}, 1),
        (1, {"log_file": "", "log_format": "default"}, 1),
        # None is what was set at the start, WARNING here
        (0, {"log_info": None, "log_warning": None}, 2),
        (3, {"log_warning": None, "log_file": None}, 2),
    ],
)
def test_log_levels_are_thresholds(before: int, wishes: dict[str, Any], after: int) -> None:
    async def scene(doors: Doors) -> None:
        status, told = await doors.post(LOGGING, wishes)
        assert status == 200, told
        assert told == (await doors.get(LOGGING))[1]
        flags = [told[name] for name in ("log_info", "log_warning", "log_error")]
        assert flags == [after <= level for level in (1, 2, 3)]
        assert told["log_verbose_level"] == int(after == 0)

    settings = FakeSettings()
    settings.settings["log_level"] = before
    assert play(scene, settings).settings["log_level"] == after


@pytest.mark.parametrize(
    ("target", "wishes", "status", "text"),
    [
        (LOGGING, {"log_info": 1}, 400, "setting log_info is 1, not true or false"),
        (LOGGING, {"log_verbose_level": -1}, 400, "setting log_verbose_level is -1, not a whole"),
        (LOGGING, {"log_verbose_level": True}, 400, "setting log_verbose_level is True, not a who"),
        (LOGGING, {"log_loud": True}, 400, "setting 'log_loud' is not one of log_file, log_info, "),
        (LOGGING, {"log_loud": None}, 400, "setting 'log_loud' is not one of log_file, log_info, "),
        (LOGGING, {"log_file": "/x"}, 501, "setting log_file cannot be changed: it is '', not '/x"),
        (
            LOGGING,
            {"log_info": True, "log_error": False},
            400,
            (
                "log levels are thresholds here: what is on has everything graver on, but "
                "log_info is True, log_error is False"
            ),
        ),
        (TRACE, {"trace_level": "LOUD"}, 400, "setting trace_level is 'LOUD', not OFF or TIMESTAM"),
        (TRACE, {"trace_level": ["TIMESTAMPS", "TENSORS"]}, 400, "setting trace_level is ['TIMEST"),
        (TRACE, {"trace_rate": "0"}, 400, "setting trace_rate is '0', not a whole number, 1 or mo"),
        (TRACE, {"trace_rate": True}, 400, "setting trace_rate is True, not a whole number"),
        (TRACE, {"trace_count": "5"}, 501, "setting trace_count cannot be changed: it is '-1'"),
        (TRACE, {"rate": "5"}, 400, "setting 'rate' is not one of trace_level, trace_rate"),
        (b"/v2/models/add/trace/setting", {"trace_rate": "2"}, 501, "model 'add' has no trace set"),
        (b"/v2/models/no/trace/setting", {"trace_rate": "2"}, 404, "model 'no' is not served"),
        (b"/v2/models/no/trace/setting", {}, 404, "model 'no' is not served"),
    ],
)
def test_what_cannot_be_set_changes_nothing(
    target: bytes, wishes: dict[str, Any], status: int, text: str
) -> None:
    async def scene(doors: Doors) -> None:
        got, why = await doors.post(target, wishes)
        assert got == status
        assert why.startswith(text), why

    settings = play(scene)
    assert settings.settings == settings.at_start()


def test_traces_are_switched_and_sampled() -> None:
    async def scene(doors: Doors) -> None:
        off = {**ALL_TRACED, "trace_level": ["OFF"], "trace_rate": "100"}
        assert await doors.post(TRACE, {"trace_level": "OFF", "trace_rate": 100}) == (200, off)
        assert await doors.get(b"/v2/models/add/trace/setting") == (200, off)
        on = {**off, "trace_level": ["TIMESTAMPS"]}
        assert await doors.post(TRACE, {"trace_level": ["TIMESTAMPS"]}) == (200, on)
        assert await doors.post(TRACE, {"trace_level": None, "trace_rate": None}) == (
            200,
            ALL_TRACED,
        )

    play(scene)


def test_traces_cannot_be_switched_on_where_no_spans_are_made() -> None:
    async def scene(doors: Doors) -> None:
        status, why = await doors.post(TRACE, {"trace_level": "TIMESTAMPS"})
        assert status == 501
        assert why.endswith("start the server with MINDBUS_TRACING=on and OpenTelemetry installed")
        _, metadata = await doors.get(b"/v2")
        assert "logging" in metadata["extensions"]
        assert "trace" not in metadata["extensions"]

    play(scene, FakeSettings(has_tracer=False))


def test_grpc_has_the_same_settings_in_messages() -> None:
    async def scene(doors: Doors) -> None:
        asked = messages.LogSettingsRequest()
        asked.settings["log_info"].bool_param = True
        asked.settings["log_file"].string_param = ""
        body = await doors.grpc.log_settings(asked.SerializeToString())
        told = messages.LogSettingsResponse.FromString(body).settings
        assert told["log_info"].bool_param
        assert told["log_verbose_level"].uint32_param == 0
        assert told["log_format"].string_param == "default"
        _, document = await doors.get(LOGGING)
        assert set(told) == set(document)

        asked = messages.TraceSettingRequest(model_name="")
        asked.settings["trace_level"].value.append("OFF")
        asked.settings["trace_rate"].value.append("9")
        body = await doors.grpc.trace_setting(asked.SerializeToString())
        settings = messages.TraceSettingResponse.FromString(body).settings
        assert {name: list(each.value) for name, each in settings.items()} == {
            "trace_level": ["OFF"],
            "trace_rate": ["9"],
            "trace_count": ["-1"],
            "log_frequency": ["0"],
            "trace_file": [""],
            "trace_mode": ["opentelemetry"],
        }
        cleared = messages.TraceSettingRequest()
        assert not cleared.settings["trace_rate"].value  # it is there now, with no value
        body = await doors.grpc.trace_setting(cleared.SerializeToString())
        settings = messages.TraceSettingResponse.FromString(body).settings
        assert list(settings["trace_rate"].value) == ["1"]
        assert list(settings["trace_level"].value) == ["OFF"]

        wrong = messages.TraceSettingRequest()
        wrong.settings["trace_rate"].value.extend(["1", "2"])
        with pytest.raises(RequestError, match=r"trace_rate is \['1', '2'\], not a whole number"):
            await doors.grpc.trace_setting(wrong.SerializeToString())

    play(scene)
