"""Which texts of device errors say that the device may be free soon, and what is left of them."""

import pytest

from workers.device_errors import brief_text, is_busy

RULE = "-" * 52

FRAMES = f"{RULE}\n- C++ Call Stack: (For framework developers)\n{RULE}\nascend/x.cc:117 Init\n"

BUSY_LINE = (
    "[PID: 3698671] 2026-06-24-16:04:09.980.816 Resource_Busy(EL0005): The resources are busy."
)


def mindspore_text(own: str, *ascend: str) -> str:
    """An error as MindSpore puts it together on Ascend."""
    said = "\n".join(ascend)
    return f"{own}\n\n{RULE}\n- Ascend Error Message:\n{RULE}\n{said}\n\n{FRAMES}"


OWN = "call aclrtSetDevice failed, ret[500000]. The details refer to 'Ascend Error Message'."


@pytest.mark.shows("R8")
@pytest.mark.parametrize(
    "text",
    [
        "aclrtSetDevice: open device 0 failed, runtime result = 507033",
        "set device 0 failed, errorCode = 507033.",
        "call aclrtSetDevice failed, ret[507033]. The details refer to 'Ascend Error Message'.",
        "EL0005: Resource_Busy, the resource is busy",
        "drv open failed, drvRet=DRV_ERROR_BUSY(13)",
        "open /dev/davinci0: Device or resource busy",
    ],
)
def test_a_device_that_somebody_holds_is_busy(text: str) -> None:
    assert is_busy(text)


@pytest.mark.parametrize(
    "text",
    [
        "device Ascend 9 was asked for, there are 8",
        "this MindSpore supports CPU here, not Ascend",
        "process 1507033 of 5070189 is gone",
        "the queue is busy",
        "aclrtSynchronizeStream failed: 507018",  # a kernel's fault, it may be the model's own
    ],
)
def test_other_errors_do_not_pass_by_themselves(text: str) -> None:
    assert not is_busy(text)


@pytest.mark.shows("R8")
def test_that_a_device_is_busy_is_seen_where_only_ascend_says_so() -> None:
    text = mindspore_text(OWN, BUSY_LINE, "        Possible Cause: 1. The device is being reset.")
    assert brief_text(text) == f"{OWN} {BUSY_LINE}"
    assert is_busy(brief_text(text))
    assert not is_busy(OWN)


@pytest.mark.parametrize(
    ("text", "brief"),
    [
        ("no sections", "no sections"),
        (f"a shape is wrong\n\n{FRAMES}", "a shape is wrong"),
        (mindspore_text("", BUSY_LINE), BUSY_LINE),
        (mindspore_text("nothing follows"), "nothing follows"),
        ("", ""),
    ],
)
def test_a_text_is_brief_without_frames(text: str, brief: str) -> None:
    assert brief_text(text) == brief
