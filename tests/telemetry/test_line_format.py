"""The two forms of a log line, compared as whole texts."""

import json
from datetime import UTC, datetime

import pytest

from telemetry.line_format import TEXT_CHARACTERS_MAX, LineOrigin, glog_line, json_line

ORIGIN = LineOrigin(
    level=1,
    submodule="BROKER",
    program="gateway",
    process_id=42,
    thread_id=0x7F01,
    time=datetime(2026, 3, 4, 5, 6, 7, 8009, UTC),
    file="broker/core.py",
    line=12,
    function="dispatch",
)
PREFIX = "[INFO] SERVING(42,7f01,gateway):2026-03-04-05:06:07.008.009 [broker/core.py:12] dispatch]"


def test_a_glog_line_has_the_shape_of_mindspore_serving_with_key_values_behind_it() -> None:
    line = glog_line(ORIGIN, "worker ready", {"worker_id": "add/1/device0", "credit": 2}, None)
    assert line == PREFIX + " worker ready worker_id=add/1/device0 credit=2\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("a\nb", '"a\\nb"'),
        ("back\\slash\n", '"back\\\\slash\\n"'),
        (b"add/1", "add/1"),
        (b"\xff", "\\xff"),
        (None, "None"),
        (1.5, "1.5"),
        ("模型", "模型"),
    ],
)
def test_a_value_is_quoted_when_it_could_be_misread(value: object, text: str) -> None:
    assert glog_line(ORIGIN, "m", {"key": value}, None) == f"{PREFIX} m key={text}\n"


def test_a_message_cannot_forge_a_second_line() -> None:
    line = glog_line(ORIGIN, "a\n[ERROR] SERVING(1,1,x)\x1b[0m", {}, None)
    assert line == PREFIX + " a\\n[ERROR] SERVING(1,1,x)\\x1b[0m\n"


def test_a_traceback_follows_on_its_own_lines() -> None:
    assert glog_line(ORIGIN, "m", {}, "Traceback\n  x\n") == PREFIX + " m\nTraceback\n  x\n"


def test_a_json_line_has_the_same_facts() -> None:
    line = json_line(ORIGIN, "worker ready", {"credit": 2, "level": "mine"}, "Traceback")
    assert line.endswith("}\n")
    assert json.loads(line) == {
        "credit": 2,
        "time": "2026-03-04T05:06:07.008009+00:00",
        "level": "INFO",
        "submodule": "BROKER",
        "program": "gateway",
        "process_id": 42,
        "thread_id": 0x7F01,
        "file": "broker/core.py",
        "line": 12,
        "function": "dispatch",
        "message": "worker ready",
        "traceback": "Traceback",
    }


def test_json_takes_values_that_json_cannot_say() -> None:
    values = {"nan": float("nan"), "bytes": b"\xff", "list": [1], "lone": "\udcff", "yes": True}
    facts = json.loads(json_line(ORIGIN, "m", values, None))
    assert [facts[key] for key in values] == ["nan", "\\xff", "[1]", "\udcff", True]


def test_a_tensor_that_slipped_into_a_log_call_is_cut() -> None:
    line = glog_line(ORIGIN, "m", {"key": "x" * (TEXT_CHARACTERS_MAX + 5)}, None)
    assert line.endswith('x…(5 more characters)"\n')
    assert len(line) < TEXT_CHARACTERS_MAX + 200
