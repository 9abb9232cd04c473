"""`mindspore_serving.log`: what it refuses, and what a program sees in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mindspore_serving import log

ROOT = Path(__file__).parents[2]

LEVEL = (
    "Incorrect log level:{}, Please check the configuration of GLOG_v or GLOG_stderrthreshold, "
    "desired log level :{{'3': 'ERROR', '2': 'WARNING', '1': 'INFO', '0': 'DEBUG'}}"
)
TO_STDERR = (
    "Incorrect value, The value of GLOG_logtostderr must be 0 or 1, "
    "Output log to console, configure to 1."
)
NO_DIRECTORY = (
    "When GLOG_logtostderr is set to 0, The directory of saving log must be set, "
    "GLOG_log_dir cannot be empty."
)
BYTES = "Incorrect value, The value of logger_maxBytes must be positive integer. logger_maxBytes:5M"


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"GLOG_v": "4"}, LEVEL.format("4")),
        ({"GLOG_v": "abc"}, LEVEL.format("abc")),
        ({"GLOG_v": " -1"}, LEVEL.format("-1")),
        ({"GLOG_stderrthreshold": "WARNING"}, LEVEL.format("WARNING")),
        ({"GLOG_logtostderr": "2"}, TO_STDERR),
        ({"GLOG_logtostderr": "true"}, TO_STDERR),
        ({"GLOG_logtostderr": "0"}, NO_DIRECTORY),
        (
            {"GLOG_logtostderr": "0", "GLOG_log_dir": "/nonexistent/x"},
            "The file path does not exist. GLOG_log_dir:/nonexistent/x",
        ),
        ({"GLOG_logtostderr": "0", "GLOG_log_dir": "/", "logger_maxBytes": "5M"}, BYTES),
    ],
)
def test_what_mindspore_serving_refused_is_refused(environment: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        log.verify(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"GLOG_v": ""},
        {"GLOG_v": " 3 "},
        {"GLOG_logtostderr": "1", "logger_maxBytes": "5M"},
        {"logger_backupCount": "x"},
        {"GLOG_logtostderr": "0", "GLOG_log_dir": "/", "logger_maxBytes": "5"},
    ],
)
def test_what_mindspore_serving_took_is_taken(environment: dict[str, str]) -> None:
    log.verify(environment)


def _run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


TALK = (
    "from mindspore_serving import log\n"
    "log.debug('d'); log.info('The arg(%s) is: %r', 'x', 1); log.warning('w'); log.error('e')\n"
    "print(log.get_level(), sorted(log.get_log_config().items()))\n"
)


def test_lines_follow_the_faq_example_and_the_config_says_so() -> None:
    done = _run(TALK, GLOG_v="2", MS_SUBMODULE_LOG_v="{SERVING:1}")
    lines = done.stderr.splitlines()
    assert [line.rpartition("] ")[2] for line in lines] == ["The arg(x) is: 1", "w", "e"]
    assert [line.partition("(")[0] for line in lines] == [
        "[INFO] SERVING",
        "[WARNING] SERVING",
        "[ERROR] SERVING",
    ]
    assert "[<string>:2] <module>]" in lines[0]
    assert done.stdout == "1 [('GLOG_logtostderr', '1'), ('GLOG_v', '1')]\n"


def test_lines_go_to_the_file_of_the_process(tmp_path: Path) -> None:
    done = _run(TALK, GLOG_logtostderr="0", GLOG_log_dir=str(tmp_path), logger_maxBytes="1000")
    [path] = tmp_path.iterdir()
    assert path.name.startswith("mindspore_serving.log.")
    assert [line[-2:] for line in path.read_text().splitlines()] == [" w", " e"]
    assert done.stdout == (
        f"2 [('GLOG_log_dir', '{tmp_path}'), ('GLOG_logtostderr', '0'), "
        "('GLOG_stderrthreshold', '2'), ('GLOG_v', '2'), ('logger_backupCount', 30), "
        "('logger_maxBytes', 1000)]\n"
    )


def test_the_first_call_raises_for_a_level_that_is_none() -> None:
    done = _run("from mindspore_serving import log\nlog.info('x')\n", GLOG_v="4")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: " + LEVEL.format("4")
