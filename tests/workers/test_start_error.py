"""Why a server could not start, in MindSpore Serving's words."""

import pytest

from workers.supervisor.child import ChildSpec
from workers.supervisor.start_error import exit_text, start_failure_text
from workers.supervisor.stop_policy import GATEWAY, WORKER

SPEC = ChildSpec("add/1/device3", WORKER, (), {}, servable="add", version=1, device=3)


def test_what_a_worker_said_is_told_with_its_servable_and_device() -> None:
    assert start_failure_text(SPEC, "import add.servable_config failed, oops", "exit code 3") == (
        "Fail to start workers: {servable name:add, device id:3, "
        "<import add.servable_config failed, oops>}"
    )


def test_a_worker_that_said_nothing_is_told_with_its_exit() -> None:
    assert start_failure_text(SPEC, None, "killed by SIGSEGV") == (
        "Fail to start workers because of death of one worker (add/1/device3: killed by SIGSEGV)"
    )


def test_other_children_are_told_by_their_slot() -> None:
    spec = ChildSpec("gateway/0", GATEWAY, (), {})
    assert start_failure_text(spec, None, "exit code 1") == "Fail to start gateway/0: exit code 1"


@pytest.mark.parametrize(
    ("returncode", "text"),
    [
        (0, "exit code 0"),
        (70, "exit code 70"),
        (-9, "killed by SIGKILL"),
        (-64, "killed by SIGRTMAX"),
        (-63, "killed by signal 63"),
    ],
)
def test_an_exit_is_told_by_code_or_signal(returncode: int, text: str) -> None:
    assert exit_text(returncode) == text
