"""The rules of GLOG_v and MS_SUBMODULE_LOG_v, one row each."""

import os
from types import MappingProxyType

import pytest

from telemetry.glog_levels import SUBMODULES, GrammarError, parse_submodules, read_levels

LEVEL_WARNING = (
    "Incorrect log level:{}, Please check the configuration of GLOG_v or GLOG_stderrthreshold, "
    "desired log level :{{'3': 'ERROR', '2': 'WARNING', '1': 'INFO', '0': 'DEBUG'}}"
)


@pytest.mark.parametrize(
    ("text", "level"),
    [("0", 0), ("1", 1), ("2", 2), ("3", 3), ("4", 4), (" 1 ", 1), ("", 2), ("  ", 2), (None, 2)],
)
def test_glog_v_sets_every_submodule_without_a_warning(text: str | None, level: int) -> None:
    levels = read_levels({} if text is None else {"GLOG_v": text})
    assert levels.base == level
    assert levels.of_submodule == dict.fromkeys(SUBMODULES, level)
    assert levels.warnings == ()


@pytest.mark.parametrize(
    "text", ["abc", "1x", "-1", "5", "01", "10", "1.0", "WARNING", "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_glog_v_that_is_no_level_means_the_default_and_a_warning(text: str) -> None:
    levels = read_levels({"GLOG_v": text})
    assert levels.base == 2
    assert levels.warnings == (LEVEL_WARNING.format(text),)


def test_the_faq_example_gives_serving_info_and_the_rest_warning() -> None:
    levels = read_levels({"GLOG_v": "2", "MS_SUBMODULE_LOG_v": "{SERVING:1}"})
    assert levels.base == 2
    assert levels.of_submodule == dict.fromkeys(SUBMODULES, 1)
    assert levels.warnings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{SERVING:1}", {"SERVING": "1"}),
        ("{SERVING:1,BROKER:0}", {"SERVING": "1", "BROKER": "0"}),
        (" { SERVING\t: 1 , ME : 3 } ", {"SERVING": "1", "ME": "3"}),
        ("{SERVING:1}behind", {"SERVING": "1"}),
        ("{SERVING:1}}", {"SERVING": "1"}),
        ("{SERVING:1,SERVING:3}", {"SERVING": "3"}),
        ("{A_1:007}", {"A_1": "007"}),
        ("", {}),
        (" \t", {}),
    ],
)
def test_the_grammar_is_read(text: str, expected: dict[str, str]) -> None:
    assert parse_submodules(text) == expected


@pytest.mark.parametrize(
    ("text", "expected", "got"),
    [
        ("SERVING:1", "{", "variable"),
        ("1", "{", "number"),
        ('"{SERVING:1}"', "{", "invalid"),
        ("\n{SERVING:1}", "{", "invalid"),
        ("{}", "variable", "}"),
        ("{", "variable", "end-of-string"),
        ("{1:1}", "variable", "number"),
        ("{_A:1}", "variable", "invalid"),
        ("{'SERVING':1}", "variable", "invalid"),
        ("{:1}", "variable", ":"),
        ("{SERVING=1}", ":", "invalid"),
        ("{SERVING 1}", ":", "number"),
        ("{SERVING}", ":", "}"),
        ("{SERVING:}", "number", "}"),
        ("{SERVING:-1}", "number", "invalid"),
        ("{SERVING:INFO}", "number", "variable"),
        ("{SERVING:{", "number", "{"),
        ("{SERVING:1", "}", "end-of-string"),
        ("{SERVING:1;ME:2}", "}", "invalid"),
        ("{SERVING:1x}", "}", "variable"),
        ("{SERVING:1\n}", "}", "invalid"),
        ("{SERVING:1,}", "variable", "}"),
        ("{SERVING:1,,ME:2}", "variable", ","),
    ],
)
def test_an_error_of_grammar_voids_the_whole_value(text: str, expected: str, got: str) -> None:
    warning = (
        f"Parse submodule log configuration text error, expect `{expected}`, but got `{got}`. "
        "The whole configuration will be ignored."
    )
    with pytest.raises(GrammarError) as raised:
        parse_submodules(text)
    assert str(raised.value) == warning
    levels = read_levels({"GLOG_v": "3", "MS_SUBMODULE_LOG_v": text})
    assert levels.of_submodule == dict.fromkeys(SUBMODULES, 3)
    assert levels.warnings == (warning,)


@pytest.mark.parametrize("number", ["4", "01", "10", "99999999999999999999"])
def test_an_illegal_level_voids_its_own_key_only(number: str) -> None:
    text = f"{{SERVING:{number},BROKER:0}}"
    levels = read_levels({"GLOG_v": "1", "MS_SUBMODULE_LOG_v": text})
    assert levels.of_submodule["SERVING"] == 1
    assert levels.of_submodule["BROKER"] == 0
    assert levels.warnings == (f"Illegal log level value {number} for SERVING, ignore it.",)


def test_the_key_of_a_room_wins_over_serving_in_both_directions() -> None:
    levels = read_levels({"MS_SUBMODULE_LOG_v": "{SERVING:1,WORKER:3,GATEWAY:0}"})
    assert levels.of_submodule == {
        "SERVING": 1,
        "BROKER": 1,
        "WORKER": 3,
        "GATEWAY": 0,
        "PROTOCOL": 1,
    }


def test_a_room_may_have_a_level_while_serving_stays_at_glog_v() -> None:
    levels = read_levels({"GLOG_v": "3", "MS_SUBMODULE_LOG_v": "{BROKER:0}"})
    assert (levels.of_submodule["BROKER"], levels.of_submodule["SERVING"]) == (0, 3)


def test_names_of_mindspore_are_ignored_without_a_word_even_with_its_own_levels() -> None:
    levels = read_levels({"MS_SUBMODULE_LOG_v": "{CORE:4,serving:0,ME:9,HCCL_ADPT:1}"})
    assert levels.of_submodule == dict.fromkeys(SUBMODULES, 2)
    assert levels.warnings == ()


def test_reading_levels_leaves_the_environment_alone() -> None:
    before = dict(os.environ)
    read_levels(MappingProxyType({"GLOG_v": "bad", "MS_SUBMODULE_LOG_v": "{"}))
    assert dict(os.environ) == before
